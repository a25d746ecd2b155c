"""``import overnight``: the commands as functions and values, on a real chain of the toy back end."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import launch
import overnight
from jobs.core import results, strict
from jobs.core.seal import SealKind
from launch.runs.rundir import Run
from tests.launch.cli.test_imports import HEAVY, SHOWING, imported_by
from tests.launch.status.test_results import AFTER, BEFORE, evaluation
from tests.support.made_runs import make, sealed, store_of
from tests.support.toy_chain import Chain

ROOT = Path(launch.__file__).parent.parent
STAGES = """\
  pairs: {kind: instructions, from: ./sft.jsonl, split: {test: 0.3}}
  before: {kind: evaluate, backend: toy, checkpoint: base, tasks: {numbers: {task: answers, data: pairs}}}
  sft: {kind: sft, backend: toy, checkpoint: base, data: pairs, steps: 8, lr: 0.5, batch_size: 8}
  after: {kind: evaluate, backend: toy, checkpoint: sft, tasks: {numbers: {task: answers, data: pairs}},
    compare_to: before}
"""


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    made = Chain.make(tmp_path_factory.mktemp("api"), STAGES)
    made.fetch()
    return made


@pytest.fixture(autouse=True)
def _own_places(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OVERNIGHT_WORKSPACE", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, chain.variables[name])


@pytest.fixture(scope="module")
def done(chain: Chain) -> overnight.RunHandle:
    """A run that the API ran, and what it told of it."""
    told: list[str] = []
    workspace = chain.workspace.root
    made = overnight.pipeline(chain.pipeline, workspace).run(on_change=lambda stage: told.append(str(stage)))
    assert [re.sub(r"\d+", "N", line) for line in told] == [
        f"{name}: {text}" for name in ("pairs", "before", "sft", "after") for text in ("running", "sealed after N s")
    ]
    return made


def test_the_import_is_light() -> None:
    found = imported_by("-c", "import overnight")
    assert {"overnight", "launch"} <= found
    assert not found & (HEAVY | SHOWING | {"IPython", "matplotlib", "nbformat"})
    code = "import sys, overnight; print(len(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 280  # counted, not timed: a busy machine takes twice as long


def test_a_user_of_it_is_type_checked(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "mine.py").write_text(
        "import overnight\n"
        "run = overnight.open('x')\n"
        "value: float = run.evaluations['final']['translation.chrf'].value\n"
        "wrong: str = run.evaluations['final']['translation.chrf'].value\n"
        "overnight.pipeline('p.yaml').submit()\n"
    )
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", str(tmp_path / "c")]
    said = subprocess.run([*command, "mine.py"], cwd=tmp_path, env=environment, capture_output=True, text=True).stdout
    errors = [line for line in said.splitlines() if "error:" in line]
    assert [line.partition(":")[2].partition(":")[0] for line in errors] == ["4", "5"], said


def test_set_makes_another_chain_and_its_plan_shows_it(chain: Chain) -> None:
    first = overnight.pipeline(str(chain.pipeline))
    second = first.set("stages.sft.lr", 1e-5).set("stages.sft.steps", 3)
    assert first.overrides == ()
    plan = second.plan()
    sft = plan.stages["sft"]
    assert (sft.settings["lr"], sft.settings["steps"], sft.parents, sft.nodes) == (1e-5, 3, ("pairs",), 1)
    assert first.plan(cluster="local").stages["sft"].settings["lr"] == 0.5
    assert (plan.limits, plan.missing) == ((), ())
    assert str(plan) == chain.overnight("plan", str(chain.pipeline), "--cluster", "local", "--set",
                                        "stages.sft.lr=1e-05", "--set", "stages.sft.steps=3").stdout.rstrip("\n")  # fmt: skip
    with pytest.raises(dataclasses.FrozenInstanceError):
        second.path = Path("x")  # type: ignore[misc]
    with pytest.raises(TypeError):
        sft.settings["lr"] = 1  # type: ignore[index]


@pytest.mark.parametrize("value", ["1", "null", "a: b", "é\u2028\n#", "true", "-"])
def test_a_text_that_is_set_stays_that_text(chain: Chain, value: str) -> None:
    plan = overnight.pipeline(chain.pipeline).set("stages.pairs.prompt", value)
    with pytest.raises(overnight.InputError) as refused:
        overnight.pipeline(chain.pipeline).set("stages.sft.lr", value).plan()
    assert "lr" in str(refused.value)
    assert json.loads(plan.overrides[0].partition("=")[2]) == value


def test_what_cannot_be_set_is_refused_at_once(chain: Chain) -> None:
    for value in (float("nan"), object(), {1, 2}):
        with pytest.raises(overnight.InputError, match=r"stages\.sft\.lr cannot be set"):
            overnight.pipeline(chain.pipeline).set("stages.sft.lr", value)


@pytest.mark.usefixtures("done")
def test_errors_are_those_of_the_commands(chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(overnight.InputError) as wrong:
        overnight.pipeline(chain.pipeline).set("stages.sft.stepz", 3).plan()
    said = chain.overnight(
        "plan", str(chain.pipeline), "--cluster", "local", "--set", "stages.sft.stepz=3", check=False
    )
    assert said.stderr.splitlines()[0] == f"overnight: {wrong.value}".splitlines()[0]
    with pytest.raises(overnight.InputError) as local:
        overnight.pipeline(chain.pipeline).submit("local")
    assert (local.value.hint or "").startswith(f"overnight run {chain.pipeline} --cluster local")
    with pytest.raises(overnight.InputError, match="not in the workspace") as missing:
        overnight.pipeline(chain.pipeline, tmp_path / "empty").run()
    assert "overnight fetch" in (missing.value.hint or "")
    with pytest.raises(overnight.InputError, match="there is no run 'zzzzz'"):
        overnight.open("zzzzz")


def test_fetch_brings_what_is_missing(chain: Chain, tmp_path: Path) -> None:
    made = overnight.pipeline(chain.pipeline, tmp_path / "w")
    assert made.plan().missing
    assert made.fetch() == ("base",)
    assert made.plan().missing == ()


def test_a_run_is_opened_listed_and_waited_for(done: overnight.RunHandle, chain: Chain) -> None:
    assert overnight.open(done.id[:4]) == done
    assert done in overnight.runs(chain.workspace.root)
    assert done.id in repr(done)
    told: list[overnight.StageStatus] = []
    status = done.wait(on_change=told.append, timeout=5)
    assert status.is_done
    assert [one.stage for one in told] == ["pairs", "before", "sft", "after"]
    assert {one.state for one in told} == {overnight.State.SEALED}
    assert str(status).splitlines()[0] == "pairs: sealed"
    assert done.cancel() == ()
    assert done.resume() is done


def test_what_was_measured(done: overnight.RunHandle) -> None:
    before, after = done.evaluations["before"]["numbers.loss"], done.evaluations["after"]["loss"]
    assert after.value < before.value
    written = strict.read(results.find(Path(done.stages["after"].path)))["tasks"]["numbers"]["metrics"]["loss"]
    assert (after.value, after.low, after.high, after.n) == tuple(written[key] for key in ("value", "low", "high", "n"))
    assert str(after).startswith("after numbers.loss: ")
    with pytest.raises(overnight.UnknownName, match=r"numbers\.loss") as unknown:
        done.evaluations["after"]["numbers.los"]
    assert isinstance(unknown.value, KeyError)
    assert done.evaluations.get("nothing") is None
    assert list(done.evaluations) == ["before", "after"]


def test_the_curve(done: overnight.RunHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    curve = done.curve("sft")
    assert [row["step"] for row in curve] == list(range(1, 9))
    losses = curve.column("loss")
    assert losses[-1][1] < losses[0][1]
    assert (curve[0], curve[-2:]) == (curve.rows[0], curve.rows[-2:])
    assert curve.column("nothing") == []
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(overnight.InputError, match="pandas is not installed"):
        curve.frame()
    with pytest.raises(overnight.InputError, match="there is no stage 'sfx'"):
        done.curve("sfx")
    with pytest.raises(overnight.InputError, match="has reported no step"):
        done.curve("pairs")


def test_the_curve_as_a_frame(done: overnight.RunHandle) -> None:
    pytest.importorskip("pandas")
    frame = done.curve("sft").frame()
    assert list(frame["step"]) == list(range(1, 9))
    assert dict(zip(frame["step"], frame["loss"], strict=True)) == dict(done.curve("sft").column("loss"))


def test_the_page_is_that_of_the_command(done: overnight.RunHandle, tmp_path: Path) -> None:
    path = done.report(tmp_path / "night.html")
    assert path == tmp_path / "night.html"
    assert done.id in path.read_text(encoding="utf-8")
    assert done.report() == done.path / "report.html"
    assert "lang=ko" in done.report(tmp_path / "ko.html", language="ko").read_text(encoding="utf-8")


def test_two_runs_are_compared(done: overnight.RunHandle, chain: Chain) -> None:
    chained = overnight.pipeline(chain.pipeline, chain.workspace.root)
    other = chained.set("stages.sft.save_every", 4).run()
    found = overnight.compare(done, other)
    assert "+    save_every: 4" in found.difference
    assert (found.same, found.changes, found.refused) == (("before", "after"), (), {})
    slower = overnight.compare(done, chained.set("stages.sft.lr", 0.25).run())
    assert slower.same == ("before",)
    assert list(slower.refused) == ["after.numbers"]  # of the toy back end
    assert str(found).startswith(f"run {other.id} against {done.id}")
    with pytest.raises(overnight.InputError, match="named twice"):
        overnight.compare(done, done)


def test_a_stage_that_fails_is_told_and_the_run_is_there(chain: Chain) -> None:
    broken = overnight.pipeline(chain.pipeline, chain.workspace.root)
    broken = broken.set("stages.sft.options", {"mishap": "code"}).set("stages.sft.lr", 0.125)
    with pytest.raises(overnight.OvernightError, match="stage 'sft' failed") as failed:
        broken.run()
    run = overnight.open()
    assert run.id in (failed.value.hint or "")
    status = run.wait(timeout=5)
    assert not status.is_done
    assert status.stage("sft").state is overnight.State.FAILED
    assert status.stage("after").state.is_over
    assert "after" not in run.evaluations


def test_wait_ends_at_its_time(chain: Chain) -> None:
    slow = overnight.pipeline(chain.pipeline, chain.workspace.root).set("stages.sft.options", {"step_seconds": 1.0})
    slow = slow.set("stages.sft.lr", 0.0625).set("stages.sft.steps", 40)
    caught: list[BaseException] = []

    def elsewhere() -> None:
        try:
            slow.run()
        except overnight.OvernightError as error:
            caught.append(error)

    worker = threading.Thread(target=elsewhere)
    worker.start()
    try:
        run = _when_running(worker)
        with pytest.raises(TimeoutError, match="is still running"):
            run.wait(timeout=0.2)
        assert run.cancel("sft") == ("sft",)
    finally:
        worker.join(timeout=60)
    assert not worker.is_alive()
    assert run.wait(timeout=20).stage("sft").state is overnight.State.STOPPED
    assert len(caught) == 1


def _when_running(worker: threading.Thread) -> overnight.RunHandle:
    while worker.is_alive():
        try:
            run = overnight.open()
            if run.status().stage("sft").state is overnight.State.RUNNING and run.curve("sft"):
                return run
        except overnight.InputError:  # no run yet, not planned, or no step yet
            pass
        worker.join(0.2)
    raise AssertionError("it ended before it was seen at work")


ANSWERS = {"a": ("one two", "one two"), "b": ("one two", "three"), "c": ("three", "one two"), "d": ("x", "")}
"""Row -> the answer before and now; the reference is ``one two``."""


@pytest.fixture
def answered(tmp_path: Path) -> overnight.RunHandle:
    """A finished run with a comparison of 64 rows and four answers."""
    run: Run = make(tmp_path / "ws", evaluation("baseline"), evaluation("final", "baseline"))
    for number, name in enumerate(("baseline", "final")):
        sealed(run, name, SealKind.EVALUATION, (BEFORE, AFTER)[number])
        output = store_of(run, name).output
        rows = [
            {"task": "translation", "id": row, "asked": "Say it.", "reference": "one two", "hypothesis": texts[number]}
            for row, texts in ANSWERS.items()
            if (name, row) != ("baseline", "d")
        ]
        (output / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{cut", "utf-8")
    return overnight.RunHandle(run)


def test_samples_and_what_became_of_them(answered: overnight.RunHandle) -> None:
    samples = answered.samples("final", "translation")
    assert samples.compared_with == "baseline"
    assert {one.row: one.moved for one in samples} == {"a": "same", "b": "worse", "c": "better", "d": None}
    assert [one.row for one in samples.changed("worse")] == ["b"]
    (better,) = samples.changed("better")
    assert (better.asked, better.reference, better.before, better.answer) == ("Say it.", "one two", "three", "one two")
    assert samples[0].row == "b"
    first = answered.samples("baseline", "translation")
    assert {one.moved for one in first} == {None}
    with pytest.raises(overnight.InputError, match=r"no answers to 'translations'; .*translation"):
        answered.samples("final", "translations")
    with pytest.raises(overnight.InputError, match="'better' and 'worse'"):
        samples.changed("wurst")  # type: ignore[arg-type]


def test_a_change_has_its_interval_and_a_direction(answered: overnight.RunHandle) -> None:
    measured = answered.evaluations["final"]
    for one in measured.values():
        if one.change is None or one.change.low is None:
            continue
        excludes = one.change.low > 0 or one.change.high < 0
        assert (one.moved != "undecided") == excludes
        assert one.compared_with == "baseline"
    assert any(one.change is not None for one in measured.values())


def test_the_example_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert example.count('"night.html"') == 1
    example = example.replace('"night.html"', repr(str(tmp_path / "night.html")))
    environment = {**os.environ, "OVERNIGHT_WORKSPACE": str(tmp_path / "w")}
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "new 0.25 ()" in done.stdout
    assert "dpo: sealed after" in done.stdout
    assert (tmp_path / "night.html").is_file()


def test_what_the_documentation_names_is_there() -> None:
    text = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    for name in ("status", "wait", "cancel", "resume", "evaluations", "curve", "samples", "stages", "model", "report"):
        assert hasattr(overnight.RunHandle, name)
        assert f"`{name}" in text
    for name in ("set", "fetch", "plan", "submit", "run"):
        assert hasattr(overnight.Chain, name)
        assert f"`{name}(" in text


def test_a_sweep_is_refused_with_the_command_that_submits_it(chain: Chain, tmp_path: Path) -> None:
    swept = chain.directory / "swept.yaml"
    text = chain.pipeline.read_text(encoding="utf-8")
    swept.write_text(text + "sweep: {over: {stages.sft.lr: [0.25, 0.5]}}\n", encoding="utf-8")
    with pytest.raises(overnight.InputError, match="is a sweep") as refused:
        overnight.pipeline(swept, tmp_path / "w").plan()
    assert (refused.value.hint or "").startswith(f"overnight submit {swept}")
