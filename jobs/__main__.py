"""The verbs of a job: ``prologue``, ``work`` and ``finish``; each takes the stage's ``spec.json``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.core import spec as specs


def main(argv: Sequence[str]) -> int:
    """Run one verb; the exit codes of ``prologue`` are those of ``lifecycle.Entry``."""
    verb, path, *rest = argv
    spec = specs.load(Path(path))
    if verb == "work":
        from jobs import work

        return work.main(spec)
    from jobs import lifecycle

    start = lifecycle.Start.from_environment()
    if verb == "prologue":
        return int(lifecycle.prologue(spec, start))
    if verb == "finish":
        print(lifecycle.finish(spec, start, exit_code=int(rest[0])))
        return 0
    print(f"unknown verb {verb!r}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
