"""The verbs of a job: ``prologue``, ``work``, ``finish`` and ``ray-nodes`` take a ``spec.json``; ``probe`` takes
back-end names and ``render`` a file of stages (before them ``--code DIR``, where some are the user's), ``harness``
names of tasks of lm-evaluation-harness, ``compare`` a file that names two evaluations and ``evaluate`` one that
describes one, ``address`` interfaces and another node, ``share`` a directory of which a node digests some files,
``shard`` a list of tasks and the index of one, and those that begin with ``probe-`` are those of ``overnight profile
test``."""

from __future__ import annotations

import atexit
import gc
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.core import spec as specs
from jobs.core.patience import Patience


def main(argv: Sequence[str]) -> int:
    """Run one verb; the exit codes of ``prologue`` are those of ``lifecycle.Entry``.

    ``prologue`` may be given the id of a job that this one stood behind and that has ended.
    """
    verb, path, *rest = argv
    if verb in ("probe", "render"):
        return _asked(verb, argv[1:])
    if verb == "harness":  # of the planner: tasks of lm-evaluation-harness
        from jobs.evaluate.harness import index

        print(json.dumps(index.answers(argv[1:])))
        return 0
    if verb in ("compare", "evaluate"):  # of the commands of these names: a file that says what is asked
        return _answered(verb, Path(path))
    if verb == "address":  # of this node: interfaces, another node
        from jobs.lifecycle import network

        print(network.address(path, *rest))
        return 0
    if verb.startswith("probe-"):  # of ``overnight profile test``
        from jobs import probe

        return probe.main(verb, path, *rest)
    if verb == "shard":  # of ``overnight data corpus --cluster``: the list of tasks, and which of them
        from data_prep.corpus import tasks

        return tasks.main(Path(path), int(rest[0]))
    if verb == "share":  # of the files below a directory: number and count of the node, depth
        from jobs.backends.nemo_rl import digests

        return digests.main(path, *rest)
    if verb == "prologue":
        from jobs.lifecycle import steps

        return int(steps.begin(Path(path), *rest))
    spec = Patience().call(lambda: specs.load(Path(path)))
    if verb == "work":
        from jobs.worker import work

        return work.main(spec)
    if verb == "ray-nodes":
        from jobs.worker import ray_nodes

        return ray_nodes.main(spec, float(rest[0]))
    from jobs.lifecycle import steps
    from jobs.lifecycle.start import EndedBy, Start, event

    start = Start.from_environment(spec.attempt)
    if verb == "finish":
        ended_by = EndedBy(rest[1]) if len(rest) > 1 else EndedBy.ITSELF
        print(steps.finish(spec, start, int(rest[0]), ended_by))
        return 0
    if verb == "monitor":
        from jobs.worker import monitor

        return monitor.main(spec, start, int(rest[0]), float(rest[1]))
    if verb == "not-requeued":
        event(spec.stage_paths, start, "not_requeued", answer=rest[0].strip())
        return 0
    print(f"unknown verb {verb!r}", file=sys.stderr)
    return 2


def _asked(verb: str, given: Sequence[str]) -> int:
    """What the planner asks of an interpreter: its back ends (``probe``), or what its stages would run (``render``)."""
    # Both mostly import: looking for garbage meanwhile and at the end is a fifth of their CPU.
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)
    evidence = None
    if verb == "probe":
        from jobs.core.evidence import Evidence

        evidence = Evidence()  # first: it sees what is opened from now on
    code = None
    if given[0] == "--code":
        code, given = Path(given[1]), given[2:]
        sys.path.append(str(code))  # last, as in a job
        sys.dont_write_bytecode = True  # the tree is the user's
    if evidence is not None:
        answers = {name: _probe(name, code) for name in given}
        print(json.dumps(evidence.as_json()))
        print(json.dumps(answers))
    else:
        stages = json.loads(Path(given[0]).read_text(encoding="utf-8"))
        print(json.dumps([_render(asked, code) for asked in stages]))
    return 0


def _answered(verb: str, path: Path) -> int:
    """What two evaluations say of each other, or one evaluation; ``error`` where this interpreter lacks what it
    takes."""
    asked = json.loads(path.read_text(encoding="utf-8"))
    try:
        from jobs.evaluate import against, oneoff

        answer = against.answer(asked) if verb == "compare" else oneoff.answer(asked)
    except (ImportError, OSError, ValueError) as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer))
    return 0


def _probe(name: str, code: Path | None) -> dict[str, Any]:
    """What the planner must know of a back end; ``error`` where it is none, or cannot be used in this interpreter (what
    it can do is said all the same: the work may be done in an image)."""
    from jobs import backends

    try:
        backend = backends.load(name, code)
        found = backend.CAPABILITIES.as_json()
    except (LookupError, ImportError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    try:
        return {**found, "versions": backend.probe()}
    except ImportError as error:
        return {**found, "error": f"{type(error).__name__}: {error}"}


def _render(asked: dict[str, Any], code: Path | None) -> dict[str, Any]:
    """What a start of a stage would run and read; ``error`` where its back end refuses it, ``missing`` where it cannot
    be asked in this interpreter."""
    from jobs import backends
    from jobs.training import interface
    from jobs.training.settings import BadSettings

    spec = specs.read(asked["spec"])
    shape = interface.ProcessShape(asked["nodes"], asked["processes"], asked["gpus"])
    try:
        found = interface.rendered(backends.load(spec.backend, code), spec, shape)
    except (BadSettings, LookupError) as error:
        return {"error": str(error)}
    except ImportError as error:
        return {"missing": str(error)}
    return {"command": list(found.command), "files": dict(found.files), "notes": list(found.notes)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
