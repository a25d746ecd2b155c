"""Architectures beside Llama (``test_nemo.py``): random weights into NeMo and back, on the CPU."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.training import rope
from jobs.training.rope import readable, with_old_names
from tests.support import stages
from tests.support.environments import Starts

SIZES: dict[str, Any] = {
    "vocab_size": 400, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"tie_word_embeddings": False}),
    "llama-rotary": ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": False}),
    "qwen2-tied": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"tie_word_embeddings": True, "head_dim": 128}),
    "mistral": ("Mistral", {"tie_word_embeddings": False, "head_dim": 16, "sliding_window": None}),
    "mistral-window": ("Mistral", {"tie_word_embeddings": False, "head_dim": 16, "sliding_window": 4}),
}
"""Name -> what transformers calls it, and what its configuration has beside ``SIZES``."""


def make_model(output: Path, family: str, **changes: Any) -> None:
    torch = pytest.importorskip("torch")
    import transformers

    stages.make_tokenizer(output)
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SIZES, **changes)
    getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(output)


@dataclass
class Converted:
    """Each model before and after (name -> directory), and what import and export came to."""

    results: dict[str, list[dict[str, Any]]]
    before: dict[str, Path]
    inside: dict[str, Path]
    after: dict[str, Path]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, nemo: Path) -> Converted:
    root = tmp_path_factory.mktemp("models")
    starts = Starts(root)
    places: dict[str, list[Path]] = {}
    for name, (family, changes) in MODELS.items():
        make_model(root / f"{name}-base/output", family, **changes)
        source, form = root / f"{name}-base", "hf"
        places[name] = [source / "output"]
        for part in ("nemo", "hf"):
            made = stages.stage(root / f"{name}-{part}", "convert", "nemo", {}, {"source": source}, {"source": form})
            starts.add(made, publish=True)
            starts.plan[-1]["fails"] = True
            source, form = made.spec.store_paths.root, "nemo"
            places[name].append(made.spec.store_paths.output)
    found = starts.run(nemo)
    results = {name: found[2 * place : 2 * place + 2] for place, name in enumerate(MODELS)}
    before, inside, after = ({name: places[name][which] for name in MODELS} for which in range(3))
    return Converted(results, before, inside, after)


@pytest.mark.full
@pytest.mark.parametrize("name", list(MODELS))
def test_the_logits_are_those_of_transformers(converted: Converted, name: str) -> None:
    """Of NeMo's environment for the model inside NeMo, and of ours for the model that comes out."""
    import torch
    from transformers import AutoModelForCausalLM

    for result in converted.results[name]:
        assert "output" not in result, result["output"]
        assert result["metrics"]["logit_difference"] < 1e-5
    ids = torch.arange(3, 67)[None]
    with torch.inference_mode():
        before, after = (
            AutoModelForCausalLM.from_pretrained(place).eval()(ids).logits
            for place in (converted.before[name], converted.after[name])
        )
    assert float((before - after).abs().max()) < 1e-5


@pytest.mark.full
def test_rotary_positions_are_those_of_the_model(converted: Converted) -> None:
    """The transformers of NeMo's environment reads a base of 10000 from what ours wrote."""
    for name, base in (("llama", 10000.0), ("llama-rotary", 500000.0)):
        (line,) = (
            line
            for line in (converted.inside[name] / "context/model.yaml").read_text().splitlines()
            if "rotary_base" in line
        )
        assert float(line.split(":")[1]) == base


def test_both_ways_of_writing_rotary_positions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rope.metadata, "version", lambda name: "4.57.6")
    old = {"rope_theta": 1.0, "hidden_size": 4}
    assert with_old_names(old) == old
    scaled = {"rope_parameters": {"rope_theta": 5.0, "rope_type": "llama3", "factor": 8.0}}
    assert with_old_names(scaled) == {
        **scaled,
        "rope_theta": 5.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
    }
    for name, text in (("config.json", json.dumps({"rope_parameters": {"rope_theta": 5.0}})), ("weights", "w")):
        (tmp_path / name).write_text(text)
    made = readable(tmp_path)
    assert json.loads((made / "config.json").read_text())["rope_theta"] == 5.0
    assert (made / "weights").read_text() == "w"
    assert readable(made) == made
    monkeypatch.setattr(rope.metadata, "version", lambda name: "5.0.0")
    assert readable(tmp_path) == tmp_path
