"""The real NeMo on a tiny Llama, on the CPU: import, training, a stop, exact resume, SFT, export, logits.

Needs an environment of its own (its pins exclude ours): ``make venv-nemo``, or OVERNIGHT_NEMO_VENV=/path.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from jobs.backends import nemo as nemo_backend
from jobs.backends.nemo import compat, layout
from jobs.backends.nemo.settings import NemoSettings
from jobs.training.schedule import learning_rate_factor
from jobs.training.settings import BadSettings
from tests.support import stages
from tests.support.environments import IN_NEMO, publish, start

TRAINING: dict[str, Any] = {
    "steps": 4, "lr": 1e-3, "batch_size": 4, "sequence_length": 32, "micro_batch_size": 2, "save_every": 2, "seed": 3,
    "warmup_steps": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({}, ""),
        ({"numpy": "2.2.0"}, r"megatron-core 0\.15\.3 does not work with numpy 2\.2\.0: pip install 'numpy<2'"),
        ({"megatron-core": "0.16.1"}, "pip install 'megatron-core<0.16'"),
        ({"nemo_toolkit": "3.0.0"}, "pip install '<3'"),
        ({"torch": None}, "torch is not installed"),
    ],
)
def test_a_set_that_cannot_work_is_refused(
    changed: dict[str, Any], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {
        "nemo_toolkit": "2.7.3", "megatron-core": "0.15.3", "torch": "2.13.0", "transformers": "4.57.6",
        "lightning": "2.4.0", "numpy": "1.26.4", **changed,
    }  # fmt: skip

    def version(name: str) -> str:
        if there.get(name) is None:
            raise metadata.PackageNotFoundError(name)
        return str(there[name])

    monkeypatch.setattr(metadata, "version", version)
    if problem:
        with pytest.raises(ImportError, match=problem):
            nemo_backend.probe()
    else:
        assert "numpy" not in nemo_backend.probe()


@pytest.mark.full
def test_import_train_stop_resume_tune_export(tmp_path: Path, data: Path, base: Path, nemo: Path) -> None:
    imported = stages.stage(tmp_path / "import", "convert", "nemo", {}, {"source": base}, {"source": "hf"})
    metrics = start(nemo, imported)["metrics"]
    assert metrics["logit_difference"] <= metrics["logit_tolerance"]
    model = publish(imported)
    formats = {"checkpoint": "nemo", "data": "corpus"}
    inputs = {"checkpoint": model, "data": data / "corpus"}

    whole = stages.stage(tmp_path / "whole", "cpt", "nemo", TRAINING, inputs, formats)
    assert start(nemo, whole)["outcome"] == "done"
    cut = stages.stage(tmp_path / "cut", "cpt", "nemo", TRAINING, inputs, formats)
    stopped = start(nemo, cut, stop_after=3)
    assert (stopped["outcome"], stopped["step"]) == ("stopped", 3)
    again = start(nemo, cut)
    assert (again["outcome"], again["step"]) == ("done", 4)
    assert {"event": "resumed", "step": 3, "path": str(cut.spec.store_paths.save(3))} in again["events"]
    assert cut.losses() == whole.losses()  # to the last bit

    tuned = stages.stage(
        tmp_path / "sft",
        "sft",
        "nemo",
        TRAINING,
        {"checkpoint": publish(cut), "data": data / "instructions"},
        {"checkpoint": "nemo", "data": "instructions"},
    )
    assert start(nemo, tuned)["outcome"] == "done"
    exported = stages.stage(tmp_path / "export", "convert", "nemo", {}, {"source": publish(tuned)}, {"source": "nemo"})
    metrics = start(nemo, exported)["metrics"]
    assert metrics["logit_difference"] <= metrics["logit_tolerance"]
    output = exported.spec.store_paths.partial
    assert (output / "model.safetensors").is_file()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (output / name).read_bytes() == (base / "output" / name).read_bytes()


@pytest.mark.full
def test_a_bf16_model_keeps_its_type(tmp_path: Path, base: Path, nemo: Path) -> None:
    """The norms of Megatron's local layers are fp32 in a bf16 model, and NeMo copies between equal types only."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    given = tmp_path / "given"
    shutil.copytree(base, given)
    AutoModelForCausalLM.from_pretrained(base / "output", dtype=torch.bfloat16).save_pretrained(given / "output")
    imported = stages.stage(tmp_path / "import", "convert", "nemo", {}, {"source": given}, {"source": "hf"})
    metrics = start(nemo, imported)["metrics"]
    assert metrics["logit_difference"] <= metrics["logit_tolerance"]
    exported = stages.stage(
        tmp_path / "export", "convert", "nemo", {}, {"source": publish(imported)}, {"source": "nemo"}
    )
    metrics = start(nemo, exported)["metrics"]
    assert metrics["logit_difference"] <= metrics["logit_tolerance"]
    there, back = (
        AutoModelForCausalLM.from_pretrained(path, dtype="auto").state_dict()
        for path in (given / "output", exported.spec.store_paths.partial)
    )
    assert {value.dtype for value in back.values()} == {torch.bfloat16}
    assert all(torch.equal(there[name], value) for name, value in back.items())


@pytest.mark.full
def test_every_token_is_learned_and_the_mask_is_made_once(tmp_path: Path, nemo: Path) -> None:
    """Also the end of a document where it is the padding id; a mask for each sample would keep a GPU waiting."""
    script = IN_NEMO / "nemo_blocks.py"
    done = subprocess.run(
        [str(nemo), str(script), str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"left_out": 0, "made": 1}


def test_half_a_checkpoint_is_named(tmp_path: Path) -> None:
    assert "weights/.metadata is missing" in str(layout.problem(tmp_path))
    for name in layout.NEEDED:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert "weights/*.distcp is missing" in str(layout.problem(tmp_path))
    (tmp_path / "weights/__0_0.distcp").write_text("")
    assert layout.problem(tmp_path) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sequence_parallel": True}, "needs tensor_parallel"),
        ({"prompt_template": "x"}, "must have"),
        ({"recompute": "some"}, "one of none, selective, full"),
        ({"tensor_paralel": 2}, "did you mean 'tensor_parallel'"),
        ({"sequence_parallel": "yes"}, "must be true or false"),
        ({"fp8": "delayed"}, "fp8: delayed is a part of precision: bf16"),
        ({"fp8": "half", "precision": "bf16"}, "one of none, delayed, tensorwise"),
        ({"fp8": "tensorwise", "precision": "bf16", "lora_rank": 4}, "is not there with lora_rank"),
        ({"fp8": "delayed", "precision": "bf16", "sequence_length": 40}, "sequence_length 40 must be a multiple of 16"),
        ({"save_beside": True, "lora_rank": 4}, "saves of adapters are small: leave it out"),
    ],
)
def test_settings_are_refused_with_a_reason(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSettings, match=message):
        NemoSettings.read({**TRAINING, **changes})


@pytest.mark.parametrize(("gpu", "problem"), [((8, 0), "A100 has none"), (None, "none is seen here"), ((9, 0), "")])
def test_fp8_is_for_gpus_that_have_it(
    gpu: tuple[int, int] | None, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A100")
    with pytest.raises(BadSettings, match=problem) if problem else contextlib.nullcontext():
        compat.check_fp8()


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_learning_rate(schedule: str) -> None:
    settings = NemoSettings.read({**TRAINING, "steps": 10, "warmup_steps": 2, "schedule": schedule})
    curve = [learning_rate_factor(step, settings) for step in range(11)]
    assert curve[:3] == [0.0, 0.5, 1.0]
    assert curve[-1] == pytest.approx(1.0 if schedule == "constant" else 0.0)
    assert curve[2:] == sorted(curve[2:], reverse=True)


def test_one_changed_bit_of_a_weight_is_named() -> None:
    """Logits would not show it: their tolerance is 1e-4 of the largest."""
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    from jobs.training.gguf import ConversionFailed, compare_weights
    from jobs.training.models import digests

    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    ).bfloat16()
    expected = digests(model)
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} <= expected.keys()
    compare_weights(expected, {**digests(model.float()), "of the target alone": ""}, "target against source")
    with torch.no_grad():
        model.model.norm.weight[3] += 2**-23
    with pytest.raises(ConversionFailed, match=r"^target against source: 1 of 12 weights differ: model\.norm\.weight$"):
        compare_weights(expected, digests(model), "target against source")


def test_a_conversion_turns_tf32_off_before_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: Path) -> None:
    from jobs.backends import nemo as backend

    made = stages.stage(tmp_path / "import", "convert", "nemo", {}, {"source": base}, {"source": "hf"})
    seen: list[str | None] = []
    stand_in = ModuleType("jobs.backends.nemo.convert")
    stand_in.run = lambda spec, ctx: seen.append(os.environ.get("NVIDIA_TF32_OVERRIDE"))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jobs.backends.nemo.convert", stand_in)
    monkeypatch.setattr(backend, "convert", stand_in, raising=False)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    backend.run(made.spec, None)  # type: ignore[arg-type]
    assert seen == ["0"]
