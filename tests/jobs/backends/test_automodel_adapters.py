"""LoRA of AutoModel on the CPU, beside the same training by ``peft`` in plain torch: losses, saves, the merged model."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from jobs import backends
from jobs.backends.automodel.settings import AutomodelSettings
from jobs.training import interface
from jobs.training.order import training_order
from jobs.training.settings import BadSettings
from tests.support import environments, stages
from tests.support.environments import Starts
from tests.support.stages import Stage

torch = pytest.importorskip("torch")

TRAINING: dict[str, Any] = {
    "steps": 4, "lr": 1e-2, "batch_size": 4, "sequence_length": 64, "micro_batch_size": 2, "seed": 3, "schedule": "constant",
    "weight_decay": 0.1, "lora_rank": 4, "lora_alpha": 8,
}  # fmt: skip
DROPPED = {"lora_dropout": 0.2, "lora_targets": ["q_proj", "down_proj"]}
BEST = {
    "lr": 1.0, "validate_every": 1, "early_stopping": {"patience": 2, "min_change": 100.0, "min_steps": 3},
    "select": "best", "keep_saves": 1, "steps": 8,
}  # fmt: skip


def by_peft(base: Path, data: Path) -> tuple[list[float], Any]:
    """The losses of ``peft`` in plain torch, and the merged model."""
    import peft
    from torch.nn import functional

    from jobs.training import tokenizers
    from jobs.training.models import load_model
    from tests.support.learned import learned

    rows, _ = learned(
        data / "instructions/output/train.jsonl",
        "instructions",
        tokenizers.load(base / "output"),
        AutomodelSettings.read(TRAINING),
    )
    wanted = peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear")
    model = peft.get_peft_model(load_model(base / "output"), wanted)
    drawn = torch.Generator().manual_seed(TRAINING["seed"])
    for name, weight in model.named_parameters():
        if ".lora_A" in name:
            torch.nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=drawn)
    learns = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learns, lr=TRAINING["lr"], weight_decay=0.1)
    order, losses = training_order(len(rows), 4, 4, TRAINING["seed"]), []
    for step in range(4):
        found = []
        for index in order[step * 4 : step * 4 + 4]:
            logits = model(input_ids=torch.tensor([rows[index]["input_ids"]])).logits[0, :-1]
            labels = torch.tensor(rows[index]["labels"][1:])
            found.append(functional.cross_entropy(logits[labels != -100], labels[labels != -100], reduction="none"))
        loss = torch.cat(found).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learns, 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses, model.merge_and_unload()


@dataclass
class Runs:
    """Stages by name, and what their starts come to."""

    root: Path
    base: Path
    data: Path
    made: dict[str, Stage] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.starts = Starts(self.root)

    def start(self, name: str, ranks: int = 1, stop: int = 0, kind: str = "sft", **more: Any) -> Stage:
        inputs = {"checkpoint": self.base, "data": self.data / stages.DATA[kind]}
        if name not in self.made:
            self.made[name] = stages.stage(self.root / name, kind, "automodel", {**TRAINING, **more}, inputs)
        return self.starts.add(self.made[name], ranks=ranks, stop_after=stop)

    def run(self) -> list[dict[str, Any]]:
        venv = environments.installed("automodel", "nemo_automodel")
        python = environments.on_cpu(venv, self.root / "venv") / "bin/python"
        return self.starts.run(python, STARTS_IMPORT="nemo_automodel.recipes.llm.train_ft")

    def losses(self, name: str) -> list[float]:
        return list(self.made[name].losses().values())


def weights(output: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: it for path in output.glob("model*.safetensors") for name, it in load_file(path).items()}


def beside(base: Path, adapters: Path) -> Any:
    """What ``peft`` makes of adapters alone."""
    import peft

    from jobs.training.models import load_model

    return peft.PeftModel.from_pretrained(load_model(base / "output"), str(adapters))


@pytest.mark.nvidia
def test_adapters_learn_what_peft_does_and_a_stop_changes_nothing(tmp_path: Path, base: Path, data: Path) -> None:
    """On one process and on two; to the last bit with dropout. What comes out is read by ``peft`` and transformers."""
    pytest.importorskip("peft")
    from jobs.training.models import load_model

    runs = Runs(tmp_path, base, data)
    alone = runs.start("alone", output="adapter")
    whole = runs.start("whole", 2, **DROPPED)
    cut = runs.start("cut", 2, stop=3, **DROPPED)
    runs.start("cut", 2)
    runs.starts.script("automodel_peak.py")
    *results, counted = runs.run()

    # each step would be counted anew, and the seal would say of the whole start what its end took
    assert counted == {"does it": True, "under ours": 0, "afterwards": 1}
    wanted, merged = by_peft(base, data)
    assert wanted[-1] < wanted[0]
    assert runs.losses("alone") == pytest.approx(wanted, rel=1e-6)
    backend = backends.load("automodel")
    assert interface.completeness(backend, alone.output).problem is None
    described = json.loads((alone.output / "adapter_config.json").read_text())
    assert described["base_model_name_or_path"] == str(base / "output")
    found = beside(base, alone.output).merge_and_unload().state_dict()
    for name, tensor in merged.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)

    assert [result["outcome"] for result in results] == ["done", "done", "stopped", "done"]
    assert cut.losses() == whole.losses()
    ends, before = weights(cut.output), weights(base / "output")
    assert all(torch.equal(tensor, ends[name]) for name, tensor in weights(whole.output).items())
    assert {tensor.dtype for tensor in ends.values()} == {torch.float32}
    changed = {name.split(".")[-2] for name, tensor in ends.items() if not torch.equal(tensor, before[name])}
    assert changed == {"q_proj", "down_proj"}
    save = cut.spec.store_paths.save(3) / "automodel"
    assert {path.name for path in save.glob("model/*.safetensors")} == {"adapter_model.safetensors"}
    assert {path.name for path in cut.output.iterdir()} == {path.name for path in (base / "output").iterdir()}
    (last,) = (cut.spec.stage_paths.root / "automodel/checkpoints").glob("epoch_*_step_3/model")
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        logits = [model(input_ids=ids).logits for model in (load_model(cut.output), beside(base, last).eval())]
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)

    (alone.output / "adapter_model.safetensors").unlink()
    assert "adapter_model.safetensors is missing" in str(interface.completeness(backend, alone.output).problem)


@pytest.mark.nvidia
@pytest.mark.full
def test_the_ways_to_run_them(tmp_path: Path, base: Path, data: Path) -> None:
    """Two processes, a model split over them and recomputation learn what one process does; bf16, a corpus, the save of
    the best validation; and layers that the model does not have."""
    rows = [{"id": str(at), "prompt": f"Say {stages.ENGLISH[at]}\n", "completion": "Salvar"} for at in range(5)]
    given = tmp_path / "given"
    stages.make_data(given)
    stages.write_rows(given / "instructions/output/validation.jsonl", rows)
    runs = Runs(tmp_path, base, given)
    runs.start("one")
    runs.start("two", 2)
    runs.start("recomputed", 2, recompute=True)
    runs.start("tensor", 2, tensor_parallel=2)
    runs.start("half", 2, precision="bf16")
    corpus = runs.start("corpus", kind="cpt")
    runs.start("corpus-cut", kind="cpt", stop=2)
    cut = runs.start("corpus-cut", kind="cpt")
    best = runs.start("best", **BEST)
    runs.start("none", lora_targets=["q_proj", "w_pack"])
    runs.starts.plan[-1]["fails"] = True
    results = runs.run()

    for name in ("two", "recomputed", "tensor"):
        assert runs.losses(name) == pytest.approx(runs.losses("one"), rel=1e-6), name
    assert runs.losses("half") == pytest.approx(runs.losses("one"), rel=1e-2)
    one, two = (weights(runs.made[name].output) for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-5)
    assert {tensor.dtype for tensor in weights(runs.made["half"].output).values()} == {torch.float32}
    assert cut.losses() == corpus.losses()
    selected = results[-2]["metrics"]["selected_step"]
    assert (results[-2]["outcome"], results[-2]["step"]) == ("done", 3)
    assert selected in (1, 2)
    kept = beside(base, best.spec.store_paths.save(selected) / "automodel/model").merge_and_unload().state_dict()
    for name, tensor in weights(best.output).items():
        torch.testing.assert_close(kept[name], tensor, rtol=1e-5, atol=1e-6)
    assert "the model has no 'w_pack', but down_proj, gate_proj" in results[-1]["output"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_rank": None}, "lora_alpha is for adapters: write lora_rank, too"),
        ({"lora_rank": None, "lora_alpha": None, "output": "adapter"}, "output: adapter is for adapters"),
        ({"lora_dora": True}, "unknown setting 'lora_dora'"),
        ({"lora_base": "nf4"}, "unknown setting 'lora_base'"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSettings, match=message):
        AutomodelSettings.read({**TRAINING, **changes})
