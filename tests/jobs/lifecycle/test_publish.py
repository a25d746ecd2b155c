"""Between the last step and the seal: a finished output is sealed and never made again, and only by who holds the claim."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.core import attempts, claim, files, hashing, patience, seal, shares, verdict
from jobs.core.attempts import Attempt
from jobs.core.claim import ClaimLost
from jobs.core.spec import Input, StageSpec
from jobs.core.verdict import FailureClass, Outcome, Verdict
from jobs.lifecycle import gate, judge, publish, steps
from jobs.lifecycle.start import EndedBy, Start, claim_of, output_of
from jobs.lifecycle.steps import Entry
from jobs.training.saves import Saves
from tests.file_faults.job import prepare, spec_of

OLD, NEW = Start("100", 0, 0, "node1", ("node1",)), Start("100", 1, 0, "node2", ("node2",))


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StageSpec:
    monkeypatch.setattr(patience, "TOTAL_SECONDS", 0.3)
    monkeypatch.setattr(steps, "WORD_SECONDS", 0.1)
    monkeypatch.setattr(gate, "WAIT_SECONDS", 0.1)
    made = spec_of(tmp_path)
    prepare(made)
    return made


def work(spec: StageSpec, start: Start, text: str = "model") -> None:
    """All steps done, the output whole and flushed, and the result says so."""
    assert steps.prologue(spec, start) is Entry.WORK
    output = output_of(spec, start)
    (output / "model").write_text(text)
    files.flush_tree(output)
    result = {"outcome": "done", "step": 6, "job": start.job, "restart": start.restart, "attempt": spec.attempt}
    files.write_json(spec.stage_paths.result, {**result, "writers": 1})


class Killed(BaseException):
    """SIGKILL."""


def at(owner: Any, name: str, patch: pytest.MonkeyPatch, then: Callable[[], None], after: bool = False) -> None:
    """Let something happen once, right before a function is called, or right after."""
    real, done = getattr(owner, name), []

    def call(*given: Any, **named: Any) -> Any:
        first = not done
        done.append(1)
        if first and not after:
            then()
        result = real(*given, **named)
        if first and after:
            then()
        return result

    patch.setattr(owner, name, call)


def kill() -> None:
    raise Killed


WINDOWS = [
    (hashing, "digest_files", False), (hashing, "digest_files", True), (claim, "put", False), (claim, "put", True),
    (publish, "_make_seal", False),
]  # fmt: skip
"""In which a start may be ended, or replaced, between its result and its seal."""


@pytest.mark.failure(30, 33)
@pytest.mark.parametrize(("owner", "name", "after"), WINDOWS)
def test_a_start_that_ended_while_it_sealed_is_sealed_by_the_next(
    spec: StageSpec, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, after: bool
) -> None:
    work(spec, OLD)
    with monkeypatch.context() as patch:
        at(owner, name, patch, kill, after)
        with pytest.raises(Killed):
            steps.finish(spec, OLD, 0)
    assert not spec.store_paths.seal.exists()
    assert steps.prologue(spec, NEW) is Entry.SEALED
    store = spec.store_paths
    assert seal.verify(store.output, store.seal).step == 6
    assert sorted(path.name for path in store.root.iterdir()) == ["attempts", "claims", "output", "seal.json"]


def test_so_is_one_that_never_got_to_it_and_one_of_an_attempt_before(spec: StageSpec) -> None:
    work(spec, OLD)
    later = replace(spec, attempt="bbbbbb")
    assert attempts.open_next(spec.store_paths, Attempt(2, "bbbbbb", "r", "cpt", spec.stage_dir, "slurm", ("on-b",)))
    assert steps.prologue(later, Start("7", 0, 0, "node2")) is Entry.SEALED
    assert (spec.store_paths.output / "model").read_text() == "model"


@pytest.mark.failure(30, 33)
def test_a_directory_that_cannot_be_listed_once_is_no_broken_output(
    spec: StageSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(spec, OLD)
    real, asked = seal.list_files, list[Path]()

    def listed(directory: Path, *given: Any) -> list[str]:
        asked.append(directory)
        if len(asked) == 1:
            raise seal.SealBroken(directory, "cannot be listed") from OSError(errno.ESTALE, "Stale file handle")
        return real(directory, *given)

    monkeypatch.setattr(seal, "list_files", listed)
    assert steps.prologue(spec, NEW) is Entry.SEALED
    assert len(asked) > 1
    assert (spec.store_paths.output / "model").read_text() == "model"


def test_a_start_that_was_replaced_has_no_say(spec: StageSpec) -> None:
    """Its successor has taken its result away, so it knows nothing; that ends nothing, and neither does its word."""
    work(spec, OLD)
    spec.stage_paths.result.unlink()
    assert claim.take(spec.store_paths, claim_of(spec, NEW)) is None
    assert steps.finish(spec, OLD, 0) == "fail"
    said = verdict.read(spec.stage_paths.verdict(OLD.job, OLD.restart))
    assert said is not None
    assert said.failure is FailureClass.CLAIM_LOST
    assert steps.prologue(spec, replace(NEW, restart=NEW.restart + 1)) is Entry.WORK


@pytest.mark.failure(30, 33)
@pytest.mark.parametrize("cut_off_again", [False, True])
def test_what_another_run_has_finished_is_sealed_and_not_made_again(
    spec: StageSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_off_again: bool
) -> None:
    """Seed 30494 of the simulation: two runs share the entry, and the job of the one was cut off while it sealed."""
    work(spec, OLD)
    other = tmp_path / "runs" / "other" / "cpt"
    other.mkdir(parents=True)
    later = replace(spec, attempt="bbbbbb", run="other", stage_dir=str(other))
    assert attempts.open_next(spec.store_paths, Attempt(2, "bbbbbb", "other", "cpt", str(other), "slurm", ("on-b",)))
    if cut_off_again:
        with monkeypatch.context() as patch:
            at(hashing, "digest_files", patch, kill)
            with pytest.raises(Killed):
                steps.prologue(later, Start("7", 0, 0, "node2"))
    assert steps.prologue(later, Start("7", int(cut_off_again), 0, "node2")) is Entry.SEALED
    assert (spec.store_paths.output / "model").read_text() == "model"


def test_an_output_that_not_every_node_has_flushed_is_made_again(spec: StageSpec) -> None:
    """The node that died had the rest of it in its memory."""
    work(spec, OLD)
    result = files.read_json(spec.stage_paths.result)
    files.write_json(spec.stage_paths.result, {**result, "writers": 2})
    marks = spec.stage_paths.ranks("100", 0)
    files.make_directory(marks)
    shares.answer(marks, publish.WRITTEN, shares.Node(0, 2), [])
    assert steps.prologue(spec, NEW) is Entry.WORK
    assert os.listdir(output_of(spec, NEW)) == []


@pytest.mark.failure(22, 32)
@pytest.mark.parametrize(("owner", "name", "after"), WINDOWS)
def test_a_start_that_is_replaced_in_any_window_publishes_nothing(
    spec: StageSpec, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, after: bool
) -> None:
    """The new start has the old output sealed, and works on its own where there is none that is whole."""
    work(spec, OLD, "old")
    result = files.read_json(spec.stage_paths.result)
    entries: list[Entry] = []

    def replaced() -> None:
        spec.stage_paths.result.unlink()  # nothing proves that the old one was done: the new one works
        entries.append(steps.prologue(spec, NEW))
        (output_of(spec, NEW) / "model").write_text("new")

    at(owner, name, monkeypatch, replaced, after)
    assert steps.finish(spec, OLD, 0) == "fail"
    assert entries == [Entry.WORK]
    assert not spec.store_paths.seal.exists()
    said = verdict.read(spec.stage_paths.verdict("100", 0))
    assert said is not None
    assert said.failure is FailureClass.CLAIM_LOST
    files.write_json(spec.stage_paths.result, {**result, "restart": 1})
    assert steps.finish(spec, NEW, 0) == "done"
    store = spec.store_paths
    assert seal.verify(store.output, store.seal).restart == 1
    assert (store.output / "model").read_text() == "new"


def saves_of(spec: StageSpec, start: Start) -> Saves:
    return Saves(spec.store_paths, spec.fingerprint, claim_of(spec, start), lambda name, **facts: None)


def save(spec: StageSpec, start: Start, step: int, text: str) -> None:
    saves = saves_of(spec, start)
    (saves.directory / f"checkpoint-{step}").mkdir()
    (saves.directory / f"checkpoint-{step}" / "state").write_text(text)
    saves.seal(step)


@pytest.mark.failure(22, 30, 32)
@pytest.mark.parametrize(("owner", "name", "after"), [*WINDOWS[:3], (claim, "check_held", True)])
def test_a_start_that_is_replaced_saves_and_removes_nothing(
    spec: StageSpec, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, after: bool
) -> None:
    assert steps.prologue(spec, OLD) is Entry.WORK
    save(spec, OLD, 2, "old")

    def replaced() -> None:
        assert steps.prologue(spec, NEW) is Entry.WORK
        monkeypatch.undo()
        for step in (4, 6):
            save(spec, NEW, step, "new")

    at(owner, name, monkeypatch, replaced, after)
    with pytest.raises((ClaimLost, FileNotFoundError, seal.SealBroken)):
        save(spec, OLD, 4, "old")
    assert (spec.store_paths.save(4) / "state").read_text() == "new"
    for remove in (lambda old: old.keep_last(1), lambda old: old.discard_newer_than(2)):
        with pytest.raises(ClaimLost):
            remove(saves_of(spec, OLD))
    saves_of(spec, OLD).discard_unsealed()
    assert spec.store_paths.sealed_steps() == [6, 4, 2]
    assert saves_of(spec, NEW).newest_valid() == (6, spec.store_paths.save(6))


# The file system


def fail(patch: pytest.MonkeyPatch, owner: Any, name: str, code: int, times: int) -> list[int]:
    """Let the first calls of a function fail; the list grows with each."""
    real, made = getattr(owner, name), list[int]()

    def call(*given: Any, **named: Any) -> Any:
        made.append(1)
        if len(made) <= times:
            raise OSError(code, os.strerror(code), "/shared/x")
        return real(*given, **named)

    patch.setattr(owner, name, call)
    return made


TRANSIENT = [
    errno.ESTALE, errno.EIO, errno.EACCES, errno.ENODEV, errno.EAGAIN, errno.ETIMEDOUT, errno.EHOSTDOWN,
    errno.ECONNRESET,
]  # fmt: skip


@pytest.mark.failure(36)
@pytest.mark.parametrize("code", TRANSIENT)
def test_an_error_that_passes_is_waited_for(spec: StageSpec, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    fail(monkeypatch, claim, "take", code, 1)
    work(spec, OLD)
    fail(monkeypatch, hashing, "digest_files", code, 1)
    assert steps.finish(spec, OLD, 0) == "done"


@pytest.mark.failure(36)
@pytest.mark.parametrize("code", TRANSIENT)
def test_one_that_stays_is_a_class_of_its_own_and_tried_again(
    spec: StageSpec, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The finished output is not made again: the start that finds the file system back seals it."""
    work(spec, OLD)
    with monkeypatch.context() as patch:
        fail(patch, hashing, "digest_files", code, 10**6)
        assert steps.finish(spec, OLD, 0) == "requeue"
    said = verdict.read(spec.stage_paths.verdict("100", 0))
    assert said is not None
    assert (said.outcome, said.failure, said.nodes) == (Outcome.RETRY, FailureClass.FILE_SYSTEM, ("node1",))
    with monkeypatch.context() as patch:
        fail(patch, claim, "take", code, 10**6)
        assert steps.prologue(spec, NEW) is Entry.MOVE
    assert steps.prologue(spec, replace(NEW, restart=2)) is Entry.SEALED


def test_a_file_system_that_stays_away_comes_to_an_end(spec: StageSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer patience each time, five retries, and then the last word; no node is blamed where several have it."""
    fail(monkeypatch, claim, "take", errno.ESTALE, 10**6)
    monkeypatch.setattr(patience, "TOTAL_SECONDS", 0.01)
    entries = [
        steps.prologue(spec, Start("100", restart, 0, f"node{restart}", (f"node{restart}",))) for restart in range(7)
    ]
    assert entries == [Entry.MOVE] * 5 + [Entry.FAIL] * 2
    assert judge.bad_nodes(spec) == []
    assert steps._seconds(spec) == 8 * 0.01


def test_a_node_without_the_file_system_is_struck(spec: StageSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, claim, "take", errno.ENODEV, 10**6)
    for restart in range(2):
        assert steps.prologue(spec, replace(OLD, restart=restart)) is Entry.MOVE
    assert judge.bad_nodes(spec) == ["node1"]


@pytest.mark.failure(36)
@pytest.mark.parametrize("code", TRANSIENT)
def test_an_unreadable_newest_save_falls_back_and_stays(
    spec: StageSpec, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    assert steps.prologue(spec, OLD) is Entry.WORK
    save(spec, OLD, 2, "a")
    save(spec, OLD, 4, "b")
    real = hashing.digest_files

    def digest(directory: Path, *given: Any, **named: Any) -> Any:
        if directory.name == "checkpoint-4":
            raise OSError(code, os.strerror(code), str(directory / "state"))
        return real(directory, *given, **named)

    monkeypatch.setattr(hashing, "digest_files", digest)
    assert saves_of(spec, OLD).resume() == (2, spec.store_paths.save(2))
    monkeypatch.undo()
    assert saves_of(spec, OLD).newest_valid() == (4, spec.store_paths.save(4)), "it was whole: it could not be read"


@pytest.mark.parametrize(
    "error", [UnicodeEncodeError("utf-8", "\udcff", 0, 1, "no"), RuntimeError("odd"), MemoryError()]
)
def test_no_error_ends_a_prologue_or_a_finish_without_a_verdict(
    spec: StageSpec, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*given: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(gate, "check", broken)
        assert steps.prologue(spec, OLD) is Entry.FAIL
    assert verdict.read(spec.stage_paths.verdict("100", 0)) is not None
    work(spec, NEW)
    monkeypatch.setattr(seal, "seal_directory", broken)
    assert steps.finish(spec, NEW, 0) == "fail"
    assert verdict.read(spec.stage_paths.verdict("100", 1)) is not None


def test_a_name_that_is_not_utf_8_is_a_verdict_with_the_name(spec: StageSpec) -> None:
    work(spec, OLD)
    os.close(os.open(os.fsencode(output_of(spec, OLD)) + b"/bad\xff", os.O_CREAT | os.O_WRONLY))
    assert steps.finish(spec, OLD, 0) == "fail"
    said = verdict.read(spec.stage_paths.verdict("100", 0))
    assert said is not None
    assert "bad\\udcff: its name is not UTF-8" in said.evidence


# Identity, and the gate


def with_inputs(spec: StageSpec, root: Path) -> StageSpec:
    inputs = {}
    for role in ("checkpoint", "data"):
        fingerprint = ("c" if role == "checkpoint" else "d") * 64
        store = root / "store" / f"dataset-{fingerprint[:16]}"
        (store / "output").mkdir(parents=True)
        (store / "output" / "text").write_text(role)
        facts: dict[str, Any] = {"kind": seal.SealKind.DATASET, "format": "corpus", "fingerprint": fingerprint}
        seal.seal_directory(store / "output", store / "seal.json", **facts)
        inputs[role] = Input(role, str(store), "dataset", "corpus", fingerprint)
    return replace(spec, inputs=inputs)


@pytest.mark.failure(1)
def test_a_start_cut_off_between_two_inputs_leaves_the_second_to_verify(
    spec: StageSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = with_inputs(spec, tmp_path)
    real, seen = gate.input_seal, list[str]()

    def verify(parent: Input, *given: Any) -> Any:
        if parent.stage == "data" and not seen:
            seen.append("killed")
            raise Killed
        return real(parent, *given)

    monkeypatch.setattr(gate, "input_seal", verify)
    with pytest.raises(Killed):
        steps.prologue(spec, OLD)
    (spec.inputs["data"].output / "text").write_text("DATA")
    assert steps.prologue(spec, NEW) is Entry.FAIL
    said = verdict.read(spec.stage_paths.verdict("100", 1))
    assert said is not None
    assert said.failure is FailureClass.BROKEN_INPUT


@pytest.mark.failure(19)
def test_nothing_that_a_job_of_the_same_id_left_counts_for_another_attempt(spec: StageSpec, tmp_path: Path) -> None:
    """A controller that lost its state gives ids again: verdict, gate, hang, nodes and ranks of the old job are there."""
    spec = with_inputs(spec, tmp_path)
    assert steps.prologue(spec, OLD) is Entry.WORK
    assert steps.finish(spec, OLD, 0, EndedBy.CANCELLED) == "fail"
    stage = spec.stage_paths
    stage.stall("100", 0).write_text("{}")
    stage.avoid("100").write_text("node7\n")
    files.make_directory(stage.ranks("100", 0))
    later = replace(spec, attempt="bbbbbb")
    assert attempts.open_next(spec.store_paths, Attempt(2, "bbbbbb", "r", "cpt", spec.stage_dir, "slurm", ("on-b",)))
    text = spec.inputs["data"].output / "text"
    text.write_text("DATA")
    assert steps.prologue(later, OLD) is Entry.FAIL, "the gate is not passed by another job's note"
    text.write_text("data")
    stage.verdict("100", 0).unlink()
    work(later, OLD)
    for path in (stage.verdict("100", 0), stage.stall("100", 0), stage.avoid("100"), stage.ranks("100", 0)):
        assert not path.exists(), path
    assert steps.finish(later, OLD, 0) == "done"


@pytest.mark.failure(19)
@pytest.mark.parametrize("judged_by", ["", judge.PROLOGUE, "101_0"])
def test_a_verdict_of_its_life_before_is_not_that_of_a_job_that_is_started_again(
    spec: StageSpec, judged_by: str
) -> None:
    """A controller that lost its state starts a job of the same attempt under the same id and restart."""
    assert steps.prologue(spec, OLD) is Entry.WORK
    said = Verdict(
        Outcome.FAIL, FailureClass.NODE_FAILURE, "sacct: job 100 NODE_FAIL", 0, "100", 0, attempt=spec.attempt
    )
    verdict.write(spec.stage_paths, replace(said, judged_by=judged_by))
    work(spec, OLD)
    assert judge.said_of(spec, "100", 0) is None, "while it works nothing says that it has ended"
    assert steps.finish(spec, OLD, 0) == "done"
    assert seal.load(spec.store_paths.seal).job == "100"
    assert (now := judge.said_of(spec, "100", 0)) is not None
    assert now.outcome is Outcome.DONE


def test_the_parent_may_go_while_the_child_works(spec: StageSpec, tmp_path: Path) -> None:
    spec = with_inputs(spec, tmp_path)
    digest = seal.digest_of(spec.inputs["data"].paths.seal)
    work(spec, OLD)
    spec.inputs["data"].paths.root.rename(tmp_path / "removed")
    assert steps.finish(spec, OLD, 0) == "done"
    assert seal.load(spec.store_paths.seal).parents["data"] == digest


def test_the_first_loss_is_that_of_the_first_start(spec: StageSpec) -> None:
    work(spec, OLD)
    for step, loss in ((1, 5.5), (2, 4.0)):
        line = {"time": 1.0 + step, "step": step, "total": 6, "metrics": {"loss": loss}}
        files.append_json_line(spec.stage_paths.progress, line)
    result = files.read_json(spec.stage_paths.result)
    files.write_json(spec.stage_paths.result, {**result, "metrics": {"first_loss": 3.0, "last_loss": 2.5, "tokens": 9}})
    steps.finish(spec, OLD, 0)
    assert seal.load(spec.store_paths.seal).metrics == {"first_loss": 5.5, "last_loss": 2.5, "tokens": 9}
