"""A model trained, measured, exported and published on this machine; the export is killed once on the way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.core import results
from launch.cli.main import main
from launch.runs import rundir
from tests.support import stages
from tests.support.upload_hub import UploadHub

pytestmark = pytest.mark.train

TRAINING = {"steps": 2, "lr": 1e-5, "batch_size": 4, "sequence_length": 64, "threads": 1}
TASKS = {"answers": {"limit": 6}, "held": {"task": "answers", "split": "validation", "limit": 6}}
STAGES: dict[str, Any] = {
    "pairs": {"kind": "instructions", "from": "./pairs.jsonl", "split": {"validation": 0.3, "test": 0.3}},
    "baseline": {"kind": "evaluate", "checkpoint": "base", "tasks": TASKS, "threads": 1},
    "sft": {"kind": "sft", "checkpoint": "base", "data": "pairs", **TRAINING},
    "final": {"kind": "evaluate", "checkpoint": "sft", "tasks": TASKS, "compare_to": "baseline", "threads": 1,
              "gate": {"answers.answer_loss": {"at_most": 0.01}}, "missed": "go", "undecided": "go"},
    "out": {"kind": "export", "checkpoint": "sft", "to": ["hf", "gguf"]},
}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("trl", reason="the train extra is not installed")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("OVERNIGHT_WORKSPACE", str(tmp_path / "ws"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    stages.make_model(tmp_path / "tiny")
    stages.make_data(tmp_path / "data")
    rows = (tmp_path / "data/instructions/output/train.jsonl").read_text()
    (tmp_path / "pairs.jsonl").write_text(rows)
    value = {"name": "mine", "ranges": "off", "model": {"base": "./tiny"}, "stages": STAGES}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    assert main(["fetch", str(tmp_path / "p.yaml"), "--cluster", "local"]) == 0
    return tmp_path


def started_work(stage: str) -> int | None:
    """The process that does the work of a stage."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "work" in words and any(f"/stages/{stage}/" in word for word in words):
            return int(entry.name)
    return None


def test_from_training_to_a_hub(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [sys.executable, "-P", "-m", "launch.cli", "run", str(here / "p.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    running = subprocess.Popen(given, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 300
    while (process := started_work("out")) is None:
        assert running.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    os.kill(process, signal.SIGKILL)
    assert running.wait(60) == 1
    (run,) = rundir.all_runs(here / "ws")
    store = run.plan().stage("out").store(run.workspace)
    assert not store.seal.exists()
    capsys.readouterr()
    assert main(["resume", run.id]) == 0
    assert store.seal.exists()

    card = (store.output / "README.md").read_text()
    measured = results.read(run.plan().stage("final").store(run.workspace).output / results.FILE)
    rows = {}
    for line in card.splitlines():
        if line.startswith("| final"):
            cells = [cell.strip().replace("\\", "") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            rows[cells[1], cells[2]] = cells
    assert set(rows) == {(task, metric) for task, known in measured.items() for metric in known["metrics"]}
    for (task, metric), cells in rows.items():
        entry = measured[task]["metrics"][metric]
        assert cells[3] == f"{entry['value']:.4g}"
        assert cells[4] == f"[{entry['low']:.4g}, {entry['high']:.4g}]"
        assert cells[5:7] == [f"{entry['before']:.4g}", f"{entry['change']['value']:+.4g}"]
        assert cells[8] == str(entry["n"])
    assert rows["answers", "answer_loss"][9] == "at_most 0.01: missed"
    assert "Gates that were not passed: final: answers.answer\\_loss" in card
    assert "supervised fine\\-tuning" in card
    assert str(here) not in card

    constants = pytest.importorskip("huggingface_hub.constants")
    with UploadHub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        publish = ["publish", run.id, "--to", "hf:org/mine", "--yes"]
        assert main(publish) == 2
        assert "final.answers.answer_loss: at_most 0.01: missed" in capsys.readouterr().err
        assert main([*publish, "--despite", "final.answers.answer_loss"]) == 0
        there = hub.commits["org/mine"][hub.heads["org/mine"]["main"]]
    names = {path.name for path in store.output.iterdir()}
    assert set(there) == names >= {"model.safetensors", "mine-f16.gguf", "README.md", "config.json", "tokenizer.json"}
    assert all(there[name] == (store.output / name).read_bytes() for name in names - {"README.md"})
    assert json.loads(there["config.json"])["architectures"] == ["LlamaForCausalLM"]
