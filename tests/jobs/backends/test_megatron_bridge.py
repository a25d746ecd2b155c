"""What ``megatron_bridge`` tells Megatron-Bridge 0.6.2, held against the names in its source. Nothing of it is run here."""

from __future__ import annotations

import ast
import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.backends.megatron_bridge import render, work
from jobs.backends.megatron_bridge.settings import BridgeSettings
from jobs.training.settings import BadSettings
from tests.support import megatron_fields, stages

TRAINING: dict[str, Any] = {"steps": 4, "lr": 1e-3, "batch_size": 4, "sequence_length": 32}
KNOWN = json.loads(megatron_fields.RECORD.read_text())
OPTIONS: dict[str, Any] = {
    "micro_batch_size": 1, "warmup_steps": 1, "schedule": "cosine", "weight_decay": 0.1, "max_grad_norm": 1.0, "seed": 3,
    "save_every": 2, "precision": "bf16", "tensor_parallel": 2, "pipeline_parallel": 2, "sequence_parallel": True,
}  # fmt: skip


def rendered(root: Path, kind: str, restore: bool = False, **changes: Any) -> dict[str, Any]:
    inputs = {"checkpoint": root / "model", "data": root / "data"}
    formats = {"checkpoint": "megatron", "data": "corpus" if kind == "cpt" else "instructions"}
    given = stages.stage(root / kind, kind, "megatron_bridge", {**TRAINING, **changes}, inputs, formats)
    return render.of_stage(given.spec, 4, 30, root / "save" if restore else None)


@pytest.mark.parametrize("kind", ["cpt", "sft"])
@pytest.mark.parametrize("changes", [{}, OPTIONS], ids=["plain", "options"])
def test_every_key_is_a_field_of_the_class_that_takes_it(tmp_path: Path, kind: str, changes: dict[str, Any]) -> None:
    found = rendered(tmp_path, kind, restore=bool(changes), **changes)
    assert set(found) <= set(KNOWN["fields"][""])
    for section, values in found.items():
        if not isinstance(values, dict):
            continue
        place = f"dataset.{kind}" if section == "dataset" else section
        inner = values.pop("preprocessing", None) if section == "dataset" else None
        assert set(values) <= set(KNOWN["fields"][place]), section
        if inner is not None:
            assert set(inner) <= set(KNOWN["fields"]["dataset.sft.preprocessing"])


def test_the_calls_of_training_and_conversion_have_these_parameters() -> None:
    """Keywords, and no more arguments than there are parameters."""
    seen = set()
    for call in ast.walk(ast.parse(inspect.getsource(work))):
        if not isinstance(call, ast.Call):
            continue
        name = ast.unparse(call.func).rpartition(".")[2]
        if name not in KNOWN["parameters"]:
            continue
        seen.add(name)
        parameters = [each for each in KNOWN["parameters"][name] if each not in ("self", "cls")]
        assert len(call.args) <= len(parameters)
        assert {each.arg for each in call.keywords} <= set(parameters)
    assert seen == {"from_hf_config", "to_megatron_provider", "import_ckpt", "export_ckpt"}
    assert all(KNOWN["parameters"][name][:2] == ["config", "forward_step_func"] for name in ("pretrain", "finetune"))


@pytest.mark.network
def test_the_record_is_what_the_wheels_say(tmp_path: Path) -> None:
    """They are read as data and not installed: their Python is another one, and they need a GPU's libraries."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--python-version",
        "3.12",
        "--dest",
        str(tmp_path),
    ]
    platforms = [word for tag in ("manylinux_2_28_x86_64", "any") for word in ("--platform", tag)]
    done = subprocess.run(
        [*command, *platforms, *megatron_fields.WHEELS], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        pytest.skip(f"no wheels of Megatron-Bridge from pip: {done.stderr.strip().splitlines()[-1][:200]}")
    assert megatron_fields.read(tmp_path) == {name: KNOWN[name] for name in ("fields", "parameters")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "wsd"}, "one of constant, linear, cosine"),
        ({"sequence_parallel": True}, "needs tensor_parallel"),
        ({"micro_batch_sise": 2}, "did you mean 'micro_batch_size'"),
        ({"tensor_parallel": 3}, "tensor_parallel x pipeline_parallel x context_parallel = 3 does not divide 4"),
    ],
)
def test_settings_are_refused_with_a_reason(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSettings, match=message):
        BridgeSettings.read({**TRAINING, **changes}).micro(4)


@pytest.mark.train
def test_more_than_one_epoch_of_a_corpus_is_refused(tmp_path: Path) -> None:
    """Megatron shuffles all epochs as one. Text without ids is tokenised, as in the other back ends."""
    from data_prep.tokens import indexed
    from jobs.training.examples import ExamplesError

    stages.make_tokenizer(tmp_path / "model/output/hf")
    rows = [{"id": str(number), "text": f"Ecrã inicial {number}"} for number in range(40)]
    stages.write_rows(tmp_path / "data/output/train.jsonl", rows)
    inputs = {"checkpoint": tmp_path / "model", "data": tmp_path / "data"}
    formats = {"checkpoint": "megatron", "data": "corpus"}
    ctx = stages.quiet_context(tmp_path)

    def prefix(steps: int) -> Path:
        settings = {**TRAINING, "steps": steps}
        given = stages.stage(tmp_path / str(steps), "cpt", "megatron_bridge", settings, inputs, formats)
        return work._one_epoch(given.spec, BridgeSettings.read(settings), ctx)

    held = indexed.Indexed(prefix(1))
    assert len(held) == 40
    whole = (int(held.lengths.sum()) - 1) // TRAINING["sequence_length"] // TRAINING["batch_size"]
    assert prefix(whole)
    with pytest.raises(ExamplesError, match=rf"shuffles several epochs as one: lower steps to at most {whole}"):
        prefix(whole + 1)


@pytest.mark.train
def test_weights_that_were_mixed_up_on_the_way_are_found(tmp_path: Path, base: Path) -> None:
    """What a conversion is held to: the same logits after the way there and back."""
    from safetensors.torch import load_file, save_file

    from jobs.training.gguf import ConversionFailed, compare_directories

    back = shutil.copytree(base / "output", tmp_path / "back")
    assert compare_directories(base / "output", back)["logit_difference"] == 0.0
    weights = load_file(back / "model.safetensors")
    one, other = (f"model.layers.{layer}.self_attn.k_proj.weight" for layer in (0, 1))
    weights[one], weights[other] = weights[other], weights[one]
    save_file(weights, back / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConversionFailed, match="logits differ by"):
        compare_directories(base / "output", back)
