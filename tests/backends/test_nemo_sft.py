"""Adapters (LoRA) and packed sequences of back end ``nemo``, on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jobs.backends.nemo.packs import packed
from jobs.backends.nemo.settings import NemoSettings
from jobs.settings import BadSettings
from tests.backends import stages
from tests.backends.environments import publish, start

HERE = Path(__file__).parent
TRAINING: dict[str, Any] = {
    "steps": 4, "lr": 1e-2, "batch_size": 4, "sequence_length": 64, "save_every": 2, "seed": 3, "warmup_steps": 1,
}  # fmt: skip
FORMATS = {"checkpoint": "nemo", "data": "instructions"}


def run_script(python: Path, name: str, *arguments: object) -> dict[str, Any]:
    """The JSON line that a script beside this file prints."""
    done = subprocess.run(
        [str(python), str(HERE / name), *map(str, arguments)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_merged_adapters_are_the_model_with_adapters(imported: Path, nemo: Path) -> None:
    found = run_script(nemo, "nemo_lora.py", imported / "output")
    assert found["changed"] > 0.1
    assert found["difference"] < 1e-5
    assert found["beside"] == ["linear_fc1", "linear_fc2", "linear_proj", "linear_qkv"]
    # 2 layers; inputs and outputs of the four: 64 + 128, 64 + 64, 64 + 256, 128 + 64; rank 4
    assert found["trained"] == 2 * 4 * (192 + 128 + 320 + 192)
    assert found["same_names"]


def test_packed_rows_are_learned_as_if_alone(tmp_path: Path, data: Path, imported: Path, nemo: Path) -> None:
    """No row sees another, and positions start again: learned ones would give other losses otherwise."""
    settings = {"steps": 1, "lr": 1.0, "batch_size": 2, "sequence_length": 64}
    found = run_script(
        nemo, "nemo_packs.py", json.dumps(settings), data / "instructions", imported / "output", tmp_path
    )
    assert found["starts"][0] == 0
    assert found["starts"][-1] == 64
    assert len(found["learned"]) == 3  # rows of this sequence
    assert min(found["learned"]) > 1
    for losses in found["losses"].values():
        for together, alone in zip(losses["packed"], losses["alone"], strict=True):
            assert together == pytest.approx(alone, abs=1e-4)
    assert {"cu_seqlens", "cu_seqlens_argmin", "max_seqlen"} <= set(found["keys"])
    assert found["shapes"] == {"tokens": [1, 64], "attention_mask": [1, 1, 64, 64]}
    lines, facts = found["lines"], found["facts"]
    assert sorted(found["order"]) == sorted(set(found["order"]))
    assert (facts["packed_rows"], facts["packed_sequences"]) == (24, len(lines))
    assert sum(len(line["seq_start_id"]) for line in lines) == 24
    taken = sum(len(line["input_ids"]) - len(line["seq_start_id"]) for line in lines)
    assert facts["packed_fill"] == pytest.approx(taken / (64 * len(lines)), abs=1e-4)


@pytest.mark.full
@pytest.mark.parametrize("packing", [{"micro_batch_size": 2}, {"packed": True}], ids=["pairs", "packed"])
def test_adapters_resume_to_the_bit_and_finish_merged(
    tmp_path: Path, data: Path, base: Path, imported: Path, nemo: Path, packing: dict[str, Any]
) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    settings = {
        **TRAINING,
        **packing,
        "lora_rank": 4,
        "lora_dropout": 0.1,
        "lora_targets": ["linear_qkv", "linear_fc2"],
    }
    inputs = {"checkpoint": imported, "data": data / "instructions"}
    whole = stages.stage(tmp_path / "whole", "sft", "nemo", settings, inputs, FORMATS)
    result = start(nemo, whole)
    assert result["metrics"]["trained_parameters"] == 2 * 4 * (192 + 192)
    if settings.get("packed"):
        assert 0.5 < result["metrics"]["packed_fill"] <= 1
        assert result["events"][0]["event"] == "packed"
    cut = stages.stage(tmp_path / "cut", "sft", "nemo", settings, inputs, FORMATS)
    assert start(nemo, cut, stop_after=3)["outcome"] == "stopped"
    assert kept_of(cut.spec.store_paths.save(3)) == {"adapter", "optimizer"}
    again = start(nemo, cut)
    assert {"event": "resumed", "step": 3, "path": str(cut.spec.store_paths.save(3))} in again["events"]
    assert cut.losses() == whole.losses()

    exported = stages.stage(tmp_path / "export", "convert", "nemo", {}, {"source": publish(cut)}, {"source": "nemo"})
    start(nemo, exported)
    before, after = (
        load_file(path / "model.safetensors") for path in (base / "output", exported.spec.store_paths.partial)
    )
    changed = {name.split(".")[-2] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"q_proj", "k_proj", "v_proj", "down_proj"}


def kept_of(save: Path) -> set[str]:
    """What the tensors of a save belong to."""
    from torch.distributed.checkpoint import FileSystemReader

    names = FileSystemReader(save / "weights").read_metadata().state_dict_metadata
    kinds = {"optimizer": "optimizer.", "adapter": ".adapter."}
    return {next((kind for kind, part in kinds.items() if part in name), name) for name in names}


@pytest.mark.full
def test_recomputed_layers_learn_as_others_do(tmp_path: Path, data: Path, imported: Path, nemo: Path) -> None:
    """Behind a frozen embedding a recomputed layer would get no gradient, and nothing would say so."""
    inputs = {"checkpoint": imported, "data": data / "instructions"}
    losses = []
    for recompute in ("none", "full"):
        settings = {**TRAINING, "steps": 3, "lora_rank": 4, "recompute": recompute}
        made = stages.stage(tmp_path / recompute, "sft", "nemo", settings, inputs, FORMATS)
        start(nemo, made)
        losses.append(made.losses())
    assert losses[0] == losses[1]


@pytest.mark.full
def test_two_processes_of_one_model_learn_what_one_does(tmp_path: Path, data: Path, imported: Path, nemo: Path) -> None:
    """Adapters spread over two processes, resumed there and merged, are those of one process."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    inputs = {"checkpoint": imported, "data": data / "instructions"}
    weights = []
    for ranks in (1, 2):
        settings = {**TRAINING, "micro_batch_size": 2, "lora_rank": 4, "tensor_parallel": ranks}
        made = stages.stage(tmp_path / f"sft{ranks}", "sft", "nemo", settings, inputs, FORMATS)
        if ranks == 2:
            assert start(nemo, made, stop_after=2, ranks=2)["outcome"] == "stopped"
        assert start(nemo, made, ranks=ranks)["outcome"] == "done"
        exported = stages.stage(
            tmp_path / f"export{ranks}", "convert", "nemo", {}, {"source": publish(made)}, {"source": "nemo"}
        )  # fmt: skip
        start(nemo, exported)
        weights.append(load_file(exported.spec.store_paths.partial / "model.safetensors"))
    assert all(torch.allclose(value, weights[1][name], atol=1e-4) for name, value in weights[0].items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_alpha": 32}, "write lora_rank, too"),
        ({"lora_dropout": 0.1}, "write lora_rank, too"),
        ({"lora_targets": ["linear_qkv"]}, "write lora_rank, too"),
        ({"lora_rank": 0}, "lora_rank must be at least 1"),
        ({"lora_rank": 8, "lora_dropout": 1.0}, "below 1"),
        ({"lora_rank": 8, "lora_targets": []}, "leave it out for all of linear_qkv"),
        ({"lora_rank": 8, "lora_targets": ["q_proj"]}, "q_proj is a part of linear_qkv here"),
        ({"lora_rank": 8, "lora_targets": ["lm_head"]}, "one of linear_qkv"),
        ({"lora_rank": 8, "lora_targets": "linear_qkv"}, "list of texts"),
        ({"lora_rank": 6, "tensor_parallel": 4}, "lora_rank 6 must be a multiple of tensor_parallel 4"),
        ({"packed": True, "micro_batch_size": 2}, "sequence_length 128 takes as many tokens"),
        ({"packed": True, "context_parallel": 2}, "context_parallel above 1"),
        ({"packed": "yes"}, "true or false"),
    ],
)
def test_settings_are_refused_with_what_to_write(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSettings, match=message):
        NemoSettings.read({**TRAINING, **changes})


def test_only_sft_is_packed() -> None:
    with pytest.raises(BadSettings, match="kind cpt is always full"):
        NemoSettings.read({**TRAINING, "packed": True}, "cpt")


def test_settings_of_adapters() -> None:
    found = NemoSettings.read({**TRAINING, "lora_rank": 8, "lora_targets": ["linear_qkv"]})
    assert (found.alpha, found.lora_targets) == (8, ("linear_qkv",))
    assert NemoSettings.read({**TRAINING, "lora_rank": 8, "lora_alpha": 16}).alpha == 16
    assert NemoSettings.read({**TRAINING, "packed": True}).micro_of(2) == 1


def test_rows_are_packed_once_and_fit() -> None:
    lengths = [7, 2, 5, 5, 3, 8, 1, 1]
    found = packed(lengths, 8)
    assert sorted(row for group in found for row in group) == list(range(len(lengths)))
    assert [sum(lengths[row] for row in group) for group in found] == [8, 8, 8, 8]
    assert found == packed(lengths, 8)
