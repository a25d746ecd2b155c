"""Adapters of the trl back end: stopped and resumed to the last bit, kept alone, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from safetensors.torch import load_file  # noqa: E402

from jobs import backends  # noqa: E402
from jobs.backends.trl.settings import TrainSettings  # noqa: E402
from jobs.training import interface, models, tokenizers  # noqa: E402
from jobs.training.settings import BadSettings  # noqa: E402
from launch.plan import memory  # noqa: E402
from tests.support import stages  # noqa: E402
from tests.support.stages import Stage  # noqa: E402

pytestmark = pytest.mark.train

SETTINGS: dict[str, Any] = {
    "steps": 6, "lr": 3e-3, "batch_size": 4, "micro_batch_size": 2, "sequence_length": 64, "seed": 3, "threads": 1,
    "lora_rank": 4,
}  # fmt: skip


def make(root: Path, kind: str, base: Path, data: Path, **changes: Any) -> Stage:
    return stages.stage(
        root, kind, "trl", {**SETTINGS, **changes}, {"checkpoint": base, "data": data / stages.DATA[kind]}
    )


@pytest.mark.parametrize(("kind", "more"), [("cpt", {"lora_dropout": 0.2}), ("dpo", {"lora_dora": True})])
def test_a_stop_changes_nothing(kind: str, more: dict[str, Any], tmp_path: Path, base: Path, data: Path) -> None:
    """Dropout and moments of the optimizer are those of a run without a stop; a save holds adapters only."""
    whole, parts = (make(tmp_path / name, kind, base, data, **more) for name in ("whole", "parts"))
    whole.start()
    assert parts.start(stop_after=3).outcome == "stopped"
    save = {path.name for path in parts.spec.store_paths.save(3).iterdir()}
    assert {"adapter_model.safetensors", "optimizer.pt", "seal.json"} <= save
    assert "model.safetensors" not in save
    parts.start()
    assert [event["step"] for event in parts.events if event["event"] == "resumed"] == [3]
    assert parts.losses() == whole.losses()
    expected, before = (load_file(place / "model.safetensors") for place in (whole.output, base / "output"))
    found = load_file(parts.output / "model.safetensors")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    changed = {name for name in found if not torch.equal(found[name], before[name])}
    assert changed == {name for name in found if "proj" in name}
    assert {path.name for path in whole.output.iterdir()} == {path.name for path in (base / "output").iterdir()}


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_another_number_of_processes_goes_on(before: int, after: int, tmp_path: Path, base: Path, data: Path) -> None:
    """Their save is that of every process: the losses are those of a run without a stop, but for rounding."""
    whole, parts = (make(tmp_path / name, "sft", base, data) for name in ("whole", "parts"))
    whole.start()
    stages.start_ranks(before, (parts, 3))
    stages.start_ranks(after, (parts, None))
    assert list(parts.losses()) == [1, 2, 3, 4, 5, 6]
    assert list(parts.losses().values()) == pytest.approx(list(whole.losses().values()), rel=1e-5)
    expected, found = (load_file(one.output / "model.safetensors") for one in (whole, parts))
    assert all(torch.allclose(tensor, expected[name], atol=1e-5) for name, tensor in found.items())


def test_adapters_alone(tmp_path: Path, base: Path, data: Path) -> None:
    """They are whole by the back end's rules, have the tokenizer, and beside their base are the merged model."""
    from peft import PeftModel

    alone, merged = (
        make(tmp_path / it, "sft", base, data, output=it, precision="bf16") for it in ("adapter", "merged")
    )
    for one in (alone, merged):
        one.start()
    backend = backends.load("trl")
    assert interface.completeness(backend, alone.output).problem is None
    assert interface.behaviour(backend, alone.output) == tokenizers.behaviour(base / "output")
    assert json.loads((alone.output / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        base / "output"
    )
    joined = PeftModel.from_pretrained(models.load_model(base / "output"), str(alone.output)).merge_and_unload()
    wanted = load_file(merged.output / "model.safetensors")
    state = joined.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in wanted.items())
    (alone.output / "adapter_model.safetensors").unlink()
    assert "adapter_model.safetensors is missing" in str(interface.completeness(backend, alone.output).problem)


def test_weights_in_four_bits(tmp_path: Path, base: Path, data: Path) -> None:
    """QLoRA learns, and its adapters are added to the weights of the base as they are, not as they were rounded. A stop
    changes nothing: adapters are fp32 from the first step."""
    pytest.importorskip("bitsandbytes")
    whole, parts = (make(tmp_path / name, "sft", base, data, lora_base="nf4", lora_dropout=0.1) for name in ("a", "b"))
    whole.start()
    parts.start(stop_after=3)
    parts.start()
    assert parts.losses() == whole.losses()
    made = make(tmp_path / "sft", "sft", base, data, lora_base="nf4", lora_targets=["q_proj"], steps=20)
    made.start()
    assert made.losses()[20] < made.losses()[1]
    found, before = (load_file(place / "model.safetensors") for place in (made.output, base / "output"))
    assert {name for name in found if not torch.equal(found[name], before[name])} == {
        f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)
    }


def test_what_is_refused(tmp_path: Path, base: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, changes, text in (
        ("sft", {"lora_rank": None, "lora_dora": True}, "lora_dora is for adapters: write lora_rank, too"),
        ("sft", {"lora_rank": None, "lora_alpha": 8}, "lora_alpha is for adapters"),
        ("sft", {"lora_rank": None, "output": "adapter"}, "output: adapter is for adapters"),
        ("dpo", {"lora_dropout": 0.1}, "TRL compares preferences without dropout"),
    ):
        with pytest.raises(BadSettings, match=text):
            TrainSettings.read({**SETTINGS, **changes}, kind)
    with pytest.raises(BadSettings, match="the model has no 'w_pack', but down_proj, gate_proj"):
        make(tmp_path / "other", "sft", base, data, lora_targets=["q_proj", "w_pack"]).start()
    monkeypatch.setattr(interface, "versions", lambda name: {})
    with pytest.raises(interface.Missing, match=r"lora_rank needs peft, .*: pip install peft"):
        TrainSettings.read(SETTINGS)


def test_the_estimate_counts_what_is_trained(base: Path) -> None:
    from jobs.backends.trl import adapters

    model = models.load_model(base / "output")
    counted = memory.model_of(model.config.to_dict())
    keeps = backends.load("trl").CAPABILITIES.memory
    assert counted is not None
    assert keeps is not None
    from peft import get_peft_model

    adapted = get_peft_model(model, adapters.configured(TrainSettings.read(SETTINGS), model))
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert counted.layers * counted.adapter_parameters(4, keeps.layers) == trained
    shape = memory.Shape(1, 4, 2, 64, "bf16", reference=True, lora_rank=4, lora_targets=keeps.layers)
    assert memory.memory(counted, shape, keeps).weights == 2 * counted.parameters + 4 * trained
