"""One start of a stage in another environment: ``python one_start.py SPEC STOP_AFTER``; prints one JSON line.

Run as a script. NeMo brings a top-level package ``tests`` of its own, so ``stages`` is
imported from the directory above this file's.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType


def main() -> None:
    """Start the stage; Megatron's savers import this file again, so nothing heavy stands above."""
    here = Path(__file__).resolve().parent
    sys.path[:0] = [str(here.parents[2]), str(here.parent)]
    sys.modules["tests"] = ModuleType("tests")  # NeMo's environment has a package of that name, which would win
    sys.modules["tests"].__path__ = [str(here.parents[1])]
    import stages

    from jobs.core.spec import load

    events: list[dict[str, object]] = []
    result = stages.run_spec(load(Path(sys.argv[1])), stages.StopAfter(step=int(sys.argv[2]) or None), events)
    if os.environ.get("RANK", "0") == "0":
        print("RESULT " + json.dumps({**asdict(result), "events": events}))


if __name__ == "__main__":
    main()
