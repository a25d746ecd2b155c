"""Many starts with one import of NeMo, which takes longer than a tiny stage: ``python nemo_starts.py PLAN``.

PLAN: a JSON list of ``{"spec", "stop_after", "ranks", "publish"}``, or with ``script`` and its arguments; with
``"fails": true`` the plan goes on after a start that failed. Each start is forked from a process that has imported
NeMo and done nothing else with it; one JSON line is printed for each, with the last of what it wrote if it failed.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import runpy
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

TAIL = 6000


def main() -> None:
    """Run the plan to its end, or to the first start that fails and may not."""
    here = Path(__file__).resolve().parent
    sys.path[:0] = [str(here.parents[2]), str(here.parent)]
    sys.modules["tests"] = ModuleType("tests")  # NeMo's environment has a package of that name, which would win
    sys.modules["tests"].__path__ = [str(here.parents[1])]
    importlib.import_module(os.environ.get("STARTS_IMPORT", "nemo.collections.llm"))  # what all of the children have

    for one in json.loads(Path(sys.argv[1]).read_text()):
        found = start(one)
        print("RESULT " + json.dumps(found), flush=True)
        if "output" in found and not one.get("fails"):
            return
        if one["publish"] and "output" not in found:
            publish(Path(one["spec"]))


def start(one: dict[str, Any]) -> dict[str, Any]:
    """One start on its ranks: what rank 0 came to, or ``output``."""
    from torch.distributed import TCPStore

    log, answer = Path(one["spec"]).with_suffix(".log"), Path(one["spec"]).with_suffix(".result")
    answer.unlink(missing_ok=True)
    log.write_text("")
    # As torchrun does it: the parent holds the store, on a port that the system chose.
    store = TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
    place = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": str(one["ranks"]),
        "LOCAL_WORLD_SIZE": str(one["ranks"]),
    }
    children = []
    for rank in range(one["ranks"]):
        child = os.fork()
        if child == 0:
            os.environ.update({**place, "RANK": str(rank), "LOCAL_RANK": str(rank)} if one["ranks"] > 1 else {})
            os._exit(work(one, log, answer, rank))
        children.append(child)
    status = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(status) or not answer.exists():
        return {"output": f"exit {status}\n" + log.read_text(errors="replace")[-TAIL:]}
    return dict(json.loads(answer.read_text()))


def work(one: dict[str, Any], log: Path, answer: Path, rank: int) -> int:
    """In the child; never returns to the parent's code."""
    stream = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    try:
        if "script" in one:
            sys.argv = [str(Path(__file__).with_name(one["script"][0])), *one["script"][1:]]
            runpy.run_path(sys.argv[0], run_name="__main__")
            sys.stdout.flush()
            answer.write_text(log.read_text().splitlines()[-1])
            return 0
        import stages

        from jobs.core.spec import load

        events: list[dict[str, object]] = []
        result = stages.run_spec(load(Path(one["spec"])), stages.StopAfter(step=one["stop_after"] or None), events)
        if rank == 0:
            answer.write_text(json.dumps({**asdict(result), "events": events}))
        return 0
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for helper in multiprocessing.active_children():  # Megatron's savers: nobody ends them where os._exit follows
            helper.terminate()


def publish(path: Path) -> None:
    """What the finish of a job does: the stage's entry, for the next one to read."""
    store = Path(json.loads(path.read_text())["store_dir"])
    from jobs.core.spec import load

    paths = load(path).store_paths
    assert paths.root == store
    paths.partial.rename(paths.output)


if __name__ == "__main__":
    main()
