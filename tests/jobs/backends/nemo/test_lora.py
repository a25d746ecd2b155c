"""Adapters (LoRA) and packed sequences of back end ``nemo``, on the CPU."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data_prep.rows.lengths import pack
from jobs import backends
from jobs.backends.nemo import model
from jobs.backends.nemo.settings import NemoSettings
from jobs.training.interface import ProcessShape
from jobs.training.order import training_order
from jobs.training.settings import BadSettings
from tests.support import stages
from tests.support.environments import Starts
from tests.support.stages import Stage

TRAINING: dict[str, Any] = {
    "steps": 4, "lr": 1e-2, "batch_size": 4, "sequence_length": 64, "seed": 3, "warmup_steps": 1, "threads": 1,
}  # fmt: skip


@dataclass
class Runs:
    """Starts with one import of NeMo, below ``root``, from the tiny model as a NeMo checkpoint (``model``)."""

    root: Path
    data: Path
    base: Path
    starts: Starts = field(init=False)
    model: Path = field(init=False)
    found: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.starts = Starts(self.root)
        self.model = self.convert("model", self.base, "hf").spec.store_paths.root

    def convert(self, name: str, source: Path, form: str) -> Stage:
        made = stages.stage(self.root / name, "convert", "nemo", {}, {"source": source}, {"source": form})
        return self.starts.add(made, publish=True)

    def train(self, name: str, stop: int = 0, ranks: int = 1, kind: str = "sft", **changes: Any) -> Stage:
        """A stage to its end, with ``stop`` in two starts."""
        form = {"sft": "instructions", "cpt": "corpus"}[kind]
        inputs, formats = {"checkpoint": self.model, "data": self.data / form}, {"checkpoint": "nemo", "data": form}
        settings = {key: value for key, value in {**TRAINING, **changes}.items() if value is not None}
        made = stages.stage(self.root / name, kind, "nemo", settings, inputs, formats)
        if stop:
            self.starts.add(made, stop_after=stop, ranks=ranks)
        return self.starts.add(made, ranks=ranks, publish=True)

    def export(self, given: Stage) -> Path:
        return self.convert(f"{given.spec.stage}-hf", given.spec.store_paths.root, "nemo").spec.store_paths.output


def weights_of(output: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(output / "model.safetensors"))


ADAPTERS = {"lora_rank": 4, "lora_dropout": 0.1, "lora_targets": ["linear_qkv", "linear_fc2"]}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory, data: Path, base: Path, nemo: Path) -> tuple[Runs, Stage, Stage]:
    """Merging, packing, and a stage of packed rows with adapters, whole and cut after step 3."""
    runs = Runs(tmp_path_factory.mktemp("quick"), data, base)
    runs.starts.script("nemo_lora.py", str(runs.model / "output"))
    packing = json.dumps({"steps": 1, "lr": 1.0, "batch_size": 2, "sequence_length": 64})
    runs.starts.script(
        "nemo_packs.py", packing, str(data / "instructions"), str(runs.model / "output"), str(runs.root / "packs")
    )
    whole = runs.train("whole", packed=True, **ADAPTERS)
    cut = runs.train("cut", stop=3, packed=True, **ADAPTERS)
    runs.export(cut)
    runs.starts.script("nemo_kept.py", str(cut.spec.store_paths.save(3)))
    runs.found = runs.starts.run(nemo)
    return runs, whole, cut


def test_merged_adapters_are_the_model_with_adapters(quick: tuple[Runs, Stage, Stage]) -> None:
    found = quick[0].found[1]
    assert found["changed"] > 0.1
    assert found["difference"] < 1e-5
    assert found["beside"] == ["linear_fc1", "linear_fc2", "linear_proj", "linear_qkv"]
    # 2 layers; inputs and outputs of the four: 64 + 128, 64 + 64, 64 + 256, 128 + 64; rank 4
    assert found["trained"] == 2 * 4 * (192 + 128 + 320 + 192)
    assert found["same_names"]


def test_a_model_trained_in_fp8_is_compared_without_it(quick: tuple[Runs, Stage, Stage]) -> None:
    assert quick[0].found[1]["fp8"] is None


def test_packed_rows_are_learned_as_if_alone(quick: tuple[Runs, Stage, Stage]) -> None:
    """No row sees another, and positions start again: learned ones would give other losses otherwise."""
    found = quick[0].found[2]
    assert (found["starts"][0], found["starts"][-1]) == (0, 64)
    assert len(found["learned"]) == 3  # rows of this sequence
    assert min(found["learned"]) > 1
    for losses in found["losses"].values():
        for together, alone in zip(losses["packed"], losses["alone"], strict=True):
            assert together == pytest.approx(alone, abs=1e-4)


def test_what_is_packed_and_what_transformer_engine_would_get(quick: tuple[Runs, Stage, Stage]) -> None:
    found = quick[0].found[2]
    assert {"cu_seqlens", "cu_seqlens_argmin", "max_seqlen"} <= set(found["keys"])
    assert found["shapes"] == {"tokens": [1, 64], "attention_mask": [1, 1, 64, 64]}
    lines, facts = found["lines"], found["facts"]
    assert len(set(found["order"])) == len(found["order"])
    assert (facts["packed_rows"], facts["packed_sequences"]) == (24, len(lines))
    assert sum(len(line["seq_start_id"]) for line in lines) == 24
    taken = sum(len(line["input_ids"]) - len(line["seq_start_id"]) for line in lines)
    assert facts["packed_fill"] == pytest.approx(taken / (64 * len(lines)), abs=1e-4)


def resumed_and_merged(runs: Runs, whole: Stage, cut: Stage, stopped: int) -> None:
    """``stopped``: number of the start that stopped at step 3; the next one finished, the one after exported."""
    torch = pytest.importorskip("torch")
    first, again, exported = runs.found[stopped : stopped + 3]
    assert (first["outcome"], again["outcome"]) == ("stopped", "done")
    save = cut.spec.store_paths.save(3)
    assert {"event": "resumed", "step": 3, "path": str(save)} in again["events"]
    assert cut.losses() == whole.losses()  # to the last bit, dropout and all
    assert again["metrics"]["trained_parameters"] == 2 * 4 * (192 + 192)
    assert exported["metrics"]["logit_difference"] <= exported["metrics"]["logit_tolerance"]
    before, after = weights_of(runs.base / "output"), weights_of(runs.root / "cut-hf/store/output")
    changed = {name.split(".")[-2] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"q_proj", "k_proj", "v_proj", "down_proj"}


def test_packed_adapters_resume_to_the_bit_and_finish_merged(quick: tuple[Runs, Stage, Stage]) -> None:
    runs, whole, cut = quick
    resumed_and_merged(runs, whole, cut, 4)
    assert set(runs.found[7]) == {"adapter", "optimizer"}  # of the save
    assert runs.found[3]["events"][0]["event"] == "packed"
    assert 0.5 < runs.found[3]["metrics"]["packed_fill"] <= 1


def test_every_epoch_takes_every_row_once_and_no_pass_decides(
    tmp_path: Path, data: Path, base: Path, nemo: Path
) -> None:
    """What NeMo's samplers deal to two replicas is the order of our other back ends; and the loss is the mean over the
    tokens of a step, whatever the passes are and on two processes, too."""
    rows = [
        {"prompt": f"Translate: {text} {number}\n", "completion": " ".join(stages.EUROPEAN[: 1 + number % 5])}
        for number, text in enumerate(stages.ENGLISH * 3)
    ]
    stages.write_rows(tmp_path / "uneven/instructions/output/train.jsonl", rows)
    runs = Runs(tmp_path, tmp_path / "uneven", base)
    runs.starts.script("nemo_order.py", str(data / "instructions"), str(runs.model / "output"), str(tmp_path / "order"))
    passes = [runs.train(f"micro{micro}", micro_batch_size=micro) for micro in (4, 1)]
    passes.append(runs.train("two", ranks=2))
    counted = runs.train("epochs", steps=None, epochs=0.5)
    runs.found = runs.starts.run(nemo)

    for dealt in (runs.found[1]["blocks"], runs.found[1]["pairs"]):
        order = training_order(len(dealt["each"]), 10, 7, 3)
        for step, taken in enumerate(dealt["steps"]):
            wanted = [dealt["each"][index] for index in order[step * 10 : (step + 1) * 10]]
            assert sorted(map(tuple, taken)) == sorted(map(tuple, wanted))
    expected = list(passes[0].losses().values())
    for other in passes[1:]:
        assert list(other.losses().values()) == pytest.approx(expected, rel=1e-5)
    assert sorted(counted.losses()) == [1, 2, 3]  # half of 24 rows, four a step


@pytest.mark.full
def test_adapters_on_two_processes_and_behind_recomputed_layers(
    tmp_path: Path, data: Path, base: Path, nemo: Path
) -> None:
    """A model on two processes, whose adapters are merged there, is that of one process. Recomputed layers
    get no gradient by themselves behind a frozen embedding, and nothing would say so."""
    torch = pytest.importorskip("torch")
    runs = Runs(tmp_path, data, base)
    plain = runs.train("plain", lora_rank=4)
    tensor = runs.train("tensor", ranks=2, lora_rank=4, tensor_parallel=2)
    outputs = [runs.export(plain), runs.export(tensor)]
    recomputed = runs.train("recomputed", lora_rank=4, recompute="full")
    runs.found = runs.starts.run(nemo)
    assert recomputed.losses() == plain.losses()
    assert tensor.losses() == pytest.approx(plain.losses(), rel=1e-5)
    one, two = map(weights_of, outputs)
    assert all(torch.allclose(value, two[name], atol=1e-4) for name, value in one.items())


@pytest.mark.full
def test_either_alone_resumes_to_the_bit(tmp_path: Path, data: Path, base: Path, nemo: Path) -> None:
    """Adapters of unpacked rows and of CPT, packed rows without adapters; and data of less than a batch."""
    runs = Runs(tmp_path, data, base)
    whole = runs.train("whole", micro_batch_size=2, **ADAPTERS)
    cut = runs.train("cut", stop=3, micro_batch_size=2, **ADAPTERS)
    runs.export(cut)
    packed_whole = runs.train("packed", packed=True)
    packed_cut = runs.train("packed-cut", stop=3, packed=True)
    corpus_whole = runs.train("corpus", kind="cpt", lora_rank=4)
    corpus_cut = runs.train("corpus-cut", kind="cpt", stop=3, lora_rank=4)
    runs.train("few", packed=True, batch_size=16)
    runs.starts.plan[-1] |= {"fails": True, "publish": False}
    runs.found = runs.starts.run(nemo)
    resumed_and_merged(runs, whole, cut, 2)
    assert packed_cut.losses() == packed_whole.losses()
    assert corpus_cut.losses() == corpus_whole.losses()
    assert "24 rows make 8 packed sequences of 64 tokens, less than one batch" in runs.found[-1]["output"]


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
        ({"lora_rank": 8, "lora_targets": "linear_qkv"}, "lora_targets must be a list"),
        ({"lora_rank": 6, "tensor_parallel": 4}, "lora_rank 6 must be a multiple of tensor_parallel 4"),
        ({"packed": True, "micro_batch_size": 2}, "sequence_length 128 takes as many tokens"),
        ({"packed": True, "context_parallel": 2}, "context_parallel above 1"),
        ({"packed": "yes"}, "true or false"),
    ],
)
def test_settings_are_refused_with_what_to_write(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSettings, match=message):
        NemoSettings.read({**TRAINING, **changes})


def test_only_sft_is_packed_and_submission_says_so(tmp_path: Path, data: Path) -> None:
    rows = {"data": data / "instructions"}
    given = stages.stage(tmp_path / "cpt", "cpt", "nemo", {**TRAINING, "packed": True}, {}).spec
    with pytest.raises(BadSettings, match="kind cpt is always full"):
        backends.load("nemo").rendered(given, ProcessShape(1, 1))
    tuned = stages.stage(tmp_path / "sft", "sft", "nemo", {**TRAINING, "packed": True, **ADAPTERS}, rows).spec
    assert backends.load("nemo").rendered(tuned, ProcessShape(1, 1)).command


def test_rows_are_not_packed_where_attention_has_a_window() -> None:
    """Megatron's local layers then make a mask of their own."""
    model.check_packed(SimpleNamespace(config=SimpleNamespace(window_size=None)))
    with pytest.raises(BadSettings, match="attends within a window"):
        model.check_packed(SimpleNamespace(config=SimpleNamespace(window_size=(4096, 0))))


def test_settings_of_adapters() -> None:
    found = NemoSettings.read({**TRAINING, "lora_rank": 8, "lora_targets": ["linear_qkv"]})
    assert (found.alpha, found.lora_targets) == (8, ("linear_qkv",))
    assert NemoSettings.read({**TRAINING, "lora_rank": 8, "lora_alpha": 16}).alpha == 16
    assert NemoSettings.read({**TRAINING, "packed": True}).micro_of(2) == 1


def test_rows_are_packed_once_and_fit() -> None:
    lengths = [7, 2, 5, 5, 3, 8, 1, 1]
    found = pack(lengths, 8)
    assert sorted(row for group in found for row in group) == list(range(len(lengths)))
    assert [sum(lengths[row] for row in group) for group in found] == [8, 8, 8, 8]
    assert found == pack(lengths, 8)
