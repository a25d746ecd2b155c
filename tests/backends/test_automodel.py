"""NVIDIA's AutoModel on a tiny Llama, on the CPU: CPT, a stop, exact resume, SFT, other numbers of processes.

Needs an environment of its own (it pins another transformers): ``make venv-automodel``, or OVERNIGHT_AUTOMODEL_VENV.
"""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from jobs.backends.automodel import layout, render
from jobs.backends.automodel.render import Place
from jobs.backends.automodel.settings import AutomodelSettings
from jobs.settings import BadSettings
from tests.backends import environments, stages
from tests.backends.environments import start

TRAINING: dict[str, Any] = {
    "steps": 4, "lr": 1e-3, "batch_size": 4, "sequence_length": 64, "micro_batch_size": 2, "save_every": 2, "seed": 3,
    "warmup_steps": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def automodel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of the AutoModel environment, on the CPU."""
    venv = environments.installed("automodel", "nemo_automodel")
    return environments.on_cpu(venv, tmp_path_factory.mktemp("automodel") / "venv") / "bin/python"


def test_sft_stopped_and_resumed_and_with_other_processes(
    tmp_path: Path, data: Path, base: Path, automodel: Path
) -> None:
    inputs = {"checkpoint": base, "data": data / "instructions"}
    cut = stages.stage(tmp_path / "cut", "sft", "automodel", TRAINING, inputs)
    stopped = start(automodel, cut, stop_after=3)
    assert (stopped["outcome"], stopped["step"]) == ("stopped", 3)
    saved = cut.spec.store_paths.save(3)
    whole = saved / "automodel/model/consolidated"  # the model can be had although nobody went on
    assert (whole / "config.json").is_file()
    assert list(whole.glob("*.safetensors"))

    refused = start(automodel, cut, ranks=2, fails=True)
    assert "was made by 1 processes, this start has 2" in refused["output"]

    again = start(automodel, cut)
    assert (again["outcome"], again["step"]) == ("done", 4)
    assert {"event": "resumed", "step": 3, "path": str(saved)} in again["events"]
    output = cut.spec.store_paths.partial
    assert list(output.glob("*.safetensors"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (output / name).read_bytes() == (base / "output" / name).read_bytes()
    losses = cut.losses()
    assert sorted(losses) == [1, 2, 3, 4]
    assert losses[4] < losses[1]


can_compile = pytest.mark.skipif(
    shutil.which("c++") is None or not Path(sysconfig.get_path("include"), "Python.h").is_file(),
    reason="AutoModel compiles the index of its corpus: a C++ compiler and Python's headers are needed",
)


@can_compile
def test_cpt_from_a_tokenised_corpus_on_two_processes(tmp_path: Path, data: Path, base: Path, automodel: Path) -> None:
    """From .bin and .idx; both processes hold half of the model and see half of each batch."""
    numpy = pytest.importorskip("numpy")
    from data_prep.tokens.indexed import IndexedWriter, dtype_for
    from jobs import examples, tokenizers

    tokenizer = tokenizers.load(base / "output")
    (tmp_path / "tokens/output").mkdir(parents=True)
    writer = IndexedWriter(tmp_path / "tokens/output/train", dtype_for(len(tokenizer)))
    for row in examples.read_rows(data / "corpus/output/train.jsonl", "corpus"):
        writer.add(numpy.array(examples.encode_text(tokenizer, row.texts["text"])))
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


@pytest.mark.parametrize("kind", ["cpt", "sft"])
def test_the_package_itself_reads_what_is_rendered(tmp_path: Path, automodel: Path, kind: str) -> None:
    """Every section becomes the typed configuration that AutoModel trains by; a key that it does not know would not."""
    settings = AutomodelSettings.read({**TRAINING, "precision": "bf16", "tensor_parallel": 2, "sequence_parallel": True})
    found = render.configuration(kind, settings, Place(tmp_path / "model", tmp_path / "data", tmp_path, 4, gpus=True))
    config = tmp_path / "config.yaml"
    config.write_text(render.text(found))
    command = [str(automodel), "-c", CHECK, str(environments.ROOT), str(config)]
    read = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert "PARTS" in read.stdout, read.stdout + read.stderr[-3000:]
    found["lr_scheduler"]["lr_warmup_stepz"] = 3
    config.write_text(render.text(found))
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


def test_a_batch_that_does_not_divide() -> None:
    with pytest.raises(BadSettings, match="does not divide over 3"):
        AutomodelSettings.read(TRAINING).micro(3)


def test_a_checkpoint_of_the_recipe_says_its_step(tmp_path: Path) -> None:
    whole = tmp_path / "epoch_0_step_5"
    for name in ("model/shard-00001.safetensors", "optim/.metadata", "dataloader/dataloader_dp_rank_0.pt",
                 "step_scheduler.pt", "losses.json"):  # fmt: skip
        (whole / name).parent.mkdir(parents=True, exist_ok=True)
        (whole / name).write_text("")
    assert (layout.completeness(whole).step, layout.completeness(whole).problem) == (6, None)
    (whole / "optim/.metadata").unlink()
    assert "optim/.metadata is missing" in str(layout.completeness(whole).problem)
