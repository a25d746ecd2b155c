"""The work itself, inside the stage's own environment: behaviour gate, back end, result.

The result goes to ``result.json``; the exit code is only a hint (torchrun ends with 1 after a clean save on TERM).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jobs import backends
from jobs.core import files, redaction, seal, seal_index, shares, symptoms, verdict
from jobs.core.paths import StagePaths
from jobs.core.patience import Patience
from jobs.core.progress import ProgressWriter
from jobs.core.shares import Node
from jobs.core.spec import StageSpec
from jobs.core.verdict import FailureClass
from jobs.lifecycle import judge, publish, space
from jobs.lifecycle.start import Start, claim_of, event, notes, output_of, write_failure, write_result
from jobs.training import interface
from jobs.training.deadline import StopRequest
from jobs.training.interface import BackEnd, Result, WorkContext
from jobs.training.saves import Saves
from jobs.worker import gate, monitor


class NotWhole(RuntimeError):
    """A back end said done, and left what it calls no whole checkpoint itself."""

    failure = FailureClass.INCOMPLETE_CHECKPOINT


class BehaviourDiffers(RuntimeError):
    """The stage's own loader makes something else of the probe texts than the parent's did."""

    failure = FailureClass.TOKENIZER


ENCODED_BYTES_PER_SECOND = 0.5e6
"""Of texts, by one process on two busy cores."""


def rank_and_world() -> tuple[int, int]:
    """From torchrun's variables, else from srun's, else a single process."""
    env = os.environ
    rank = env.get("RANK") or env.get("SLURM_PROCID") or "0"
    world = env.get("WORLD_SIZE") or env.get("SLURM_STEP_NUM_TASKS") or "1"
    return int(rank), int(world)


def behaviour_gate(spec: StageSpec, backend: BackEnd) -> None:
    """Compare the stage's loader with the parent's seal before any training.

    Raises:
        BehaviourDiffers: names the first fact that differs.
    """
    parent = spec.inputs.get("checkpoint")
    if parent is None:
        return
    sealed = seal.load(parent.paths.seal).behaviour
    if sealed is None:
        # Fetched, not made by a stage: there is no loader of a parent's to agree with, but what the files say.
        interface.check_fetched(backend, parent.output)
        return
    found = interface.behaviour(backend, parent.output)
    if found is None:
        return
    for name in sorted(sealed.keys() & found.keys()):
        if sealed[name] != found[name]:
            raise BehaviourDiffers(
                f"{parent.output}: this environment's loader gives another {name} than stage {parent.stage!r} did:\n"
                f"  sealed: {_first_difference(sealed[name], found[name])}\n"
                f"  here:   {_first_difference(found[name], sealed[name])}"
            )


def _first_difference(value: Any, other: Any) -> str:
    if isinstance(value, list) and isinstance(other, list):
        for index, (mine, theirs) in enumerate(zip(value, other, strict=False)):
            if mine != theirs:
                return f"[{index}] {str(mine)[:160]}"
    return str(value)[:160]


class _SignalledStop(StopRequest):
    """A stop request that TERM and USR2 raise, too; the handler only sets a flag (ranks agree at a boundary)."""

    signalled = False

    def __init__(
        self, stage: StagePaths, deadline: Path, lead_seconds: float, note: Callable[..., None], looks: bool = True
    ) -> None:
        super().__init__(stage, deadline, lead_seconds, looks)
        self._note = note

    def saved(self, seconds: float) -> None:
        super().saved(seconds)
        self._note("save_took", seconds=round(seconds, 3))

    def sealed(self, seconds: float) -> None:
        super().sealed(seconds)
        self._note("save_took", sealed=True, seconds=round(seconds, 3))

    def on_signal(self, number: int, frame: Any) -> None:
        self.signalled = True

    def _reason(self, now: float) -> str | None:
        return super()._reason(now) or ("signalled" if self.signalled else None)


def main(spec: StageSpec) -> int:
    """Run the stage's back end on this rank; 0 when the result was written."""
    start = Start.from_environment(spec.attempt)
    stage, store = spec.stage_paths, spec.store_paths
    rank, world = rank_and_world()
    held = claim_of(spec, start)

    def note(name: str, **facts: Any) -> None:
        if rank == 0:
            event(stage, start, name, **facts)

    node = Node.of(rank, world)
    deadline = stage.deadline(start.job, start.restart)
    stop = _SignalledStop(stage, deadline, spec.lead_seconds, note, looks=rank == 0)
    if rank == 0:
        # Of earlier starts: a slow file system is known from then on. And the output has to be sealed in what is left.
        StopRequest.sealed(stop, max(monitor.longest_save(spec), _seconds_to_seal(spec, stop.end())))
    signal.signal(signal.SIGTERM, stop.on_signal)
    signal.signal(signal.SIGUSR2, stop.on_signal)
    context = WorkContext(
        output=output_of(spec, start),
        progress=ProgressWriter(stage.progress, start.restart, enabled=rank == 0),
        stop=stop,
        saves=Saves(store, spec.fingerprint, held, note, spec.seal_depth, node, spec.settings.get("keep_every")),
        event=note,
        restart=start.restart,
        rank=rank,
        world=world,
        collective_seconds=_collective_seconds(spec),
    )
    watcher = None
    try:
        gate.read_together(spec, start, node)
        context.saves.read_newest()
        watcher = monitor.start(spec, start, rank, node.leads)
        backend = backends.load(spec.backend)
        interface.meet_gpus(backend, wanted="OVERNIGHT_WANTS_GPUS" in os.environ)
        if rank == 0:
            behaviour_gate(spec, backend)
        result = backend.run(spec, context)
        context.saves.wait()
        _flush(spec, start, node, world)
        if rank == 0:
            _write_result(spec, start, result, backend, stop.last_reason)
    except BaseException as error:  # also SystemExit of a library: the verdict needs a reason
        context.saves.give_up()
        print(redaction.shown(traceback.format_exc(), stage.secrets), file=sys.stderr, flush=True)
        _write_failure(spec, start, error, context.saves)
        return 1
    finally:
        if watcher is not None and watcher.stdin is not None:
            watcher.stdin.close()
            watcher.wait()
    return 0


def _write_failure(spec: StageSpec, start: Start, error: BaseException, saves: Saves) -> None:
    text = str(error).strip() or type(error).__name__
    sources = (Path(source.path) for source in spec.sources)
    failure = verdict.classify(error, [*(parent.paths.root for parent in spec.inputs.values()), *sources])
    if failure is FailureClass.CODE_ERROR:  # of a library: its words may say more than its type
        failure, shown = symptoms.recognise(f"{type(error).__name__}: {text}")
        text = text if failure is FailureClass.CODE_ERROR else shown
    if failure is FailureClass.MISSING_GPUS and (hidden := _hidden_gpus(os.environ)):
        failure, text = FailureClass.BAD_CONFIGURATION, f"{hidden}: {text}"
    if failure is FailureClass.STORAGE_FULL:
        with contextlib.suppress(OSError):
            saves.discard_unsealed()  # room for the verdict; what is sealed stays
    if _is_news(spec, start, failure):
        node = os.environ.get("SLURMD_NODENAME", "")
        write_failure(spec, start, failure, _evidence(error, text), node=node)


def _flush(spec: StageSpec, start: Start, node: Node, world: int) -> None:
    """Have what this node wrote on disk before the result says that it is there; each of several processes' nodes
    leaves the digests, so that nobody has to read it again for the seal."""
    output = output_of(spec, start)
    if not node.leads:
        return

    def flush() -> None:
        if world == 1:
            files.flush_tree(output)
            return
        found = shares.digest_written(output, node, spec.seal_depth)
        marks = spec.stage_paths.ranks(start.job, start.restart)
        shares.answer(marks, publish.WRITTEN, node, shares.as_answer(found))

    with contextlib.suppress(FileNotFoundError, seal.SealBroken):  # replaced: a later start has taken it away
        Patience().call(flush)


def _collective_seconds(spec: StageSpec) -> float:
    """How long a process waits for the others: an hour, what a save or an output takes that one of them writes or reads
    alone, and pairs that one encodes for all. torch's own half an hour is too short for that; a hang is found by the
    monitor."""
    pairs = spec.inputs.get("data") if spec.kind == "dpo" else None
    encoded = seal_index.sealed_bytes(pairs.paths.seal) if pairs is not None else 0
    size = space.checkpoint_bytes(spec)[0] if spec.trains else 0
    return 3600.0 + size / monitor.SAVE_BYTES_PER_SECOND + encoded / ENCODED_BYTES_PER_SECOND


def _seconds_to_seal(spec: StageSpec, end: float | None) -> float:
    """What sealing an output of the size of a save takes at the rate at which the inputs were verified: not more than
    leaves half of the allocation for the work."""
    read = [(note.get("bytes"), note.get("seconds")) for note in notes(spec, None, "file_gate")]
    known = [(size, seconds) for size, seconds in read if isinstance(size, int) and isinstance(seconds, int | float)]
    seconds = sum(seconds for _, seconds in known)
    if not spec.trains or not seconds:
        return 0.0
    found = space.checkpoint_bytes(spec)[0] * seconds / max(1, sum(size for size, _ in known))
    return float(found if end is None else min(found, max(0.0, end - time.time()) / 6))


def _hidden_gpus(environment: Mapping[str, str]) -> str:
    """That CUDA_VISIBLE_DEVICES is not what Slurm has set for this job; empty where it is, or Slurm says nothing."""
    shown = environment.get("CUDA_VISIBLE_DEVICES")
    count = environment.get("SLURM_GPUS_ON_NODE", "")
    if shown is None or not count.isdigit() or shown.startswith(("GPU-", "MIG-")):
        return ""
    own = [environment.get(name) for name in ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")]
    if shown in (*own, ",".join(map(str, range(int(count))))):
        return ""
    return (
        f"CUDA_VISIBLE_DEVICES is {shown!r} in the work, and Slurm gave {count} GPUs: leave it out of env, setup and "
        "modules of the profile"
    )


def _is_news(spec: StageSpec, start: Start, failure: FailureClass) -> bool:
    """Whether this rank's failure is to be told: the first one is, and a cause in place of a consequence (a rank that
    lost its peer may speak before the peer that ran out of memory)."""
    told = publish.result_of(spec)
    if told.get("outcome") != "failed" or (told.get("job"), told.get("restart")) != (start.job, start.restart):
        return True
    return judge.failure_of(told) in symptoms.CONSEQUENCES and failure not in symptoms.CONSEQUENCES


def _evidence(error: BaseException, text: str) -> str:
    """The message, and for our user the place it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    name = type(error).__name__
    return f"{name if text == name else f'{name}: {text}'}{place}"[:4000]


def _write_result(spec: StageSpec, start: Start, result: Result, backend: BackEnd, stop_reason: str) -> None:
    value: dict[str, Any] = {"outcome": result.outcome, "step": result.step, "metrics": result.metrics}
    value["writers"] = Node.of(*rank_and_world()).count
    if result.outcome == "stopped":
        value["reason"] = stop_reason
    if result.outcome == "done" and spec.produces["kind"] == seal.SealKind.CHECKPOINT.value:
        found = interface.completeness(backend, output_of(spec, start))
        if found.problem is not None:
            raise NotWhole(found.problem)
        value["behaviour"] = interface.behaviour(backend, output_of(spec, start))
    write_result(spec, start, value)
