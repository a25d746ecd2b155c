"""What must hold of a chain when all is over, whatever was done to it; read from what its jobs left behind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jobs.core import seal
from tests.support.chains import Chain


def check(chain: Chain, run: str, cuts: Iterable[tuple[float, str, int]]) -> None:
    """The invariants: every stage done once by its seal, no two writers, no step lost beyond the last save, no job left,
    every job explained by a journal, and nothing more to do. ``cuts``: saves that were damaged on purpose, as time,
    store entry and step.

    Raises:
        AssertionError: with the stage's story.
    """
    for stage in chain.plan(run).stages:
        why = f"stage {stage.name} of run {run}\n{chain.story(run, stage.name)}"
        store = chain.store(run, stage.name)
        assert store.seal.exists(), f"not sealed: {why}"
        sealed = seal.verify(store.output, store.seal)
        for role, parent in stage.inputs.items():
            above = chain.workspace.entry(parent.kind, parent.fingerprint)
            assert sealed.parents[role] == seal.digest_of(above.seal), f"made from another {role}: {why}"
        events = chain.events(stage.name)
        # None where the power was cut between the seal and the note of it.
        assert sum(line["event"] == "sealed" for line in events) <= 1, f"sealed twice: {why}"
        if stage.target_step is not None:
            assert sealed.step == stage.target_step, f"sealed at step {sealed.step}: {why}"
        late = two_writers(events)
        assert not late, f"{late} was written after a later start had begun: {why}"
        lost = lost_steps(events, [(at, step) for at, entry, step in cuts if entry == store.root.name])
        assert not lost, f"{lost}: {why}"
    chain.assert_queue_explained()
    assert {action for action, _ in chain.resume(run).values()} == {"reused"}, f"run {run} was not done"
    chain.assert_queue_explained()


def two_writers(events: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """What a start published after a later one had begun its work; None if every start kept to its time. ``events``
    are in the order of time."""
    current: tuple[str, int] | None = None
    for line in events:
        who = (str(line.get("job")), int(line.get("restart", 0)))
        if line["event"] in ("start", "finishes"):  # which seals what an earlier one had finished
            current = who
        elif line["event"] in ("saved", "sealed") and who != current:
            return line
    return None


def lost_steps(events: Iterable[dict[str, Any]], cuts: Iterable[tuple[float, int]]) -> str:
    """How a start began, or went on, at a step before one that had been saved and not been cut; empty if none did."""
    damaged = list(cuts)
    saved: dict[int, float] = {}
    for line in events:
        at = float(line["time"])
        if line["event"] == "saved":
            saved[int(line["step"])] = at
        elif line["event"] == "resumed":
            sound = [
                step
                for step, when in saved.items()
                if not any(when <= cut <= at for cut, other in damaged if other == step)
            ]
            if sound and int(line["step"]) < max(sound):
                return f"went on at step {line['step']} although step {max(sound)} had been saved"
        elif line["event"] == "start" and saved and int(line["step"]) < _oldest_certain(saved, damaged):
            return f"began at step {line['step']} although step {max(saved)} had been saved"
    return ""


def _oldest_certain(saved: dict[int, float], damaged: list[tuple[float, int]]) -> int:
    """A start names the newest save by its seal; where some were cut those may be gone."""
    cut = {step for _, step in damaged}
    return max((step for step in saved if step not in cut), default=0)
