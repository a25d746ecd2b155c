"""What a command takes where it is not told: the profile, the run, the stage; and what a plan refuses at once."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from launch.base.errors import InputError
from launch.cli.main import main
from launch.config.profile_file import CHOSEN, default_name
from launch.runs.rundir import Run
from tests.support.made_runs import make, stage, started, submitted

PIPELINE = """\
name: mine
model: {base: ./base}
stages:
  pairs: {kind: instructions, from: ./a.jsonl}
  sft: {kind: sft, backend: BACKEND, checkpoint: base, data: pairs, steps: 2, lr: 1e-5}
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and the working directory."""
    for name, value in {"XDG_CONFIG_HOME": "config", "XDG_STATE_HOME": "state", "OVERNIGHT_WORKSPACE": "ws"}.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    monkeypatch.delenv(CHOSEN, raising=False)
    monkeypatch.delenv("OVERNIGHT_PROFILES", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "mine.yaml").write_text(PIPELINE.replace("BACKEND", "toy"))
    return tmp_path


def profile(directory: Path, name: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.yaml").write_text("extends: devcluster\n")


def test_the_only_profile_is_the_default(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "mine.yaml"]) == 2
    told = capsys.readouterr().err
    assert "which cluster? There is no profile yet" in told
    assert "next: overnight profile init" in told
    profile(place / "config/overnight/profiles", "lab")
    assert main(["plan", "mine.yaml"]) == 0
    shown = capsys.readouterr()
    assert shown.err.count("note: --cluster lab (the only profile)") == 1
    assert "mine on lab" in shown.out
    # Fetch brings it where the same submission looks for it.
    assert main(["fetch", "mine.yaml"]) == 0
    assert "note: --cluster lab" in capsys.readouterr().err
    profile(place / "config/overnight/profiles", "other")
    assert main(["plan", "mine.yaml"]) == 2
    assert (
        "There are the profiles lab, other\nnext: --cluster NAME, or export OVERNIGHT_CLUSTER"
        in capsys.readouterr().err
    )


def test_the_variable_counts_more_and_the_users_profile_before_the_sites(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile(place / "site", "site")
    monkeypatch.setenv("OVERNIGHT_PROFILES", str(place / "site"))
    assert default_name() == ("site", "the only profile")
    profile(place / "config/overnight/profiles", "lab")
    assert default_name()[0] == "lab"
    monkeypatch.setenv(CHOSEN, "devcluster")
    assert default_name() == ("devcluster", "$OVERNIGHT_CLUSTER")


def test_fetch_without_a_profile_is_for_this_machine(place: Path) -> None:
    assert main(["fetch", "mine.yaml"]) == 0
    with pytest.raises(InputError):
        default_name()


@pytest.fixture
def run(place: Path) -> Run:
    made = make(
        place / "ws",
        stage("cpt", executor="local"),
        stage("sft", "cpt", executor="local"),
        profile={"executor": "local"},
    )
    for number, name in enumerate(("sft", "cpt")):
        submitted(made, name, str(number), carrier="local", pid=1)
        started(made, name, str(number))
        (made.paths.stage(name).logs / f"{number}_0.log").write_text(f"one\ntwo of {name}\nthree\n")
    return made


def test_logs_are_those_of_the_newest_run_and_of_the_stage_that_wrote_last(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["logs"]) == 0
    shown = capsys.readouterr()
    assert "two of cpt" in shown.out
    assert f"run {run.id}, stage cpt" in shown.err
    assert main(["logs", "sft"]) == 0
    assert "two of sft" in capsys.readouterr().out
    assert main(["logs", run.id, "sft", "--tail", "1"]) == 0
    assert capsys.readouterr().out == "three\n"


def test_why_and_cancel_are_about_the_newest_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    main(["why", "sft"])
    assert capsys.readouterr().out.startswith("sft:")
    assert main(["cancel", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == run.id
    assert main(["cancel", "sft", "--json"]) == 0
    assert main(["cancel", "nothing"]) == 2


def test_a_name_that_can_be_a_stage_and_a_run_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = make(place / "ws", stage("cpt", executor="local"), profile={"executor": "local"})
    name = first.id[:2]
    newest = make(place / "ws", stage(name, executor="local"), profile={"executor": "local"})
    assert main(["logs", name]) == 2
    told = capsys.readouterr().err
    assert f"{name!r} is a stage of run {newest.id}, the newest, and the beginning of run {first.id}" in told


@pytest.mark.train
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no weights (*.safetensors or pytorch_model*.bin)"),
        ({"model.safetensors": 64, "tokenizer.json": 2}, "model.safetensors cannot be read"),
        ({"pytorch_model.bin": 64}, "has no tokenizer (tokenizer.json)"),
        ({"model.safetensors.index.json": 0, "model-1.safetensors": 9, "tokenizer.json": 2}, "cannot be read"),
        ({"pytorch_model.bin": 64, "tokenizer.json": 2}, None),
    ],
)
def test_a_base_model_that_cannot_be_trained_is_refused_at_plan(
    files: dict[str, int], message: str | None, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    for name, size in files.items():
        (place / "base" / name).write_bytes(bytes(size))
    (place / "mine.yaml").write_text(PIPELINE.replace("BACKEND", "trl"))
    code = main(["plan", "mine.yaml", "--cluster", "local"])
    told = capsys.readouterr().err
    assert code == (0 if message is None else 2), told
    if message is not None:
        assert "mine.yaml:2:15: model.base: ./base: " in told
        assert message in told
        assert "next: a complete model has config.json, weights and tokenizer.json" in told


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("beta: 0.1", "stages.sft.beta: is a key of dpo stages, and this stage is of another kind"),
        ("env: {A: b}", "stages.sft.env: is not a key of a stage: environment variables are set for all stages"),
        ("depends_on: pairs", "stages.sft.depends_on: is not a key of a stage: a stage waits for what it reads"),
    ],
)
def test_keys_that_belong_elsewhere(line: str, message: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = PIPELINE.replace("BACKEND", "toy").replace("kind: sft,", f"kind: sft, {line},")
    (place / "mine.yaml").write_text(text)
    assert main(["plan", "mine.yaml", "--cluster", "local"]) == 2
    assert message in capsys.readouterr().err


def test_a_plan_refuses_an_option_that_submit_would_refuse(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = PIPELINE.replace("BACKEND", "toy").replace("kind: sft,", "kind: sft, options: {lora_rank: 3},")
    (place / "mine.yaml").write_text(text)
    assert main(["fetch", "mine.yaml", "--cluster", "devcluster"]) == 0
    capsys.readouterr()
    assert main(["plan", "mine.yaml", "--cluster", "devcluster"]) == 2
    told = capsys.readouterr().err
    assert "mine.yaml:5:41: stages.sft.options.lora_rank" in told
    assert "mishap" not in told
    assert main(["plan", "mine.yaml", "--cluster", "local", "--check"]) == 1
    shown = capsys.readouterr().out
    assert re.search(r"fail +settings +mine.yaml:5:41 .*unknown setting 'lora_rank'", shown)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('{"prompt": "a", "completion": "b"}\n{broken\n', "a.jsonl:2: is not JSON"),
        ("", "a.jsonl: is empty"),
        ('[{"prompt": "a"}]\n', "a.jsonl:1"),
        ('{"question": "a", "response": "b"}\n', 'a.jsonl:1: field "prompt" is missing; a row of instructions is'),
        ('{"messages": []}\n', 'are read with "prepare: {}"'),
    ],
)
def test_check_reads_the_rows(rows: str, message: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "a.jsonl").write_text(rows)
    assert main(["plan", "mine.yaml", "--cluster", "local", "--check"]) == 1
    assert re.search(rf"fail +data: pairs +mine.yaml:4:\d+ .*{re.escape(message)}", capsys.readouterr().out)
    (place / "a.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 3)
    main(["plan", "mine.yaml", "--cluster", "local", "--check"])
    assert re.search(r"ok +data: pairs +3 rows can be read", capsys.readouterr().out)


def test_why_shows_the_cause_and_not_what_waits_for_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "a.jsonl").write_text("{broken\n")
    assert main(["fetch", "mine.yaml"]) == 0
    assert main(["run", "mine.yaml"]) == 1
    capsys.readouterr()
    main(["why"])
    shown = capsys.readouterr().out
    assert "pairs: failed" in shown
    assert "not run because of it: sft" in shown
    assert "overnight resume" not in shown
    assert main(["resume"]) == 1
    told = capsys.readouterr().err
    assert "note: stage pairs failed by data_error, which the same pipeline and data give again" in told
    assert "then: overnight run " in told
