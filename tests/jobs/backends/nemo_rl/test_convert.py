"""A distributed checkpoint, as NeMo-RL writes it, becomes a Hugging Face directory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from jobs.backends.nemo_rl import convert
from jobs.training import tokenizers
from jobs.training.gguf import ConversionFailed
from jobs.training.interface import BrokenCheckpoint

pytestmark = pytest.mark.train


@pytest.fixture
def trained(tmp_path: Path, base: Path) -> Path:
    return as_dcp(base / "output", tmp_path / "dcp")


def as_dcp(source: Path, made: Path) -> Path:
    """The output of a DPO stage: other weights than the base's, wrapped as the first DTensor worker does."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    (made / "policy/weights").mkdir(parents=True)
    dcp.save({"model": dict(model.state_dict())}, checkpoint_id=made / "policy/weights", no_dist=True)
    (made / "config.yaml").write_text("")
    (made / "training_info.json").write_text('{"total_steps": 4}')
    (made / "hf").mkdir()
    tokenizers.carry_over(source, made / "hf")
    shutil.copyfile(source / "config.json", made / "hf/config.json")
    return made


def test_weights_and_tokenizer_arrive(tmp_path: Path, base: Path, trained: Path) -> None:
    output = tmp_path / "hf"
    metrics = convert.dcp_to_hf(trained, output)
    assert metrics["logit_difference"] <= metrics["logit_tolerance"]
    assert (output / "model.safetensors").is_file()
    assert not list(output.glob("*.bin"))
    found = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32).state_dict()
    given = AutoModelForCausalLM.from_pretrained(base / "output", dtype=torch.float32).state_dict()
    for name, value in given.items():
        assert torch.equal(found[name], value + 0.01)
    assert (output / "tokenizer.json").read_bytes() == (base / "output/tokenizer.json").read_bytes()
    assert metrics["tensors_read_again"] == convert.READ_AGAIN
    assert sorted(entry.name for entry in trained.iterdir()) == ["config.yaml", "hf", "policy", "training_info.json"]


def test_a_bf16_model_differs_by_nothing(tmp_path: Path, base: Path) -> None:
    """Casting the model as a whole rounded the frequencies of its rotary positions on one side only."""
    source = tmp_path / "bf16"
    model = AutoModelForCausalLM.from_pretrained(base / "output", dtype=torch.bfloat16)
    for name, parameter in model.named_parameters():
        if "q_proj" in name or "k_proj" in name:  # attention that looks somewhere: with random weights it does not
            parameter.data.mul_(20)
    model.save_pretrained(source)
    tokenizers.carry_over(base / "output", source)
    trained = as_dcp(source, tmp_path / "dcp")
    metrics = convert.dcp_to_hf(trained, tmp_path / "hf")
    assert metrics["logit_difference"] < 1e-5
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert found.dtype is torch.bfloat16
    given = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).state_dict()
    for name, value in found.state_dict().items():
        assert torch.equal(value, (given[name] + 0.01).to(torch.bfloat16))


def test_a_tensor_that_is_another_than_in_the_checkpoint_is_found(tmp_path: Path, trained: Path) -> None:
    """The logits cannot show it: source and target have the same names for their weights."""
    output = tmp_path / "hf"
    convert.dcp_to_hf(trained, output)
    tensors = load_file(output / "model.safetensors")
    names = convert.spread(sorted(tensors), convert.READ_AGAIN)
    tensors[names[-1]] = tensors[names[-1]] + 1e-3
    save_file(tensors, output / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConversionFailed, match=f"{names[-1]} is not what the files of"):
        convert.compare_tensors(trained / "policy/weights", output)


def test_half_a_checkpoint_is_refused(tmp_path: Path, trained: Path) -> None:
    (trained / "policy/weights/.metadata").unlink()
    with pytest.raises(BrokenCheckpoint, match="metadata is missing"):
        convert.dcp_to_hf(trained, tmp_path / "hf")


def test_weights_of_another_model_are_refused(tmp_path: Path, trained: Path) -> None:
    shutil.rmtree(trained / "policy/weights")
    (trained / "policy/weights").mkdir()
    dcp.save({"model": {"other.weight": torch.ones(2)}}, checkpoint_id=trained / "policy/weights", no_dist=True)
    with pytest.raises(ConversionFailed, match="do not fit"):
        convert.dcp_to_hf(trained, tmp_path / "hf")
