"""Stretches of a progress file say what its reports say, whatever the file holds and wherever its blocks end."""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.core import files, progress
from jobs.core.progress import ProgressWriter, Report
from jobs.core.verdict import FailureClass, Outcome
from launch.report import night, page, repeat
from launch.runs.rundir import Run
from launch.status import curves, stretches
from launch.status import report as reports
from launch.status.stretches import Stretch
from tests.launch.report.test_page import began
from tests.support.made_runs import make, said, stage, submitted

NAMES = ("loss", "validation_loss", "rewards/chosen")
NUMBERS = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(-1e3, 1e3)
    | st.integers(-(2**64), 2**64)
    | st.sampled_from([0, -0.0, 1e-5, 1e22])
)
CLOCKS = 4
"""Claims of a run are this many seconds apart."""


@st.composite
def told(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Starts that go back by some steps, with other phases between, on nodes whose clocks differ."""
    found, step, at = [], 0, 0.0
    for restart in draw(st.lists(st.integers(0, 2), max_size=4)):
        step = max(0, step - draw(st.integers(0, 12)))
        at += draw(st.integers(-3, 3))
        for _ in range(draw(st.integers(0, 12))):
            step += draw(st.sampled_from([1, 1, 1, 1, 0, -2]))
            at += draw(st.sampled_from([0.0, 0.25, 0.5, 0.5, -1.0]))
            phase = draw(st.sampled_from(["", "", "", "", "validation", "zerlegen äöü", 'a "b"']))
            metrics = draw(st.dictionaries(st.sampled_from(NAMES), NUMBERS))
            total = draw(st.sampled_from([None, 40]))
            line = {"time": 100 + at, "step": step, "total": total, "restart": restart, "metrics": metrics}
            found.append(line | ({"phase": phase} if phase else {}))
    return found


def as_another(line: dict[str, Any], how: str) -> bytes:
    """A line as some writer has it."""
    if how == "no spaces":
        return json.dumps(line, separators=(",", ":")).encode() + b"\n"
    if how == "more":
        line = {**line, "more": 1}
    if how == "less":
        line = {name: value for name, value in line.items() if name != "restart"}
    text = json.dumps(line, sort_keys=how != "in their order", ensure_ascii=how == "ascii").encode()
    ends = {"windows": b"\r\n", "no end": b"", "spaces": b"  \n", "empty": b"\n\n"}
    return text + ends.get(how, b"\n")


HOWS = ("ours",) * 12 + (
    "no spaces", "more", "less", "in their order", "ascii", "windows", "no end", "spaces", "empty"
)  # fmt: skip


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """A progress file: as we write it, or with lines of others, or damaged."""
    lines = draw(told())
    if draw(st.booleans()):
        return b"".join(as_another(line, "ours") for line in lines)
    found = bytearray(b"".join(as_another(line, draw(st.sampled_from(HOWS))) for line in lines))
    for _ in range(draw(st.integers(0, 3)) if found else 0):
        at, long = draw(st.integers(0, len(found) - 1)), draw(st.integers(0, 2))
        found[at : at + long] = draw(st.binary(max_size=2))
        if not found:
            break
    return bytes(found)


def singles(all_of_them: Iterable[Report]) -> list[Stretch]:
    """A stretch for each report."""
    return [
        Stretch(one.restart, one.phase, array("q", [one.step]), array("d", [one.time]),
                [json.dumps(one.metrics)[1:-1].encode()])
        for one in all_of_them
    ]  # fmt: skip


def again(found: Iterable[Stretch]) -> Iterator[Report]:
    """The reports of stretches."""
    for one in found:
        for step, time, text in zip(one.steps, one.times, one.texts, strict=True):
            yield Report(time, step, None, one.phase, json.loads(b"{" + text + b"}", parse_int=float), one.restart)


def read_both(content: bytes, block: int) -> tuple[list[Stretch], list[Report]]:
    with tempfile.TemporaryDirectory() as directory, mock.patch.object(stretches, "_BLOCK_BYTES", block):
        path = Path(directory) / "progress.jsonl"
        path.write_bytes(content)
        return stretches.read(path), [replace(one, total=None) for one in progress.read(path)]


@settings(max_examples=60)
@given(contents(), st.sampled_from([1, 200, 1 << 16]))
def test_stretches_hold_what_the_reports_say(content: bytes, block: int) -> None:
    found, wanted = read_both(content, block)
    assert list(again(found)) == wanted
    for one in found:
        assert list(one.steps) == sorted(set(one.steps))
        assert list(one.times) == sorted(one.times)
        assert len(one.texts) == len(one.steps) > 0


@settings(max_examples=40)
@given(contents(), st.sampled_from([1, 200, 1 << 16]), st.sampled_from([1, 3, 500]))
def test_curves_are_those_of_the_reports(content: bytes, block: int, together: int) -> None:
    found, wanted = read_both(content, block)
    kept = stretches.joined(one for one in found if not one.phase)
    reported = curves.joined(one for one in wanted if not one.phase)
    assert list(again(kept)) == reported
    with mock.patch.object(stretches, "_BLOCK_LINES", together):
        columns = list(stretches.columns(kept, *NAMES))
    for name, (steps, values) in zip(NAMES, columns, strict=True):
        assert list(zip(steps, values, strict=True)) == [
            (one.step, one.metrics[name]) for one in reported if name in one.metrics
        ]


@settings(max_examples=30)
@given(contents(), st.floats(95, 110), st.none() | st.floats(95, 110))
def test_what_is_between_two_times(content: bytes, start: float, end: float | None) -> None:
    for one in read_both(content, 1 << 16)[0]:
        part = one.between(start, end)
        wanted = [report for report in again([one]) if start <= report.time and (end is None or report.time < end)]
        assert list(again([part] if part else [])) == wanted


def a_run(directory: Path, starts: int) -> Run:
    """Starts of one stage, each a few seconds after the one before."""
    run = make(directory / "ws", stage("dpo", steps=40))
    submitted(run, "dpo", "7")
    for restart in range(starts):
        began(run, "dpo", "7", restart, 100.0 + CLOCKS * restart)
        said(
            run, "dpo", "7", Outcome.RETRY, FailureClass.NODE_FAILURE, "lost", restart=restart, time=103.0 + 4 * restart
        )
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    return [a_run(tmp_path_factory.mktemp("run"), starts) for starts in (1, 2, 3)]


@settings(max_examples=40)
@given(content=contents(), starts=st.integers(1, 3))
def test_the_night_is_that_of_the_reports(runs: list[Run], content: bytes, starts: int) -> None:
    """Of stretches that are cut anywhere, down to single reports."""
    run = runs[starts - 1]
    path = run.paths.stage("dpo").progress
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    found = night.of_run(run, run.plan(), 200.0)
    assert found is not None
    assert found == night.of_run(run, run.plan(), 200.0, {path: singles(progress.read(path))})


def test_what_a_start_made_again_is_known_where_it_went_back_itself(tmp_path: Path) -> None:
    run = a_run(tmp_path, 2)
    path = run.paths.stage("dpo").progress
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = [(0, step) for step in range(1, 6)] + [(1, 6), (1, 7), (1, 5), (1, 6), (1, 8)]
    for at, (restart, step) in enumerate(steps):
        line = {"time": 100.5 + at / 2 + restart, "step": step, "total": 40, "restart": restart, "metrics": {}}
        files.append_json_line(path, line)
    found = night.of_run(run, run.plan(), 200.0)
    assert found is not None
    spans = [(one.start, one.end) for one in found.stages[0].spans if one.doing is night.Doing.AGAIN]
    assert spans == [(104.0, 105.0)]


@pytest.mark.parametrize("how", HOWS[11:])
def test_a_line_of_another_writer_between_and_after_ours(how: str) -> None:
    line = {"time": 1.5, "step": 3, "total": 9, "restart": 1, "metrics": {"loss": 4, "lr": 1e-05}}
    ours = as_another(line, "ours")
    content = ours + as_another({**line, "step": 4, "phase": "ä"}, how) + ours + as_another({**line, "step": 5}, how)
    for block in (1, 1 << 16):
        found, wanted = read_both(content, block)
        assert list(again(found)) == wanted


def test_what_stands_before_or_after_a_line_damages_it() -> None:
    ours = as_another({"time": 1.5, "step": 3, "total": 9, "restart": 1, "metrics": {}}, "ours")
    zero = ours.replace(b'"step": 3', b'"step": 03')
    for damaged in (b"x" + ours, ours[:-1] + b"x\n", b"{" + ours, zero, ours[:-2] + b"\n", ours + ours[:-9]):
        found, wanted = read_both(ours + damaged, 1 << 16)
        assert list(again(found)) == wanted
        assert len(wanted) == (2 if damaged.startswith(ours) else 1)


def test_what_we_write_is_matched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "progress.jsonl"
    writer = ProgressWriter(path, restart=2)
    writer.report(1, 10, loss=2.5, lr=1e-5, memory_bytes=2**33, broken=float("nan"))
    writer.report(2, None, "tokenising")
    writer.report(3, 10, loss=-1e22)
    wanted = [replace(one, total=None) for one in progress.read(path)]
    monkeypatch.setattr(Report, "parse", None)
    assert list(again(stretches.read(path))) == wanted


def test_no_file_and_what_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stretches.read(tmp_path / "none") == []
    assert stretches.read(tmp_path) == []
    assert f"{tmp_path}: not a file" in capsys.readouterr().err


def test_a_page_reads_each_progress_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    run = make(tmp_path / "ws", stage("sft"), stage("dpo", "sft"))
    paths = []
    for name, job in (("sft", "7"), ("dpo", "8")):
        submitted(run, name, job)
        began(run, name, job, 0, 1e9)
        paths.append(run.paths.stage(name).progress)
        files.append_json_line(paths[-1], {"time": 1e9 + 1, "step": 1, "metrics": {"loss": 2.0}})
    opened: list[Path] = []
    blocks = stretches._blocks
    monkeypatch.setattr(stretches, "_blocks", lambda path: opened.append(path) or blocks(path))
    text = page.render(reports.of_run(run), run.profile(), repeat.of_run(run, run.plan()))
    assert text.count("<h3>sft</h3>") == text.count("<h3>dpo</h3>") == 1
    assert opened == paths
