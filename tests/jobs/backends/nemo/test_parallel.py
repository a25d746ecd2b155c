"""The real NeMo, on the CPU, many starts with one import: two processes, an exact resume, loggers, schedules, inputs.

Losses of a model that is spread over processes are those of one process: sums are taken in another order, which shows
in the seventh digit (``CLOSE``).
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from jobs.backends.nemo import layout
from jobs.backends.nemo.settings import NemoSettings
from jobs.training.schedule import learning_rate_factor
from tests.support import stages
from tests.support.environments import Starts
from tests.support.stages import Stage

TRAINING: dict[str, Any] = {
    "steps": 4, "lr": 1e-3, "min_lr": 1e-4, "batch_size": 4, "micro_batch_size": 2, "sequence_length": 32, "seed": 3,
    "warmup_steps": 1, "threads": 1,
}  # fmt: skip
CLOSE = 1e-5


@dataclasses.dataclass
class Runs:
    """Stages of one plan by name, what their starts came to, and where they lie."""

    root: Path
    data: Path
    base: Path
    starts: Starts = dataclasses.field(init=False)
    stages: dict[str, Stage] = dataclasses.field(default_factory=dict)
    names: list[str] = dataclasses.field(default_factory=list)
    results: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.starts = Starts(self.root)
        self.convert("model", self.base, "hf")

    def _add(self, name: str, given: Stage, **how: Any) -> None:
        self.stages[name] = given
        self.names.append(name)
        self.starts.add(given, **how)
        self.starts.plan[-1]["fails"] = True  # it is looked at where its result is asked for

    def convert(self, name: str, source: Path, form: str) -> None:
        inputs, formats = {"source": source}, {"source": form}
        self._add(name, stages.stage(self.root / name, "convert", "nemo", {}, inputs, formats), publish=True)

    def train(
        self,
        name: str,
        kind: str = "cpt",
        data: str = "",
        ranks: int = 1,
        stop: int = 0,
        again: int = 0,
        parent: str = "model",
        **changes: Any,
    ) -> None:
        """Starts of a stage: to its end, or with ``stop`` first to that step, and then on ``again`` processes."""
        form = {"cpt": "corpus", "sft": "instructions"}[kind]
        place = self.data / (data or form)
        inputs = {"checkpoint": self.stages[parent].spec.store_paths.root, "data": place}
        formats = {"checkpoint": "nemo", "data": "tokens" if data == "tokens" else form}
        given = stages.stage(self.root / name, kind, "nemo", {**TRAINING, **changes}, inputs, formats)
        if stop:
            self._add(name, given, ranks=ranks, stop_after=stop)
        self._add(name, given, ranks=again or ranks, publish=True)

    def export(self, name: str) -> None:
        self.convert(f"{name}-hf", self.stages[name].spec.store_paths.root, "nemo")

    def run(self, python: Path, **environment: str) -> Runs:
        self.results = self.starts.run(python, **environment)
        return self

    def of(self, name: str) -> list[dict[str, Any]]:
        """Results of the starts of a stage."""
        found = [result for each, result in zip(self.names, self.results, strict=True) if each == name]
        for result in found:
            assert "output" not in result, result["output"]
        return found

    def losses(self, name: str) -> dict[int, float]:
        self.of(name)
        found = self.stages[name].losses()
        assert sorted(found) == list(range(1, TRAINING["steps"] + 1))
        return found

    def output(self, name: str) -> Path:
        return self.stages[name].spec.store_paths.output


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory, data: Path, base: Path, nemo: Path) -> Runs:
    runs = Runs(tmp_path_factory.mktemp("quick"), data, base)
    runs.train("whole")
    runs.train("cut", stop=2)
    runs.train("pairs", "sft")
    runs.train("pairs-cut", "sft", stop=2)
    runs.train("tensor", ranks=2, stop=2, tensor_parallel=2)
    runs.train("beside", ranks=2, stop=2, tensor_parallel=2, save_beside=True, save_every=1)
    runs.train("half", precision="bf16")
    runs.export("half")
    runs.names.append("recipes")
    runs.starts.script("nemo_recipes.py")
    runs.starts.plan[-1]["fails"] = True
    return runs.run(nemo)


def whole_checkpoint(runs: Runs, name: str, processes: int) -> None:
    """Written by all processes, with what rank 0 carries along."""
    output = runs.output(name)
    layout.check(output)
    writers = {path.name.split("_")[2] for path in (output / layout.WEIGHTS).glob("*.distcp")}
    assert writers == {str(rank) for rank in range(processes)}
    for file in ("tokenizer.json", "config.json"):
        assert (output / layout.HF / file).read_bytes() == (runs.base / "output" / file).read_bytes()


def resumed(runs: Runs, name: str, step: int) -> None:
    stopped, again = runs.of(name)
    assert (stopped["outcome"], stopped["step"]) == ("stopped", step)
    assert (again["outcome"], again["step"]) == ("done", TRAINING["steps"])
    path = str(runs.stages[name].spec.store_paths.save(step))
    assert {"event": "resumed", "step": step, "path": path} in again["events"]


def test_saves_written_beside_are_those_of_a_run_that_stands_for_them(quick: Runs) -> None:
    """Each is sealed although the steps after it change what was copied, and the losses after a resumption are those."""
    resumed(quick, "beside", 2)
    assert quick.losses("beside") == quick.losses("tensor")
    store = quick.stages["beside"].spec.store_paths
    assert store.sealed_steps() == [3, 2]
    said = [event["step"] for result in quick.of("beside") for event in result["events"] if event["event"] == "saved"]
    assert said == [1, 2, 3]


@pytest.mark.parametrize(("cut", "whole"), [("cut", "whole"), ("pairs-cut", "pairs")])
def test_a_resumed_run_repeats_one_without_a_stop(quick: Runs, cut: str, whole: str) -> None:
    """To the last bit; of four steps the last two, since NeMo's own SFT sampler gives the same batch twice there."""
    resumed(quick, cut, 2)
    assert quick.losses(cut) == quick.losses(whole)


def test_a_model_on_two_processes_stops_resumes_and_learns_as_on_one(quick: Runs) -> None:
    resumed(quick, "tensor", 2)
    assert quick.losses("tensor") == pytest.approx(quick.losses("whole"), rel=CLOSE)
    whole_checkpoint(quick, "tensor", 2)


def test_bf16_training_is_exported(quick: Runs) -> None:
    (found,) = quick.of("half-hf")
    assert found["metrics"]["logit_difference"] <= found["metrics"]["logit_tolerance"]
    assert json.loads((quick.output("half-hf") / "config.json").read_text())["dtype"] == "bfloat16"


def test_the_learning_rate_follows_its_schedule_down_to_min_lr(quick: Runs) -> None:
    settings = NemoSettings.read(TRAINING, "cpt")
    found = {report.step: report.metrics["lr"] for report in quick.stages["whole"].reports()}
    assert found == pytest.approx({step: settings.lr * learning_rate_factor(step, settings) for step in range(1, 5)})
    assert found[4] == pytest.approx(settings.min_lr)


def test_recipes_spread_a_model_and_must_be_of_its_architecture(quick: Runs) -> None:
    """NeMo's recipes for fine-tuning are for SFT: they spread a model otherwise than those for pre-training."""
    (found,) = quick.of("recipes")
    wanted = {
        "llama32_1b cpt": [1, 1, 1], "llama3_8b cpt": [1, 1, 2], "llama3_8b cpt own": [1, 1, 1], "llama3_8b sft": [2, 1, 1],
        "llama3_70b cpt": [4, 4, 2], "llama3_70b sft": [8, 4, 1], "llama3_70b sft lora": [8, 1, 1],
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == wanted
    assert found["fitting"] == ""
    assert found["mismatch"] == "recipe 'llama32_1b' has num_layers 16, the checkpoint has 2"
    assert found["unknown"].startswith("no recipe 'nosuch' in this NeMo; there are: ")


TEMPLATE = "Say:  {prompt} ->"


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, data: Path, base: Path, nemo: Path) -> Runs:
    """The same data as ``.bin``/``.idx`` (``tokens``) and with prompts that are written out (``templated``), too."""
    root = tmp_path_factory.mktemp("full")
    (root / "data").mkdir()
    for name in ("corpus", "instructions"):
        (root / "data" / name).symlink_to(data / name)
    rows = [json.loads(line) for line in (data / "instructions/output/train.jsonl").read_text().splitlines()]
    written = [{**row, "prompt": TEMPLATE.format(prompt=row["prompt"])} for row in rows]
    stages.write_rows(root / "data/templated/output/train.jsonl", written)
    (root / "data/tokens/output").mkdir(parents=True)
    runs = Runs(root, root / "data", base)
    runs.train("whole")
    for suffix in (".bin", ".idx"):  # there by the time that they are read: as the stage before wrote them
        made = runs.stages["whole"].spec.stage_paths.root / f"nemo/data/corpus{suffix}"
        (root / f"data/tokens/output/train{suffix}").symlink_to(made)
    runs.train("tokens", data="tokens")
    runs.train("pipeline", ranks=2, pipeline_parallel=2)
    runs.train("replicas", ranks=2)
    runs.train("tensor", ranks=2, tensor_parallel=2)
    runs.train("pipeline-cut", ranks=2, stop=2, pipeline_parallel=2)
    runs.train("replicas-cut", ranks=2, stop=2)
    runs.train("fewer", ranks=2, stop=2, again=1)
    runs.train("sft", "sft")
    runs.train("sft-tensor", "sft", ranks=2, tensor_parallel=2)
    runs.train("sft-pipeline", "sft", ranks=2, pipeline_parallel=2)
    runs.train("sft-replicas", "sft", ranks=2)
    runs.train("sft-tensor-cut", "sft", ranks=2, stop=2, tensor_parallel=2)
    runs.train("sft-replicas-cut", "sft", ranks=2, stop=2)
    runs.train("sft-template", "sft", prompt_template=TEMPLATE)
    runs.train("sft-written", "sft", "templated")
    runs.train("selective", recompute="selective")
    runs.train("recomputed", recompute="full")
    for name in ("whole", "pipeline", "replicas", "tensor"):
        runs.export(name)
    return runs.run(nemo)


@pytest.mark.full
@pytest.mark.parametrize("name", ["pipeline", "replicas", "tensor"])
def test_two_processes_make_the_model_that_one_makes(full: Runs, name: str) -> None:
    pytest.importorskip("torch")
    from safetensors.torch import load_file

    assert full.losses(name) == pytest.approx(full.losses("whole"), rel=CLOSE)
    whole_checkpoint(full, name, 2)
    log = next(full.stages[name].spec.stage_paths.root.glob("start*.log")).read_text()
    assert f"overlap_grad_reduce={name == 'replicas'}" in log
    (exported,) = full.of(f"{name}-hf")
    assert exported["metrics"]["logit_difference"] <= exported["metrics"]["logit_tolerance"]
    one, two = (load_file(full.output(f"{each}-hf") / "model.safetensors") for each in ("whole", name))
    assert one.keys() == two.keys()
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-4  # of an lr of 1e-3 in 4 steps of Adam


@pytest.mark.full
@pytest.mark.parametrize("whole", ["pipeline", "replicas", "sft-tensor", "sft-replicas"])
def test_two_processes_resume_to_the_last_bit(full: Runs, whole: str) -> None:
    resumed(full, f"{whole}-cut", 2)
    assert full.losses(f"{whole}-cut") == full.losses(whole)


@pytest.mark.full
def test_a_save_of_two_processes_is_resumed_by_one(full: Runs) -> None:
    resumed(full, "fewer", 2)
    assert full.losses("fewer") == pytest.approx(full.losses("whole"), rel=CLOSE)


@pytest.mark.full
@pytest.mark.parametrize(("name", "close"), [("sft-tensor", CLOSE), ("sft-pipeline", CLOSE), ("sft-replicas", 2e-3)])
def test_two_processes_learn_pairs_as_one_does(full: Runs, name: str, close: float) -> None:
    """Replicas take a batch's rows in turn, so other rows share a pass, in which each token counts alike."""
    assert full.losses(name) == pytest.approx(full.losses("sft"), rel=close)


@pytest.mark.full
def test_the_template_stands_around_the_prompt(full: Runs) -> None:
    assert full.losses("sft-template") == full.losses("sft-written")
    assert full.losses("sft-template") != pytest.approx(full.losses("sft"), rel=1e-3)


@pytest.mark.full
@pytest.mark.parametrize("name", ["tokens", "selective", "recomputed"])
def test_the_same_is_learned(full: Runs, name: str) -> None:
    """From a corpus in ``.bin``/``.idx``, and where activations are made again."""
    assert full.losses(name) == pytest.approx(full.losses("whole"), rel=1e-6)
