"""Two starts that both believe to work: a node that only seems dead, and the one that took its job over."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.core import attempts, files, seal
from jobs.core.attempts import Attempt
from jobs.core.spec import StageSpec
from jobs.lifecycle import gate, steps
from jobs.lifecycle.start import Start, output_of
from jobs.lifecycle.steps import Entry
from tests.support.stages import spec_of


@pytest.fixture
def spec(tmp_path: Path) -> StageSpec:
    made = spec_of(tmp_path)
    made.stage_paths.root.mkdir()
    made.store_paths.root.mkdir(parents=True)
    open_attempt(made, 1)
    return made


def open_attempt(spec: StageSpec, number: int, token: str = "aaaaaa") -> None:
    attempt = Attempt(number, token, spec.run, spec.stage, spec.stage_dir, "slurm", (f"on-{token}",))
    assert attempts.open_next(spec.store_paths, attempt)


def begin(spec: StageSpec, restart: int, host: str) -> Start:
    start = Start("100", restart, 0, host)
    assert steps.prologue(spec, start) is Entry.WORK
    return start


def work(spec: StageSpec, start: Start, text: str) -> None:
    """As the work does it, in the directory that this start was given."""
    (output_of(spec, start) / "model.json").write_text(text)
    files.write_json(spec.stage_paths.result, {"outcome": "done", "step": None, "job": "100", "restart": start.restart})


@pytest.mark.failure(22, 32)
def test_the_old_one_cannot_write_into_the_output_of_the_new_one(spec: StageSpec) -> None:
    old = begin(spec, 0, "node1")
    work(spec, old, "half")
    new = begin(spec, 1, "node2")
    assert output_of(spec, new).is_dir()
    with pytest.raises(FileNotFoundError):  # what it had is gone, and its directory with it
        work(spec, old, "old")
    work(spec, new, "new")
    assert steps.finish(spec, old, 0) == "fail"
    assert steps.finish(spec, new, 0) == "done"
    store = spec.store_paths
    assert seal.verify(store.output, store.seal).restart == 1
    assert (store.output / "model.json").read_text() == "new"
    assert [path.name for path in store.root.glob("output*")] == ["output"]


@pytest.mark.failure(22, 32)
def test_one_that_was_replaced_while_it_verified_its_inputs_touches_nothing(
    spec: StageSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gate takes minutes for a large checkpoint: long enough to be taken for dead."""
    begun: list[Start] = []

    def slow_gate(spec: StageSpec, start: Start) -> None:
        if start.restart == 0:
            begun.append(begin(spec, 1, "node2"))
            work(spec, begun[0], "new")

    monkeypatch.setattr(gate, "check", slow_gate)
    old = Start("100", 0, 0, "node1")
    assert steps.prologue(spec, old) is Entry.FAIL
    events = [(line["event"], line["restart"]) for line in files.read_json_lines(spec.stage_paths.events)]
    assert ("start", 0) not in events
    assert steps.finish(spec, begun[0], 0) == "done"
    assert (spec.store_paths.output / "model.json").read_text() == "new"


@pytest.mark.failure(22)
def test_what_is_sealed_is_never_replaced(spec: StageSpec) -> None:
    """The old one passed its check, made no progress, and goes on after the new one has sealed."""
    old = begin(spec, 0, "node1")
    work(spec, old, "old")
    store = spec.store_paths
    store.output.mkdir()
    (store.output / "model.json").write_text("new")
    sealed = seal.seal_directory(
        store.output, store.seal, kind=seal.SealKind.CHECKPOINT, format="toy", fingerprint=spec.fingerprint
    )
    assert steps.finish(spec, old, 0) == "done"  # what depends on it may go on: there is a sound output
    assert seal.verify(store.output, store.seal).content == sealed.content


def test_a_start_of_an_attempt_that_was_replaced_publishes_nothing(spec: StageSpec) -> None:
    old = begin(spec, 0, "node1")
    work(spec, old, "old")
    open_attempt(spec, 2, "bbbbbb")
    assert steps.finish(spec, old, 0) == "fail"
    assert not spec.store_paths.output.exists()
