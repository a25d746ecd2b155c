"""``shard: full`` of the trl back end (FSDP2 over gloo): what plain data parallelism learns, and saves that any number of
processes goes on from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from safetensors.torch import load_file  # noqa: E402

from jobs.backends.trl.settings import TrainSettings  # noqa: E402
from jobs.training.settings import BadSettings  # noqa: E402
from tests.support import stages  # noqa: E402
from tests.support.stages import Stage  # noqa: E402

pytestmark = pytest.mark.train

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "cpt": ("cpt", {"recompute": True}), "sft": ("sft", {}), "rounded": ("cpt", {"precision": "bf16"}),
    "beside": ("cpt", {}),
}  # fmt: skip


def make(root: Path, name: str, base: Path, data: Path, **changes: Any) -> Stage:
    kind, more = KINDS[name]
    settings = {**stages.SIX_STEPS, **more, **changes}
    return stages.stage(root, kind, "trl", settings, {"checkpoint": base, "data": data / stages.DATA[kind]})


def test_shards_learn_what_whole_replicas_do(tmp_path: Path, base: Path, data: Path) -> None:
    """CPT and SFT on two processes; stopped at step 2, resumed on one, stopped at 4 and resumed on two."""
    whole = {name: make(tmp_path / f"whole-{name}", name, base, data) for name in KINDS}
    shards = {
        name: make(tmp_path / f"shards-{name}", name, base, data, shard="full", save_beside=name == "beside")
        for name in KINDS
    }
    stages.start_ranks(2, *((stage, 2) for stage in shards.values()))
    assert {path.name for path in shards["sft"].spec.store_paths.save(2).iterdir()} >= {
        "pytorch_model_fsdp_0",
        "optimizer_0",
    }
    parts = shards["sft"].spec.store_paths.save(2) / "optimizer_0"
    assert len(list(parts.glob("__0_*.distcp"))) > 1, "one thread wrote the part of a process"
    stages.start_ranks(1, *((stage, 2) for stage in shards.values()))
    stages.start_ranks(2, *((stage, None) for stage in shards.values()))
    for name, stage in whole.items():
        stage.start()
        found = shards[name]
        assert found.spec.store_paths.save_steps() == [4, 2], name
        losses, near = list(found.losses().values()), 3e-3 if name == "rounded" else 1e-5
        assert losses == pytest.approx(list(stage.losses().values()), rel=near), name
        assert any(float(torch.tensor(loss).half()) != loss for loss in losses), f"{name}: the loss itself is rounded"
        assert [report.step for report in found.reports()] == list(range(1, 7)), name
        expected, weights = (load_file(one.output / "model.safetensors") for one in (stage, found))
        assert weights.keys() == expected.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(weights[key], tensor, rtol=1e-3, atol=1e-4 if name != "rounded" else 1e-2)
        config = json.loads((found.output / "config.json").read_text())
        assert config == json.loads((stage.output / "config.json").read_text())


@pytest.mark.parametrize(("kind", "more"), [("dpo", {}), ("sft", {"lora_rank": 4})])
def test_what_is_refused(kind: str, more: dict[str, Any]) -> None:
    with pytest.raises(BadSettings, match="shard: full is for kinds cpt and sft without adapters"):
        TrainSettings.read({**stages.SIX_STEPS, "shard": "full", **more}, kind)


def test_what_is_written_beside_is_what_it_was_when_it_was_copied(tmp_path: Path) -> None:
    """Also of a second save, which takes the copies of the first; and a save that cannot be written is an error."""
    code = f"""
import torch, torch.distributed.checkpoint as dcp
from pathlib import Path
from jobs.training import ranks
ranks.start_alone()
from jobs.backends.trl.beside import TrlBeside
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate
mesh = init_device_mesh("cpu", (1,))
weight, part = torch.zeros(4), DTensor.from_local(torch.zeros(3), mesh, [Replicate()])
beside = TrlBeside()
for step in (1, 2):
    weight.fill_(step), part.to_local().fill_(step)
    at = Path({str(tmp_path)!r}) / str(step)
    with beside.copied():
        dcp.save({{"weight": weight, "part": part}}, storage_writer=dcp.FileSystemWriter(at))
    assert not at.exists() or not list(at.iterdir()), "written in the step"
    weight.fill_(-1), part.to_local().fill_(-1)  # the training goes on
    beside.write()
    found = {{"weight": torch.empty(4), "part": DTensor.from_local(torch.empty(3), mesh, [Replicate()])}}
    dcp.load(found, storage_reader=dcp.FileSystemReader(at))
    assert found["weight"].tolist() == [step] * 4, found
    assert found["part"].to_local().tolist() == [step] * 3, found
Path({str(tmp_path)!r}, "file").write_text("")
with beside.copied():
    dcp.save({{"weight": weight}}, storage_writer=dcp.FileSystemWriter(Path({str(tmp_path)!r}, "file", "3")))
try:
    beside.write()
except BaseException as error:
    print("refused", type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "refused CheckpointException\n", done.stderr


def test_only_shards_are_written_beside() -> None:
    with pytest.raises(BadSettings, match="save_beside: true is for shard: full"):
        TrainSettings.read({**stages.SIX_STEPS, "save_beside": True}, "cpt")
