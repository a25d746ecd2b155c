"""``overnight plan --check`` without a cluster: room on the disk, memory of the GPU, images and secrets of the pipeline."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.core.paths import Workspace
from launch.config.pipeline_file import read_pipeline
from launch.config.profile_file import read_profile
from launch.plan.model import Plan, Planned, PlannedInput
from launch.site import preflight
from launch.site.finding import Finding, Level
from tests.launch.plan.test_estimates import BASE, training
from tests.support.llamas import LLAMA_1B

PIPELINE = "name: p\nmodel: {base: ./model}\nstages:\n  corpus: {kind: corpus, from: ./raw}\n"


def findings(
    tmp_path: Path,
    site: str = "",
    pipeline: str = "",
    image: str = "",
    settings: dict[str, Any] | None = None,
    **model: Any,
) -> dict[str, Finding]:
    """Of CPT and SFT of a model of 1.2 billion parameters, on one H100; ``site``: further lines of the profile."""
    workspace = Workspace(tmp_path / "work")
    output = workspace.entry(BASE.kind, BASE.fingerprint).output
    output.mkdir(parents=True)
    (output / "config.json").write_text(json.dumps({**LLAMA_1B, **model}))
    (tmp_path / "site.yaml").write_text(f"executor: slurm\nworkspace: {workspace.root}\npartition: gpu\n{site}")
    (tmp_path / "p.yaml").write_text(PIPELINE + pipeline)
    cpt = training("cpt", BASE, **(settings or {}))
    sft = training("sft", PlannedInput("cpt", "checkpoint", "hf", "ef" * 32, is_job=True))
    stages = tuple(replace(one, resources=one.resources.changed(image=image or None)) for one in (cpt, sft))
    planned = Planned(
        read_pipeline(tmp_path / "p.yaml"), read_profile(tmp_path / "site.yaml"), workspace, Plan("p", stages)
    )
    return {one.what: one for one in preflight.findings(planned, None)}


def of_gpu(memory: str) -> str:
    return f"partitions: {{gpu: {{gpus: 8, gpu_model: h100, gpu_memory: {memory}}}}}\n"


@pytest.mark.parametrize(("memory", "level"), [("2000G", Level.OK), ("8G", Level.FAIL)])
def test_memory_of_a_gpu(tmp_path: Path, memory: str, level: Level) -> None:
    found = findings(tmp_path, of_gpu(memory))["GPU memory"]
    assert found.level is level
    if level is Level.OK:
        assert found.text == "cpt, sft: fits"
    else:
        assert "stage 'cpt' needs about" in found.text
        assert "partition 'gpu' has 8.00 GiB" in found.text


def test_memory_that_nobody_says(tmp_path: Path) -> None:
    found = findings(tmp_path)["GPU memory"]
    assert (found.level, found.text) == (Level.OK, "no stage whose model and GPU are both known")


@pytest.mark.parametrize(
    ("quota", "level"),
    [
        ("", Level.OK),
        ("quota: 10G\n", Level.FAIL),
        ("quota: 900G\n", Level.OK),
        ("file_systems: {{a: {{path: {0}, quota: 10G}}, b: {{path: /, quota: 900G}}}}\n", Level.FAIL),
    ],
)
def test_room_on_the_disk(tmp_path: Path, quota: str, level: Level) -> None:
    """Of a small model where there is to be room, so that the machine of the test has it."""
    small: dict[str, Any] = {"num_hidden_layers": 1, "vocab_size": 100} if level is Level.OK else {}
    found = findings(tmp_path, quota.format(tmp_path), **small)["disk"]
    assert found.level is level
    assert "needed for cpt, sft;" in found.text
    assert ("its quota is" in found.text) == bool(quota)


def test_saves_that_stay_need_room(tmp_path: Path) -> None:
    def needed(name: str, **settings: Any) -> float:
        text = findings(tmp_path / name, settings=settings)["disk"].text
        return float(text.split(" GB needed")[0].replace(",", ""))

    usual, save = needed("a"), 1_235_814_400 * 12 / 1e9
    assert needed("b", keep_every=20) == pytest.approx(usual + 5 * save, abs=0.3)
    assert needed("c", select="best") == pytest.approx(usual + save, abs=0.3)


def test_more_than_the_disk_has(tmp_path: Path) -> None:
    found = findings(tmp_path, num_hidden_layers=16_000_000)["disk"]
    assert found.level is Level.FAIL
    assert "its quota" not in found.text


def test_what_is_sealed_needs_no_room(tmp_path: Path) -> None:
    seal = Workspace(tmp_path / "work").entry("checkpoint", training("cpt", BASE).fingerprint).seal
    seal.parent.mkdir(parents=True)
    seal.write_text("{}")
    assert "needed for sft;" in findings(tmp_path)["disk"].text


def test_images_of_stages(tmp_path: Path) -> None:
    image = tmp_path / "train.sif"
    missing = findings(tmp_path / "a", image=str(image))["image of cpt, sft"]
    assert (missing.level, missing.text) == (Level.FAIL, f"there is no {image}")
    image.write_text("")
    assert findings(tmp_path / "b", image=str(image))["image of cpt, sft"].level is Level.OK
    named = findings(tmp_path / "c", image="nvcr.io#nvidia/nemo:25.09")["image of cpt, sft"]
    assert (named.level, named.text) == (
        Level.OK,
        "nvcr.io#nvidia/nemo:25.09: from a registry, which nodes ask; not looked at",
    )


def test_secrets_of_the_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    missing = findings(tmp_path / "a", pipeline="secrets: [WANDB_API_KEY]\n")["secret"]
    assert (missing.level, missing.where) == (Level.FAIL, f"{tmp_path}/a/p.yaml:5:11")
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert findings(tmp_path / "b", pipeline="secrets: [WANDB_API_KEY]\n")["secret"].level is Level.OK
