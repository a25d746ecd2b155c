"""Estimates against published numbers, and against what torch keeps and the TRL back end writes on this machine."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs import backends
from jobs.core.capabilities import Memory
from launch.plan import memory as estimate
from launch.plan.estimates import PEAK
from launch.plan.memory import Model, Shape, model_of
from tests.support.llamas import LLAMA_1B

ROOT = Path(__file__).resolve().parents[3]


def kept_by(backend: str, packages: set[str], settings: dict[str, Any]) -> Memory:
    """By what the back end declares."""
    declared = backends.load(backend).CAPABILITIES.memory
    return estimate.with_settings(declared and declared.installed(packages), settings)


LLAMA = {"model_type": "llama", "vocab_size": 128256}
MEASURED = Memory({"fp32": (4, 4, 8), "bf16": (4, 4, 8)})


@pytest.mark.parametrize(
    ("config", "parameters"),
    [  # as the model cards and ``safetensors`` headers on the hub say
        (
            LLAMA_1B,
            1_235_814_400,
        ),
        (
            {
                **LLAMA,
                "num_hidden_layers": 28,
                "hidden_size": 3072,
                "num_attention_heads": 24,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "intermediate_size": 8192,
                "tie_word_embeddings": True,
            },
            3_212_749_824,
        ),
        (
            {
                **LLAMA,
                "num_hidden_layers": 32,
                "hidden_size": 4096,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "intermediate_size": 14336,
            },
            8_030_261_248,
        ),
        (
            {
                "model_type": "llama",
                "vocab_size": 49152,
                "num_hidden_layers": 30,
                "hidden_size": 576,
                "num_attention_heads": 9,
                "num_key_value_heads": 3,
                "intermediate_size": 1536,
                "tie_word_embeddings": True,
            },
            134_515_008,
        ),
        (
            {
                "model_type": "qwen2",
                "vocab_size": 151936,
                "num_hidden_layers": 24,
                "hidden_size": 896,
                "num_attention_heads": 14,
                "num_key_value_heads": 2,
                "intermediate_size": 4864,
                "tie_word_embeddings": True,
            },
            494_032_768,
        ),
        (
            {
                "model_type": "qwen3",
                "vocab_size": 151936,
                "num_hidden_layers": 28,
                "hidden_size": 1024,
                "num_attention_heads": 16,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "intermediate_size": 3072,
                "tie_word_embeddings": True,
            },
            596_049_920,
        ),
    ],
    ids=["Llama-3.2-1B", "Llama-3.2-3B", "Llama-3-8B", "SmolLM2-135M", "Qwen2.5-0.5B", "Qwen3-0.6B"],
)
def test_parameters_of_published_models(config: dict[str, Any], parameters: int) -> None:
    model = model_of(config)
    assert model is not None
    assert model.parameters == parameters


def test_an_architecture_that_is_not_known_has_no_estimate() -> None:
    assert model_of({"model_type": "mamba"}) is None


GPT = Model(
    layers=96, hidden=12288, heads=96, groups=96, head=128, ffn=4 * 12288, vocabulary=51200, tied=True, gated=False
)


@pytest.mark.parametrize("tensor", [1, 8])
@pytest.mark.parametrize("sequence_parallel", [False, True])
@pytest.mark.parametrize("recompute", ["none", "selective"])
def test_activations_of_megatron(tensor: int, sequence_parallel: bool, recompute: str) -> None:
    """Korthikanti et al., table 2, for the GPT-3 of 175 billion parameters."""
    shape = Shape(tensor, 1, 1, 2048, "bf16", tensor=tensor, sequence_parallel=sequence_parallel, recompute=recompute)
    keeps = replace(MEASURED, fused=True, scores=True)
    sbh, t = 2048 * 12288, tensor
    scores = 0 if recompute == "selective" else 5 * 96 * 2048 / 12288 / t
    wanted = sbh * ((34 / t if sequence_parallel else 10 + 24 / t) + scores)
    assert estimate.layer_activations(GPT, shape, keeps, dropout=True) == pytest.approx(wanted)


def test_bytes_of_a_parameter() -> None:
    """16 with plain Adam (ZeRO, section 3.1), 18 with gradients in fp32, and 6 + 12/d sharded (Megatron-LM)."""
    shape = Shape(8, 8, 1, 1, "bf16")
    for packages, wanted in ((set(), 18.0), ({"transformer_engine"}, 6 + 12 / 8)):
        keeps = kept_by("nemo", packages, {})
        found = estimate.memory(GPT, shape, keeps)
        states = found.weights + found.gradients + found.optimizer
        assert states / GPT.parameters == pytest.approx(wanted, rel=1e-6)
    for precision, wanted in (("fp32", 16), ("bf16", 18)):  # the copies by which autocast computes
        found = estimate.memory(GPT, replace(shape, world=1, precision=precision), kept_by("trl", set(), {}))
        assert (found.weights + found.gradients + found.optimizer) / GPT.parameters == pytest.approx(wanted)


def test_flops_of_a_token_and_of_a_frozen_model() -> None:
    """GPT-3: 175 billion parameters are about 1.05e12 FLOPs a token (6 N), and little more for attention."""
    shape = Shape(1, 1, 1, 2048)
    token = estimate.step_flops(GPT, shape) / 2048
    assert 6 * 174.0e9 < token < 6 * 182e9
    assert estimate.step_flops(GPT, replace(shape, reference=True)) == pytest.approx(token * 2048 * 4 / 3)


def test_time_of_a_step_on_a_gpu() -> None:
    """Stages measured on an H100 lie in the range that is shown before any run of their shape, and steps are even
    enough that those of one run tell those of the next within 15 %."""
    found = json.loads((ROOT / "benchmarks/gpu/results/h100-2026-11-24.json").read_text())
    for pair in found["throughput"]["pairs"]:
        by_hand, stage = (pair[name]["step_seconds"]["median"] for name in ("by_hand", "stage"))
        assert by_hand == pytest.approx(stage, rel=0.15)
    found = found["chain"]["cpt"]
    shape = estimate.shape_of("cpt", found["shape"], 1, 1)
    model = Model(layers=12, hidden=768, heads=12, groups=4, head=64, ffn=2304, vocabulary=1024, tied=True)
    assert model.parameters == found["parameters"]
    least, most = estimate.utilisation(kept_by("nemo", set(), {}))
    first, second = (start["step_seconds_median"] for start in found["starts"])
    work = estimate.step_flops(model, shape) / PEAK["h100"]
    assert work / most < first < work / least
    assert first == pytest.approx(second, rel=0.15)


def test_recomputation_tensor_and_pipeline_parallelism_save_memory() -> None:
    keeps = kept_by("nemo", set(), {})
    alone = estimate.memory(GPT, Shape(8, 8, 4, 2048, "bf16"), keeps)
    for change in (
        {"recompute": "selective"},
        {"recompute": "full"},
        {"tensor": 8},
        {"pipeline": 8},
        {"micro_batch": 1},
    ):
        assert estimate.memory(GPT, replace(Shape(8, 8, 4, 2048, "bf16"), **change), keeps).total < alone.total


@pytest.mark.parametrize(
    ("recompute", "micro", "length", "measured"),
    [("selective", 4, 2048, 44_708_592_128), ("full", 8, 2048, 38_345_577_472), ("none", 2, 1024, 29_959_770_624)],
)
def test_memory_against_what_was_measured_on_an_h100(recompute: str, micro: int, length: int, measured: int) -> None:
    """``torch.cuda.max_memory_allocated``, NeMo 2.7.3 without transformer_engine (benchmarks/gpu/results); what torch and
    CUDA take beside tensors is the reserve."""
    model = model_of(LLAMA_1B)
    assert model is not None
    shape = Shape(1, 16, micro, length, "bf16", recompute=recompute)
    found = estimate.memory(model, shape, kept_by("nemo", set(), {}))
    assert found.total == pytest.approx(measured, rel=0.15)
    assert found.total - found.reserve == pytest.approx(measured, rel=0.02)


def test_memory_of_a_small_model_against_what_was_measured_on_an_h100() -> None:
    """The CPT of the chain there: 83 million parameters, 16 x 1024 tokens."""
    model = Model(layers=12, hidden=768, heads=12, groups=4, head=64, ffn=2304, vocabulary=1024, tied=True)
    found = estimate.memory(model, Shape(1, 64, 16, 1024, "bf16"), kept_by("nemo", set(), {}))
    assert found.total == pytest.approx(14_591_039_488, rel=0.15)


RESULTS = ROOT / "benchmarks/gpu/results"
SHAPES = {
    "1b": {**LLAMA, "num_hidden_layers": 16, "hidden_size": 2048, "num_attention_heads": 32, "num_key_value_heads": 8,
           "head_dim": 64, "intermediate_size": 8192, "tie_word_embeddings": True},
    "3b": {**LLAMA, "num_hidden_layers": 28, "hidden_size": 3072, "num_attention_heads": 24, "num_key_value_heads": 8,
           "head_dim": 128, "intermediate_size": 8192, "tie_word_embeddings": True},
}  # fmt: skip


def of_trl(size: str, kind: str, settings: dict[str, Any], nodes: int = 1) -> estimate.MemoryEstimate:
    model, keeps = model_of(SHAPES[size]), kept_by("trl", set(), settings)
    assert model is not None
    shape = estimate.shape_of(kind, settings, nodes, 1)
    return estimate.memory(model, replace(shape, lora_targets=shape.lora_targets or keeps.layers), keeps)


@pytest.mark.parametrize("case", json.loads((RESULTS / "h200-2026-11-29-memory.json").read_text())["cases"], ids=str)
def test_memory_of_trl_against_what_was_measured_on_an_h200(case: dict[str, Any]) -> None:
    """Whole weights, FSDP2, adapters, recomputation and masks, by hand (benchmarks/gpu/memory.py): what tensors took."""
    found = of_trl(case["model"], case["kind"], case["settings"])
    assert found.total - found.reserve == pytest.approx(case["peak_memory_bytes"], rel=0.06)


@pytest.mark.parametrize(("nodes", "measured"), [(1, 67_288_842_240), (2, 48_009_590_784)])
def test_memory_of_fsdp_on_one_gpu_and_two(nodes: int, measured: int) -> None:
    """Stages on H200 GPUs, when gradients were still added up in bf16: they take twice as much since, on each GPU."""
    settings = {"batch_size": 4, "micro_batch_size": 1, "sequence_length": 4096, "precision": "bf16", "shard": "full"}
    found = of_trl("3b", "cpt", settings, nodes)
    then = found.total - found.reserve - found.gradients / 2
    assert then == pytest.approx(measured, rel=0.06)


@pytest.mark.parametrize(
    "pair", json.loads((RESULTS / "h200x2-2026-11-29.json").read_text())["pairs"], ids=lambda pair: pair["job"]
)
def test_memory_of_a_large_batch_on_one_gpu_and_two(pair: dict[str, Any]) -> None:
    """Stages of a Llama of 3.2 billion parameters on H200 GPUs: FSDP2 with the kernels of liger-kernel, and NeMo with
    transformer_engine."""
    settings = {"batch_size": pair["batch"], "micro_batch_size": pair["micro"], "sequence_length": pair["length"],
                "precision": "bf16", **({"shard": "full", "liger": True} if pair["backend"] == "trl" else {})}  # fmt: skip
    model, keeps = model_of(SHAPES["3b"]), kept_by(pair["backend"], {"transformer_engine"}, settings)
    assert model is not None
    found = estimate.memory(model, estimate.shape_of("cpt", settings, pair["gpus"], 1), keeps)
    assert found.total - found.reserve == pytest.approx(pair["peak_memory_bytes"], rel=0.04)


@pytest.mark.parametrize(
    ("batch", "micro", "recompute", "measured"), [(8, 4, "selective", 43.5e9), (64, 8, "none", 63_400_001_024)]
)
def test_memory_with_transformer_engine_against_what_was_measured(
    batch: int, micro: int, recompute: str, measured: float
) -> None:
    """NeMo 2.7.3 with TE 2.11 on an H100 and on an H200 (benchmarks/gpu/results)."""
    model = model_of(SHAPES["1b"])
    assert model is not None
    shape = Shape(1, batch, micro, 2048, "bf16", recompute=recompute)
    found = estimate.memory(model, shape, kept_by("nemo", {"transformer_engine"}, {}))
    assert found.total == pytest.approx(measured, rel=0.05)
    assert found.total - found.reserve == pytest.approx(measured, rel=0.15)


def test_memory_of_automodel_on_two_gpus_against_what_was_measured() -> None:
    """The CPT of the chain there: 83 million parameters over two H200, passes of 16 x 1024 tokens."""
    found = json.loads((RESULTS / "h200x2-2026-11-30-automodel.json").read_text())
    cpt = found["two GPUs, each a node"]["auto"]["stages"]["cpt"]
    model = Model(layers=12, hidden=768, heads=12, groups=4, head=64, ffn=2304, vocabulary=1024, tied=True)
    settings = {name: value for name, value in cpt["settings"].items() if value is not None}
    keeps = kept_by("automodel", set(), settings)
    estimated = estimate.memory(model, estimate.shape_of("cpt", settings, 2, 1), keeps)
    assert estimated.total - estimated.reserve == pytest.approx(cpt["metrics"]["peak_memory_bytes"], rel=0.05)


def test_what_is_kept_depends_on_what_is_installed_where_the_stage_runs() -> None:
    """By what the probe found, not by files beside the interpreter: an environment may see packages of the machine."""
    declared = backends.load("nemo").CAPABILITIES.memory
    plain, fused = (declared.installed(packages) for packages in ({"torch"}, {"transformer_engine": "2.11"}))
    assert plain is not None
    assert fused is not None
    assert (plain.scores, fused.scores, plain.without, fused.without) == (True, False, {}, {})
    assert declared.installed(None) == fused, "of an image all is taken to be there"


def test_optimizers_and_frozen_weights_of_fewer_bits() -> None:
    """8 bits a moment; 4 bits a frozen weight in a layer, the ends as they are."""
    settings = {"batch_size": 4, "sequence_length": 2048, "precision": "bf16"}
    model = model_of(SHAPES["3b"])
    assert model is not None
    plain, small = (of_trl("3b", "cpt", {**settings, **more}) for more in ({}, {"optimizer": "adamw_8bit"}))
    assert plain.optimizer - small.optimizer == pytest.approx((8 - 2.03) * model.parameters)
    assert of_trl("3b", "cpt", {**settings, "optimizer": "paged_adamw_8bit"}).optimizer == 0
    lora, quantized = (
        of_trl("3b", "cpt", {**settings, "lora_rank": 16, **more}) for more in ({}, {"lora_base": "nf4"})
    )
    in_layers = model.layers * model.layer_parameters
    assert lora.weights - quantized.weights == pytest.approx(in_layers * (2 - 0.52))
    assert quantized.weights > (model.parameters - in_layers) * 2


@pytest.mark.parametrize(
    ("written", "meant"),
    [(True, "full"), (False, "none"), (None, "none"), ("selective", "selective"), ("full", "full")],
)
def test_true_and_false_are_recomputation_too(written: Any, meant: str) -> None:
    """``automodel`` and ``nemo_rl`` know only whether layers are computed again."""
    settings = {"batch_size": 8, "sequence_length": 4096, "precision": "bf16", "recompute": written}
    shape = estimate.shape_of("sft", settings, 1, 8)
    assert shape.recompute == meant
    plain = estimate.memory(GPT, replace(shape, recompute="none"), kept_by("automodel", set(), {}))
    assert (estimate.memory(GPT, shape, kept_by("automodel", set(), {})).total < plain.total) is (meant == "full")


def test_an_option_turns_the_distributed_optimizer_off() -> None:
    shape, there = Shape(8, 8, 1, 1, "bf16"), {"transformer_engine"}
    split, whole = (
        estimate.memory(GPT, shape, kept_by("nemo", there, settings)).optimizer
        for settings in ({}, {"distributed_optimizer": False})
    )
    assert whole == pytest.approx(8 * split)


def test_rows_of_dpo_are_two_sequences() -> None:
    settings = {"batch_size": 8, "sequence_length": 64}
    sft, dpo = (estimate.shape_of(kind, settings, 2, 1) for kind in ("sft", "dpo"))
    assert (sft.batch, sft.micro_batch, sft.replicas) == (8, 4, 2)
    assert (dpo.batch, dpo.micro_batch, dpo.reference) == (16, 8, True)


@pytest.mark.train
def test_activations_against_what_torch_keeps() -> None:
    """Every tensor that autograd saves in a Llama of transformers, each storage once, without the weights."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=1000,
        hidden_size=256,
        intermediate_size=700,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    network = transformers.LlamaForCausalLM(config)
    model = model_of(config.to_dict())
    assert model is not None
    assert model.parameters == sum(value.numel() for value in network.parameters())
    own = {value.untyped_storage().data_ptr() for value in network.parameters()}
    kept: dict[int, int] = {}

    def keep(value: Any) -> Any:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    ids = torch.zeros(2, 128, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss = network(ids, labels=ids).loss
    assert loss.requires_grad
    shape = Shape(1, 2, 2, 128)
    logits = 2 * 128 * 1000 * 4  # forward keeps one fp32 copy of them; the others live in the backward pass
    wanted = estimate.activations(model, shape, kept_by("trl", set(), {})) + logits
    assert sum(kept.values()) == pytest.approx(wanted, rel=0.15)


@pytest.mark.nvidia
@pytest.mark.full
def test_activations_against_what_megatrons_local_layers_keep(tmp_path: Path) -> None:
    """Every bf16 tensor that autograd saves in the real layers. On the CPU a norm keeps fp32 copies in place of its input,
    which CUDA's kernel keeps; the inputs are left out on both sides."""
    from tests.support import environments, stages

    venv = environments.installed("nemo", "nemo")
    python = environments.on_cpu(venv, tmp_path / "venv") / "bin/python"
    stages.make_tokenizer(tmp_path / "tokenizer")
    script = ROOT / "tests/support/in_nemo/nemo_activations.py"
    command = [str(python), str(script), str(tmp_path / "tokenizer")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    model = Model(layers=3, hidden=256, heads=8, groups=2, head=32, ffn=704, vocabulary=1024, tied=True)
    shape = Shape(1, 2, 2, 128, "bf16")
    inputs_of_norms = model.layers * 2 * 2 * 128 * model.hidden * 2
    wanted = estimate.activations(model, shape, kept_by("nemo", set(), {})) - inputs_of_norms
    assert json.loads(done.stdout.splitlines()[-1])["kept"] == pytest.approx(wanted, rel=0.05)


@pytest.mark.train
def test_sizes_of_checkpoints_against_the_trl_back_end(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    from tests.support import stages

    stages.make_data(tmp_path / "data")
    stages.make_model(tmp_path / "base" / "output")
    settings = {"steps": 2, "lr": 1e-3, "batch_size": 2, "sequence_length": 64, "save_every": 1, "seed": 1}
    inputs = {"checkpoint": tmp_path / "base", "data": tmp_path / "data" / "corpus"}
    stage = stages.stage(tmp_path / "cpt", "cpt", "trl", settings, inputs)
    stage.start()
    model = model_of(json.loads((tmp_path / "base/output/config.json").read_text()))
    assert model is not None
    expected = estimate.checkpoint(model, kept_by("trl", set(), {}), "fp32")
    save = stage.spec.store_paths.save(1)
    sizes = sum(path.stat().st_size for path in save.iterdir() if path.name in ("model.safetensors", "optimizer.pt"))
    assert sizes == pytest.approx(expected.save, rel=0.05)
    assert (stage.output / "model.safetensors").stat().st_size == pytest.approx(expected.finished, rel=0.05)


def test_adapters_keep_states_of_their_own_only() -> None:
    """Frozen weights: 2 bytes each in bf16; adapters 18. 6656 is what NeMo counts (tests/jobs/backends/nemo/test_lora.py)."""
    tiny = Model(layers=2, hidden=64, heads=4, groups=2, head=16, ffn=128, vocabulary=400, tied=True)
    assert tiny.layers * tiny.adapter_parameters(4) == 6656
    keeps = kept_by("nemo", set(), {})
    full = Shape(1, 4, 2, 64, "bf16")
    lora = replace(full, lora_rank=4)
    before, found = (estimate.memory(tiny, shape, keeps) for shape in (full, lora))
    assert (before.weights, before.gradients) == (2 * tiny.parameters, 4 * tiny.parameters)
    assert found.weights == 2 * (tiny.parameters + 6656)
    assert (found.gradients, found.optimizer) == (4 * 6656, 12 * 6656)
    assert found.logits == before.logits
    kept = estimate.layer_activations(tiny, lora, keeps) - estimate.layer_activations(tiny, full, keeps)
    assert kept == 2 * 64 * 4 * 4 * 2  # tokens, four adapters, rank 4, bf16
    one = replace(lora, lora_targets=("linear_fc2",))
    assert estimate.memory(tiny, one, keeps).gradients == 4 * 2 * 4 * (128 + 64)
    assert estimate.step_flops(tiny, lora) < estimate.step_flops(tiny, full)
    saved = estimate.checkpoint(tiny, keeps, "bf16", 6656)
    assert (saved.finished, saved.save) == (2 * tiny.parameters, 14 * 6656)


def test_a_packed_sequence_costs_what_another_does() -> None:
    settings = {"batch_size": 8, "sequence_length": 2048, "micro_batch_size": 1}
    packed = {"batch_size": 8, "sequence_length": 2048, "packed": True}
    assert estimate.shape_of("sft", packed, 1, 1) == estimate.shape_of("sft", settings, 1, 1)
