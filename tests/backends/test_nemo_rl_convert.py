"""A distributed checkpoint, as NeMo-RL writes it, becomes a Hugging Face directory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch
import torch.distributed.checkpoint as dcp
from transformers import AutoModelForCausalLM

from jobs import tokenizers
from jobs.backends import BrokenCheckpoint
from jobs.backends.nemo_rl import convert
from jobs.convert import ConversionFailed

pytestmark = pytest.mark.train


@pytest.fixture
def trained(tmp_path: Path, base: Path) -> Path:
    """The output of a DPO stage: other weights than the base's, wrapped as the first DTensor worker does."""
    source = base / "output"
    made = tmp_path / "dcp"
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
    assert not (trained / "weights.pt").exists()
    assert sorted(entry.name for entry in trained.iterdir()) == ["config.yaml", "hf", "policy", "training_info.json"]


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
