"""NVIDIA's AutoModel on a tiny Llama, on the CPU: CPT, a stop, exact resume, SFT, other numbers of processes.

Needs an environment of its own (it pins another transformers): ``make venv-automodel``, or OVERNIGHT_AUTOMODEL_VENV.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from jobs import backends
from jobs.backends.automodel import layout, render
from jobs.backends.automodel.render import AutomodelPaths
from jobs.backends.automodel.settings import AutomodelSettings
from jobs.core import files
from jobs.training import interface
from jobs.training.interface import ProcessShape
from jobs.training.order import training_order
from jobs.training.settings import BadSettings
from launch.plan import estimates, memory
from tests.support import environments, made_runs, stages
from tests.support.environments import Starts, start

TRAINING: dict[str, Any] = {
    "steps": 4, "lr": 1e-3, "batch_size": 4, "sequence_length": 64, "micro_batch_size": 2, "save_every": 2, "seed": 3,
    "warmup_steps": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def automodel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of the AutoModel environment, on the CPU."""
    venv = environments.installed("automodel", "nemo_automodel")
    return environments.on_cpu(venv, tmp_path_factory.mktemp("automodel") / "venv") / "bin/python"


@dataclass(frozen=True)
class Ran:
    """Stages ``whole`` and ``cut`` that ran on ``ranks`` processes, and what each start came to."""

    ranks: int
    stages: dict[str, stages.Stage]
    results: dict[str, list[dict[str, Any]]]


OTHERS = {1: 2, 2: 1}
by_one_and_by_two = pytest.mark.parametrize("ran", [1, pytest.param(2, marks=pytest.mark.full)], indirect=True)


@pytest.fixture(scope="module")
def ran(request: Any, tmp_path_factory: pytest.TempPathFactory, data: Path, base: Path, automodel: Path) -> Ran:
    """SFT without a stop, and stopped at step 3 and resumed, first by another number of processes."""
    ranks: int = request.param
    root = tmp_path_factory.mktemp("ran")
    inputs = {"checkpoint": base, "data": data / "instructions"}
    made = {name: stages.stage(root / name, "sft", "automodel", TRAINING, inputs) for name in ("whole", "cut")}
    starts = Starts(root)
    order = (("whole", 0, ranks), ("cut", 3, ranks), ("cut", 0, OTHERS[ranks]), ("cut", 0, ranks))
    for name, stop_after, world in order:
        starts.add(made[name], stop_after=stop_after, ranks=world)
        starts.plan[-1]["fails"] = world != ranks
    results = starts.run(automodel, STARTS_IMPORT="nemo_automodel.recipes.llm.train_ft")
    found: dict[str, list[dict[str, Any]]] = {"whole": [], "cut": []}
    for (name, _, _), result in zip(order, results, strict=True):
        found[name].append(result)
    return Ran(ranks, made, found)


@by_one_and_by_two
def test_a_run_with_a_stop_is_the_one_without(ran: Ran) -> None:
    """To the last bit: losses of every step, and the finished weights."""
    whole, cut = ran.stages["whole"], ran.stages["cut"]
    (straight,), (stopped, *_, again) = ran.results["whole"], ran.results["cut"]
    assert (straight["outcome"], straight["step"]) == ("done", 4)
    assert (stopped["outcome"], stopped["step"]) == ("stopped", 3)
    assert (again["outcome"], again["step"]) == ("done", 4)
    assert {"event": "resumed", "step": 3, "path": str(cut.spec.store_paths.save(3))} in again["events"]
    assert sorted(cut.losses()) == [1, 2, 3, 4]
    assert cut.losses() == whole.losses()
    assert cut.losses()[4] < cut.losses()[1]
    from safetensors.torch import load_file

    files = sorted(path.name for path in whole.output.glob("*.safetensors"))
    assert files
    assert files == sorted(path.name for path in cut.output.glob("*.safetensors"))
    for file in files:
        wanted, found = load_file(whole.output / file), load_file(cut.output / file)
        assert wanted.keys() == found.keys()
        assert all(bool((tensor == found[key]).all()) for key, tensor in wanted.items())
        assert {str(tensor.dtype) for tensor in found.values()} == {"torch.float32"}
    planned = replace(made_runs.stage("sft"), kind="sft", settings=TRAINING)
    shape = memory.shape_of("sft", TRAINING, 1, ran.ranks)
    assert again["metrics"]["step_shape"] == estimates.step_shape(planned, shape)
    assert again["metrics"]["trained_by"] == "automodel"


@by_one_and_by_two
def test_another_number_of_processes_is_refused_before_the_model_is_loaded(ran: Ran) -> None:
    refused = ran.results["cut"][1]
    assert f"was made by {ran.ranks} processes, this start has {OTHERS[ran.ranks]}" in refused["output"]


@pytest.mark.parametrize("ran", [1], indirect=True)
def test_a_stop_leaves_a_model_and_the_end_the_tokenizer(ran: Ran, base: Path) -> None:
    """The model can be had although nobody went on."""
    cut = ran.stages["cut"]
    whole = cut.spec.store_paths.save(3) / "automodel/model/consolidated"
    assert (whole / "config.json").is_file()
    assert list(whole.glob("*.safetensors"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (cut.output / name).read_bytes() == (base / "output" / name).read_bytes()


def test_cpt_from_a_tokenised_corpus_on_two_processes(tmp_path: Path, data: Path, base: Path, automodel: Path) -> None:
    """From .bin and .idx; both processes hold half of the model and see half of each batch."""
    numpy = pytest.importorskip("numpy")
    from data_prep.tokens.indexed import IndexedWriter, dtype_for
    from jobs.encoding.documents import DocumentEncoder
    from jobs.training import examples, tokenizers

    tokenizer = tokenizers.load(base / "output")
    (tmp_path / "tokens/output").mkdir(parents=True)
    writer = IndexedWriter(tmp_path / "tokens/output/train", dtype_for(len(tokenizer)))
    for row in examples.read_rows(data / "corpus/output/train.jsonl", "corpus"):
        writer.add(numpy.array(DocumentEncoder(tokenizer).encode([row.texts["text"]])[0]))
    writer.close()
    inputs, formats = {"checkpoint": base, "data": tmp_path / "tokens"}, {"checkpoint": "hf", "data": "tokens"}
    trained = stages.stage(tmp_path / "cpt", "cpt", "automodel", TRAINING, inputs, formats)
    done = start(automodel, trained, ranks=2)
    assert (done["outcome"], done["step"]) == ("done", 4)
    assert done["metrics"]["tokens"] == 4 * 4 * 64
    assert layout.completeness(trained.spec.store_paths.partial).problem is None
    assert trained.losses()[4] < trained.losses()[1]


CHECK = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from jobs.backends.automodel import data
from nemo_automodel.components.config.loader import load_yaml_config
from nemo_automodel.recipes._typed_config import RecipeConfig
from nemo_automodel.recipes._dist_utils import parse_distributed_section
found = RecipeConfig(load_yaml_config(Path(sys.argv[2])))
parts = [found.step_scheduler, found.lr_scheduler, found.optimizer, found.dataloader, found.checkpoint, found.loss_fn]
parse_distributed_section(found.distributed.to_dict())
print("PARTS", json.dumps([type(part).__name__ for part in parts]))
"""


@pytest.mark.parametrize("kind", ["cpt", pytest.param("sft", marks=pytest.mark.full)])
def test_the_package_itself_reads_what_is_rendered(tmp_path: Path, automodel: Path, kind: str) -> None:
    """Every section becomes the typed configuration that AutoModel trains by; a key that it does not know would not."""
    settings = AutomodelSettings.read(
        {**TRAINING, "precision": "bf16", "tensor_parallel": 2, "sequence_parallel": True}
    )
    found = render.configuration(
        kind, settings, AutomodelPaths(tmp_path / "model", tmp_path / "data", tmp_path, 4, gpus=True)
    )
    config = tmp_path / "config.yaml"
    config.write_text(files.json_text(found))
    command = [str(automodel), "-c", CHECK, str(environments.ROOT), str(config)]
    read = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert "PARTS" in read.stdout, read.stdout + read.stderr[-3000:]
    found["lr_scheduler"]["lr_warmup_stepz"] = 3
    config.write_text(files.json_text(found))
    wrong = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert "lr_warmup_stepz" in wrong.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "wsd"}, "one of constant, linear, cosine"),
        ({"sequence_parallel": True}, "needs tensor_parallel"),
        ({"micro_batch_sise": 2}, "did you mean 'micro_batch_size'"),
        ({"steps": 0}, "at least 1"),
    ],
)
def test_settings_are_refused_with_a_reason(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSettings, match=message):
        AutomodelSettings.read({**TRAINING, **changes})


def test_bf16_over_a_single_process_is_refused() -> None:
    """AutoModel 0.7 would silently train in fp32."""
    half = AutomodelSettings.read({**TRAINING, "precision": "bf16"})
    assert half.micro(2) == 2
    with pytest.raises(BadSettings, match="trains in fp32: write precision: fp32, or give the stage more processes"):
        half.micro(1)


def test_a_batch_that_does_not_divide() -> None:
    with pytest.raises(BadSettings, match="does not divide over 3"):
        AutomodelSettings.read(TRAINING).micro(3)


def test_every_epoch_takes_every_row_once_on_two_processes(
    tmp_path: Path, data: Path, base: Path, automodel: Path
) -> None:
    """What AutoModel's own loader deals to two processes: a batch holds no row twice, an epoch every row once."""
    script = environments.IN_NEMO / "automodel_batches.py"
    command = [str(automodel), str(script), str(base / "output"), str(data / "instructions/output/train.jsonl")]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for found in json.loads(done.stdout.splitlines()[-1]).values():
        order = training_order(found["count"], 10, 7, 3)
        for step in range(7):
            rows = found["rows"][step * 10 : (step + 1) * 10]
            assert len(set(rows)) == 10
            assert set(rows) == {found["each"][index] for index in order[step * 10 : (step + 1) * 10]}


def test_another_number_of_processes_is_refused_when_it_is_submitted(tmp_path: Path) -> None:
    """Where a sealed save is there and the stage is not finished; the fingerprint knows nothing of processes."""
    places = {"checkpoint": tmp_path / "base", "data": tmp_path / "data"}
    given = stages.stage(tmp_path / "sft", "sft", "automodel", TRAINING, places, {"data": "instructions"})
    backend, store = backends.load("automodel"), given.spec.store_paths
    interface.rendered(backend, given.spec, ProcessShape(processes=2))
    for step, made_by in ((2, 2), (3, 1)):
        store.save(step).mkdir(parents=True)
        files.write_json(store.save(step) / layout.RANKS, {"ranks": made_by})
        files.write_json(store.save_seal(step), {})
    interface.rendered(backend, given.spec, ProcessShape(processes=1))
    with pytest.raises(BadSettings, match="save of step 3 was made by 1 processes, this start has 2"):
        interface.rendered(backend, given.spec, ProcessShape(processes=2))
    (store.save(3) / layout.RANKS).write_text("{")  # torn: the job will see, and take the save before
    interface.rendered(backend, given.spec, ProcessShape(processes=2))
    files.write_json(store.save(3) / layout.RANKS, {"ranks": 1})
    files.write_json(store.seal, {})  # finished: nothing goes on from a save
    interface.rendered(backend, given.spec, ProcessShape(processes=2))


def test_a_checkpoint_of_the_recipe_says_its_step(tmp_path: Path) -> None:
    whole = tmp_path / "epoch_0_step_5"
    for name in (
        "model/shard-00001.safetensors",
        "optim/.metadata",
        "dataloader/dataloader_dp_rank_0.pt",
        "step_scheduler.pt",
        "losses.json",
    ):
        (whole / name).parent.mkdir(parents=True, exist_ok=True)
        (whole / name).write_text("")
    assert (layout.completeness(whole).step, layout.completeness(whole).problem) == (6, None)
    (whole / "optim/.metadata").unlink()
    assert "optim/.metadata is missing" in str(layout.completeness(whole).problem)
