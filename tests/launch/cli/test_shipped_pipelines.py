"""The pipelines that we ship for models of real size: each is planned on a profile, and fits the GPUs that it asks for."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from jobs.core.paths import Workspace
from launch.cli import new
from launch.cli.begin.writing import PLAIN_TEMPLATE
from launch.inputs import fetch
from tests.support import commands
from tests.support.base_model import complete
from tests.support.llamas import LLAMA_3B, QWEN_1B

ROOT = Path(__file__).parents[3]
PROFILE = """\
extends: dgx-pyxis
name: my-dgx
account: research
environments:
  nemo: {image: "nvcr.io#nvidia/nemo:TAG"}
  nemo_rl: {image: "nvcr.io#nvidia/nemo-rl:TAG", python: /opt/nemo_rl_venv/bin/python}
"""
SMALL = """\
executor: slurm
partitions: {gpu: {gpus: 1, gpu_model: l40s, gpu_memory: 24G}}
partition: gpu
resources: {default: {time: "4:00:00"}}
"""
SHIPPED: dict[str, tuple[str, str, dict[str, Any], dict[str, str]]] = {
    "guide": ("llama32_3b", PROFILE, LLAMA_3B, {"base-nemo": "nemo", "sft-hf": "nemo", "dpo-hf": "nemo_rl"}),
    "guide-hf": ("llama32_3b_hf", PROFILE, LLAMA_3B, {}),
    "lora": ("lora_one_gpu", SMALL, QWEN_1B, {}),
}


def overnight(*arguments: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OVERNIGHT_WORKSPACE": str(cwd / "workspace")}
    done = commands.overnight(*arguments, cwd=cwd, environment=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_planned_and_fits(name: str, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")  # the planner asks it what its tasks measure
    _, profile, config, inserted = SHIPPED[name]
    (tmp_path / "mine.yaml").write_text(profile)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(config))
    complete(model)
    entry = fetch.item("base", str(model), base=tmp_path).entry(Workspace(tmp_path / "workspace"))
    entry.output.mkdir(parents=True)
    (entry.output / "config.json").write_text(json.dumps(config))
    overnight("new", "--from", name, "--output", "chain.yaml", cwd=tmp_path)
    told = ("plan", "chain.yaml", "--cluster", "./mine.yaml", "--json", "--set", "model.base=./model")
    found = json.loads(overnight(*told, cwd=tmp_path).splitlines()[-1])
    stages = {stage["name"]: stage for stage in found["stages"]}
    assert {name: stage["backend"] for name, stage in stages.items() if stage["inserted"]} == inserted
    trained = {stage["name"] for stage in found["stages"] if stage["kind"] in ("cpt", "sft", "dpo")}
    estimates = {each["stage"]: each for each in found["estimates"]}
    assert estimates.keys() == trained
    assert all(each["fits"] and each["memory_limit"] for each in estimates.values())
    assert {gate["gate"] for gate in found["gates"]} >= {"answers.answer_loss", "preferences.accuracy"}


def test_the_guides_numbers_are_those_of_the_guide() -> None:
    """Steps, learning rates and batches of the guide's recipes for CPT, SFT and DPO."""
    import yaml

    stages = yaml.safe_load((ROOT / "pipelines/llama32_3b.yaml").read_text())["stages"]
    wanted = {"cpt": (1000, 4, 4096), "sft": (500, 16, 4096)}
    for name, numbers in wanted.items():
        one = stages[name]
        assert (one["steps"], one["batch_size"], one["sequence_length"]) == numbers
        assert float(one["lr"]) == 1e-5
        assert one["micro_batch_size"] == 1
    assert stages["cpt"]["schedule"] == "constant"
    assert stages["sft"]["validate_every"] == 100
    assert (float(stages["dpo"]["lr"]), stages["dpo"]["beta"]) == (5e-6, 0.1)


@pytest.mark.parametrize("name", SHIPPED)
def test_what_new_writes_is_what_we_ship(name: str, tmp_path: Path) -> None:
    shipped = ROOT / "pipelines" / f"{SHIPPED[name][0]}.yaml"
    overnight("new", "--from", name, "--output", "mine.yaml", cwd=tmp_path)
    assert (tmp_path / "mine.yaml").read_text() == shipped.read_text()
    head = shipped.read_text().split("\nname:")[0]
    assert all(re.search(rf"^# {word} ", head, re.MULTILINE) for word in ("needs", "comes out", "next"))
    assert set(SHIPPED) == set(new.GUIDES)


def test_a_chain_of_ours_has_the_name_that_is_wanted_and_writes_over_nothing(tmp_path: Path) -> None:
    overnight("new", "my-night", "--from", "guide", cwd=tmp_path)
    assert "\nname: my-night\n" in (tmp_path / "my-night.yaml").read_text()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = commands.overnight("new", "my-night", "--from", "guide", cwd=tmp_path, environment=environment)
    assert done.returncode == 2
    assert "is not overwritten" in done.stderr


STYLE = ROOT / "pipelines/style_alignment.yaml"


def style(directory: Path, base: str) -> Path:
    """The pipeline of style alignment in a directory of its own with another base model, and without the benchmark."""
    import yaml

    given = json.loads(json.dumps(yaml.safe_load(STYLE.read_text())))  # an alias becomes a copy
    given["model"]["base"], given["ranges"] = base, "off"  # which this reader takes for a truth value
    del given["sources"]
    for name in ("baseline", "final"):
        del given["stages"][name]["tasks"]["mmlu-sample"]
    del given["stages"]["final"]["gate"]["mmlu-sample.acc"]
    given["stages"]["final"]["missed"] = given["stages"]["final"]["undecided"] = "go"  # a random model learns nothing
    for name in ("style.length", "style.f1", "preferences.margin"):
        assert name in given["stages"]["final"]["gate"]
    for name in ("prefs", "questions"):
        given["stages"][name]["from"] = str(STYLE.parent / given["stages"][name]["from"])
    given["stages"]["dpo"] |= {"steps": 2, "batch_size": 4, "sequence_length": 384}
    for name in ("baseline", "final"):
        given["stages"][name]["tasks"]["style"] |= {"limit": 3, "max_new_tokens": 4}
    path = directory / "style.yaml"
    path.write_text(yaml.safe_dump(given, sort_keys=False))
    return path


def test_style_alignment_says_what_it_needs_and_is_planned(tmp_path: Path) -> None:
    head = STYLE.read_text().split("\nname:")[0]
    assert all(re.search(rf"^# {word} ", head, re.MULTILINE) for word in ("needs", "comes out", "next"))
    pytest.importorskip("lm_eval")
    (tmp_path / "mine.yaml").write_text(SMALL)
    done = overnight("plan", str(STYLE), "--cluster", "./mine.yaml", "--json", cwd=tmp_path)
    stages = {stage["name"]: stage for stage in json.loads(done.splitlines()[-1])["stages"]}
    assert [*stages] == ["prefs", "questions", "base-hf", "baseline", "dpo", "final"]


@pytest.mark.full
def test_style_alignment_runs_to_its_end(tmp_path: Path) -> None:
    """Data, a short training and both evaluations, on a model of two layers."""
    pytest.importorskip("trl")
    from tests.support.stages import make_model

    make_model(tmp_path / "tiny")
    config = json.loads((tmp_path / "tiny/config.json").read_text())  # its tokenizer has few words: rows are long
    (tmp_path / "tiny/config.json").write_text(json.dumps({**config, "max_position_embeddings": 512}))
    (tmp_path / "tiny/chat_template.jinja").write_text(PLAIN_TEMPLATE)
    pipeline = style(tmp_path, "./tiny")
    overnight("fetch", str(pipeline), "--cluster", "local", cwd=tmp_path)
    overnight("run", str(pipeline), "--cluster", "local", cwd=tmp_path)
    found = json.loads(overnight("report", "--json", cwd=tmp_path))
    assert {stage["stage"]: stage["state"] for stage in found["stages"]} == dict.fromkeys(
        ("prefs", "questions", "baseline", "dpo", "final"), "sealed"
    )
    asked: dict[str, dict[str, set[str]]] = {}
    for stage, kind in (("prefs", "preferences"), ("questions", "instructions")):
        cards = (tmp_path / "workspace/store").glob("*/output/card.json")
        (output,) = (card.parent for card in cards if json.loads(card.read_text())["kind"] == kind)
        for split in ("train", "test"):
            rows = map(json.loads, (output / f"{split}.jsonl").read_text().splitlines())
            questions = {(row.get("messages") or row["prompt"])[0]["content"] for row in rows}
            asked.setdefault(split, {})[stage] = questions
    assert len(asked["test"]["questions"]) == 40
    assert asked["test"]["questions"] == asked["test"]["prefs"], "what is measured is held out of the training"
    assert asked["test"]["questions"].isdisjoint(asked["train"]["prefs"])
