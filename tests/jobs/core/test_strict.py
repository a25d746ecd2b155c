"""Files of ours that a disk or a stranger has changed: each reader names the file and goes on, or says what is wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.core import attempts, claim, files, progress, results, seal, shares, strict, verdict
from jobs.core import spec as specs
from jobs.core.attempts import Attempt
from jobs.core.claim import Claim
from jobs.core.paths import StagePaths, StorePaths, Workspace
from jobs.core.progress import ProgressWriter
from jobs.core.verdict import Outcome, Verdict
from jobs.lifecycle import judge, publish
from launch.base import lock
from launch.base.errors import InputError
from launch.inputs import fetch
from launch.inputs.digests import DigestCache
from launch.plan import file
from launch.plan.probe_cache import ProbeCache
from launch.runs.journal import Event, History, Journal, announced
from launch.status import trackers
from tests.file_faults.job import spec_of

HUGE = "9" * 400
HOSTILE = [
    b"", b"{", b"[]", b"null", b'"text"', b"7", b"NaN", b"\xff\xfe", b"\0", b'{"a": 1, "a": 2}', b"[" * 100_000,
    b'{"a":' * 100_000, HUGE.encode(), b'{"number": 1e999}', b"1e999", b'{"path": "\\ud800"}',
]  # fmt: skip
"""Contents of no file of ours."""

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["a\0b", "../x", "/x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


class Place:
    """A store entry, a stage and a run with one file of each kind."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spec = spec_of(root)
        self.store, self.stage = self.spec.store_paths, self.spec.stage_paths
        self.stage.root.mkdir(parents=True, exist_ok=True)
        self.attempt = Attempt(1, "aaaaaa", "r", "cpt", str(self.stage.root), "slurm", ("on-a",))
        attempts.open_next(self.store, self.attempt)
        attempts.record_job(self.store, self.attempt, 0, "100")
        claim.take(self.store, Claim("aaaaaa", 0, 0, "100", "node1", 1.0))
        verdict.write(self.stage, Verdict(Outcome.RETRY, job="100", attempt="aaaaaa"))
        output = self.store.output
        output.mkdir()
        (output / "model").write_text("model")
        facts: dict[str, Any] = {"kind": seal.SealKind.CHECKPOINT, "format": "toy", "fingerprint": "0" * 64}
        seal.seal_directory(output, self.store.seal, step=6, **facts)
        files.write_json(self.stage.result, {"outcome": "done", "step": 6, "job": "100", "restart": 0})
        files.append_json_line(
            self.stage.events,
            {"time": 1.0, "event": "start", "job": "100", "restart": 0, "attempt": "aaaaaa", "step": 0},
        )
        self.spec_path, self.plan, self.journal = root / "spec.json", root / "run" / "plan.json", root / "journal.jsonl"
        specs.save(self.spec_path, self.spec)
        self.plan.parent.mkdir()
        files.write_json(self.plan, {"schema": 1, "pipeline": "p", "stages": [], "fetched": [], "core_python": "py"})
        Journal(self.journal).write(Event.INTENT, stage="cpt", attempt="aaaaaa", names=["on-a"])
        self.source = root / "source"
        self.source.write_text("x")
        self.workspace = Workspace(root / "workspace")
        self.workspace.runs.mkdir(parents=True)
        self.digests = DigestCache(root / "digests.json")
        self.digests.digest(self.source)
        self.digests.save()
        files.write_json(self.workspace.pins, {"schema": 1, "pins": {"hf:x": {"revision": "1"}}})
        ProgressWriter(self.stage.progress).report(3, 6, "training", loss=1.5)
        self.lock, self.answers = root / "lock", root / "answers"
        files.write_json(self.lock, {"pid": 7, "host": "node1", "token": "t"})
        self.answers.mkdir()
        shares.answer(self.answers, "read", shares.Node(), shares.as_answer(seal.load(self.store.seal).files))
        self.cache = root / "back_ends.json"
        files.write_json(self.cache, {"key": {"made_from": {}, "answers": {"toy": {}}}})
        self.tracked = root / "wandb.json"
        files.write_json(self.tracked, {"cpt": {"id": "abc", "step": 3}})
        self.evaluation = root / "evaluation.json"
        files.write_json(self.evaluation, {"schema": 1, "tasks": {"t": {"metrics": {}}}})


def _shown(path: Path) -> object:
    """As status has it."""
    reports = progress.recent(path)
    return [f"{one.step + 1} {(one.total or 0) + 1} {one.time:.1f} {sum(one.metrics.values()):.1f}" for one in reports]


def _held(path: Path) -> object:
    holder, _ = lock.read(path)
    return None if holder is None else (lock.describe(holder), lock.is_gone(holder))


READERS: dict[str, tuple[Callable[[Place], Path], Callable[[Place], object], tuple[type[Exception], ...]]] = {
    "attempt": (lambda at: at.store.attempt(1), lambda at: attempts.current(at.store), ()),
    "ids": (lambda at: at.store.attempt_jobs(1), lambda at: attempts.job_ids(at.store, at.attempt), ()),
    "claim": (lambda at: at.store.claim("aaaaaa", 0, 0), lambda at: claim.of_attempt(at.store, "aaaaaa"), ()),
    "verdict": (lambda at: at.stage.verdict("100", 0), lambda at: verdict.all_of(at.stage), ()),
    "history": (lambda at: at.stage.verdict("100", 0), lambda at: judge.history(at.spec), ()),
    "seal": (lambda at: at.store.seal, lambda at: seal.verify(at.store.output, at.store.seal), (seal.SealBroken,)),
    "look": (lambda at: at.store.seal, lambda at: seal.look(at.store, 10), (seal.SealBroken,)),
    "spec": (lambda at: at.spec_path, lambda at: specs.load(at.spec_path), (ValueError,)),
    "result": (lambda at: at.stage.result, lambda at: publish.result_of(at.spec), ()),
    "events": (lambda at: at.stage.events, lambda at: judge.starts(at.spec), ()),
    "journal": (lambda at: at.journal, lambda at: History.read(Journal(at.journal)), ()),
    "names": (lambda at: at.journal, lambda at: announced(Journal(at.journal)), ()),
    "digests": (
        lambda at: at.root / "digests.json",
        lambda at: DigestCache(at.root / "digests.json").digest(at.source),
        (),
    ),
    "pins": (lambda at: at.workspace.pins, lambda at: fetch.read_pins(at.workspace), (InputError,)),
    "progress": (lambda at: at.stage.progress, lambda at: _shown(at.stage.progress), ()),
    "lock": (lambda at: at.lock, lambda at: _held(at.lock), ()),
    "answers": (
        lambda at: next(at.answers.iterdir()),
        lambda at: shares.digests_of(shares.answers(at.answers, "read", 1, 0.0)),
        (ValueError, seal.SealBroken),
    ),
    "back ends": (lambda at: at.cache, lambda at: ProbeCache(at.cache).get("python3", ["toy"], at.root, {}), ()),
    "tracked": (lambda at: at.tracked, lambda at: trackers._known(at.tracked), (InputError,)),
    "evaluation": (lambda at: at.evaluation, lambda at: results.read(at.evaluation), (ValueError,)),
    "plan": (lambda at: at.plan, lambda at: file.load(at.plan), (InputError,)),
}
"""The file, who reads it, and the errors in which it may end: each names the file."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(files, "CREATION_SECONDS", 0.0)
    return Place(tmp_path)


def read(place: Place, name: str) -> None:
    where, reader, known = READERS[name]
    try:
        reader(place)
    except known as error:
        named = (str(where(place).parent), where(place).name, "what a node left")
        assert any(name in str(error) for name in named)


@pytest.mark.failure(30, 37)
@pytest.mark.parametrize("name", READERS)
def test_hostile_and_torn_files(place: Place, name: str) -> None:
    path = READERS[name][0](place)
    whole = path.read_bytes()
    torn = [whole[:cut] for cut in range(0, len(whole), 7)]
    flipped = [whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :] for at in range(0, len(whole), 5)]
    for content in [*HOSTILE, *torn, *flipped]:
        path.write_bytes(content)
        read(place, name)
    path.unlink()
    path.mkdir()
    read(place, name)
    path.rmdir()
    os.mkfifo(path)  # whose reader waits for a writer
    read(place, name)
    path.unlink()
    path.symlink_to(path.name)  # to itself
    with pytest.MonkeyPatch.context():
        try:
            read(place, name)
        except OSError as error:  # as a device says it: waited for, and then a plain error with the path
            assert str(path) in str(error)


@pytest.mark.failure(30, 37)
@pytest.mark.parametrize("name", READERS)
def test_any_value_in_any_place(place: Place, name: str) -> None:
    """What is valid JSON and has our keys, but says something else."""
    path = READERS[name][0](place)
    value = json.loads(path.read_bytes().splitlines()[0] if path.suffix == ".jsonl" else path.read_bytes())

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.data())
    def fuzz(data: st.DataObject) -> None:
        changed = json.loads(json.dumps(value))
        owner, key = changed, data.draw(st.sampled_from(sorted(changed)))
        if name == "seal" and data.draw(st.booleans()):
            owner = changed["files"][0]
            key = data.draw(st.sampled_from(sorted(owner)))
        if data.draw(st.booleans()):
            owner[key] = data.draw(ANYTHING)
        elif data.draw(st.booleans()):
            del owner[key]
        else:
            owner[data.draw(st.text(max_size=5))] = data.draw(ANYTHING)
        path.write_bytes(json.dumps(changed).encode() + b"\n")
        read(place, name)

    fuzz()


def test_a_damaged_file_is_named_once_and_the_others_count(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    verdict.write(place.stage, Verdict(Outcome.FAIL, job="101", attempt="aaaaaa"))
    path = place.stage.verdict("100", 0)
    path.write_bytes(b"\xff" * 40)
    for _ in range(2):
        assert [said.job for said in verdict.all_of(place.stage)] == ["101"]
    assert capsys.readouterr().err.count(str(path)) == 1


def test_a_damaged_claim_is_still_one(place: Place) -> None:
    path = place.store.claim("aaaaaa", 0, 0)
    path.write_text("{}")
    held = Claim("aaaaaa", 0, 0, "100", "node1", 1.0)
    assert [one.job for one in claim.of_attempt(place.store, "aaaaaa")] == [claim.DAMAGED]
    claim.check_held(place.store, held)
    assert claim.take(place.store, Claim("aaaaaa", 0, 0, "101", "node2", 2.0)) is not None, "another may not take it"


@pytest.mark.failure(30)
def test_a_seal_says_whose_it_is(place: Place, tmp_path: Path) -> None:
    """A copy of another entry, or a link to it, is not the result of this one."""
    copied = StorePaths(tmp_path / "store" / ("checkpoint-" + "1" * 16))
    own = StorePaths(tmp_path / "store" / ("checkpoint-" + "0" * 16))
    own.root.mkdir()
    own.seal.write_bytes(place.store.seal.read_bytes())
    assert seal.of_entry(own).step == 6
    copied.root.symlink_to(own.root)
    with pytest.raises(seal.SealBroken, match="is the seal of checkpoint-0000000000000000"):
        seal.of_entry(copied)


def test_what_is_written_is_read_again(place: Place) -> None:
    said = Verdict(Outcome.FAIL, evidence="half \udcff a character", job="7")
    verdict.write(place.stage, said)
    found = verdict.read(StagePaths(place.stage.root).verdict("7", 0))
    assert found is not None
    assert found.evidence == "half ? a character"
    assert strict.build(Verdict, json.loads(json.dumps(asdict(found)))) == found
    assert os.listdir(place.store.output) == ["model"]


def test_all_that_is_kept_is_read_by_the_strict_reader() -> None:
    """Elsewhere ``json`` reads what is sealed, or what a process of this moment has written."""
    root = Path(strict.__file__).parents[2]
    rooms = [root / name for name in ("jobs/core", "jobs/lifecycle", "jobs/worker", "launch")]
    # A line of progress in the usual form is recognised by itself; any other is left to the strict reader.
    usual = {root / "jobs/core/progress.py", root / "launch/status/stretches.py"}
    own = {Path(strict.__file__), root / "launch/cli/data.py", *usual}
    found = [
        str(path.relative_to(root))
        for room in rooms
        for path in room.rglob("*.py")
        if path not in own and "devcluster" not in path.parts and "json.load" in path.read_text()
    ]
    assert found == []
