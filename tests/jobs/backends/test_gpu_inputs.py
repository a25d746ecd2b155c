"""The random model of the runs on a GPU machine can be trained: no layer of it blows a gradient up."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.train
def test_a_sequence_that_begins_with_the_end_of_a_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "gpu"))
    monkeypatch.delitem(sys.modules, "inputs", raising=False)
    import inputs

    inputs.write_model(tmp_path / "base", replace(inputs.SIZES["tiny"], layers=12))
    model = transformers.AutoModelForCausalLM.from_pretrained(str(tmp_path / "base"))
    ids = torch.tensor([[model.config.eos_token_id, 5, 6, 7, 8, 9]])
    # Not through the embedding, which gives its padding id no gradient; Megatron's has no padding id.
    vectors = model.get_input_embeddings().weight[ids].detach().requires_grad_()
    model(inputs_embeds=vectors, labels=ids).loss.backward()
    assert vectors.grad.abs().max() < 1e3  # 1e26 with a padding id
