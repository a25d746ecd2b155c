"""NeMo-RL's configuration for each version, against schemas that are written down here once more."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jobs.backends.nemo_rl import checkout, progress, render, steps, validate
from jobs.backends.nemo_rl.render import Place
from jobs.backends.nemo_rl.settings import DpoSettings
from jobs.core.symptoms import recognise
from jobs.core.verdict import FailureClass
from jobs.settings import BadSettings

VERSIONS = ("0.4.0", "0.5.0", "0.6.0", "0.7.0")
REQUIRED = {"steps": 60, "lr": 5e-6, "batch_size": 8, "sequence_length": 128}


def tree(root: Path, version: str) -> checkout.Checkout:
    """A source tree with as much of NeMo-RL as is looked at before it runs."""
    major, minor, patch = version.split(".")
    (root / "nemo_rl").mkdir(parents=True)
    (root / "examples/configs").mkdir(parents=True)
    (root / "nemo_rl/package_info.py").write_text(f"MAJOR = {major}\nMINOR = {minor}\nPATCH = {patch}\n")
    (root / "examples/configs/dpo.yaml").write_text("dpo: {}\n")
    (root / "examples/run_dpo.py").write_text("")
    return checkout.at(root)


def place(root: Path, **changes: Any) -> Place:
    given: dict[str, Any] = {
        "model": root / "model", "data": root / "train.jsonl", "rows": 100, "checkpoints": root / "work",
        "logs": root / "stage/logs", "nodes": 2, "gpus_per_node": 4, **changes,
    }  # fmt: skip
    return Place(**given)


@pytest.mark.parametrize("version", VERSIONS)
def test_our_data_is_named_where_the_version_looks(tmp_path: Path, version: str) -> None:
    """A key of another version would be ignored, and the run would train on HelpSteer3."""
    found = render.configuration(DpoSettings.read(REQUIRED), place(tmp_path), tree(tmp_path / "rl", version))
    data = found["data"]
    if version < "0.6":
        assert data["dataset_name"] == "BinaryPreferenceDataset"
        assert data["train_data_path"] == str(tmp_path / "train.jsonl")
        assert "train" not in data
    else:
        assert data["train"]["dataset_name"] == "BinaryPreferenceDataset"
        assert data["train"]["data_path"] == str(tmp_path / "train.jsonl")
        assert data["validation"] is None
        assert "train_data_path" not in data
    assert found["policy"]["tokenizer"]["name"] == found["policy"]["model_name"]
    assert found["dpo"]["max_num_epochs"] == 5  # 12 batches an epoch
    assert json.loads(render.text(found)) == found


def test_a_key_the_version_would_ignore_is_refused(tmp_path: Path) -> None:
    found = tree(tmp_path / "rl", "0.7.0")
    with pytest.raises(BadSettings, match=r"data\.train_data_path.*nearest: data\.train\.data_path"):
        render.check({"data": {"train_data_path": "x"}}, found.schema)


@pytest.mark.parametrize(("version", "known"), [("0.3.1", False), ("0.8.0", False), ("0.5.0", True)])
def test_versions_that_are_not_known_are_refused(tmp_path: Path, version: str, known: bool) -> None:
    if known:
        assert tree(tmp_path, version).version == version
        return
    with pytest.raises(ImportError, match="is not known here"):
        tree(tmp_path, version)


@pytest.mark.parametrize(
    ("seconds", "text"), [(59.9, "00:00:00:59"), (3600, "00:01:00:00"), (90061, "01:01:01:01"), (-5, "00:00:00:01")]
)
def test_durations_have_four_fields(seconds: float, text: str) -> None:
    assert render.duration(seconds) == text


def test_batches_that_do_not_divide(tmp_path: Path) -> None:
    found = tree(tmp_path / "rl", "0.7.0")
    with pytest.raises(BadSettings, match="does not divide over 6"):
        render.configuration(DpoSettings.read(REQUIRED), place(tmp_path, nodes=2, gpus_per_node=3), found)
    with pytest.raises(BadSettings, match="less than one batch"):
        render.configuration(DpoSettings.read(REQUIRED), place(tmp_path, rows=7), found)


def test_steps_are_read_from_what_it_prints() -> None:
    reader = progress.Reader(4)
    lines = [
        "===== Step 1/12 =====", "▶ Taking a training step...", "Saving checkpoint for step 5...",
        "📊 Training Results:", "  • loss: 0.6931", "  • accuracy: 0.5000", "  • num_valid_samples: 8.0000",
        "⏱️  Timing:", "  • Total step time: 2.50s",
    ]  # fmt: skip
    ended = [found for line in lines if (found := reader.feed(line)) is not None]
    assert ended == [{"loss": 0.6931, "rewards/accuracies": 0.5, "step_seconds": 2.5}]
    assert reader.step == 5
    assert not reader.setting_up


def test_only_whole_steps_count(tmp_path: Path) -> None:
    for name in ("step_2", "step_4", "tmp_step_6"):
        weights = tmp_path / name / "policy/weights"
        weights.mkdir(parents=True)
        (weights / ".metadata").write_text("")
        (weights / "__0_0.distcp").write_text("")
        (tmp_path / name / "config.yaml").write_text("")
        (tmp_path / name / "training_info.json").write_text('{"total_steps": 2}')
    (tmp_path / "step_4/policy/weights/.metadata").unlink()
    assert list(steps.complete(tmp_path)) == [2]
    assert steps.total(tmp_path / "step_2") == 2


@pytest.mark.parametrize(
    ("line", "failure"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", FailureClass.GPU_MEMORY),
        ("[Rank 3] Watchdog caught collective operation timeout: WorkNCCL", FailureClass.COLLECTIVE_TIMEOUT),
        ("RuntimeError: No CUDA GPUs are available", FailureClass.MISSING_GPUS),
        ("ImportError: cannot import name 'x' from 'y'", FailureClass.VERSIONS),
        ("Setting up HelpSteer3", FailureClass.WRONG_DATA),
        ("megatron.core.dist_checkpointing.core.CheckpointingException: is not a distributed checkpoint",
         FailureClass.INCOMPLETE_CHECKPOINT),
        ("ZeroDivisionError: division by zero", FailureClass.CODE_ERROR),
    ],
)  # fmt: skip
def test_failures_are_recognised(line: str, failure: FailureClass) -> None:
    found, evidence = recognise(f"first\n{line}\n")
    assert found is failure
    assert line[:40] in evidence


def test_memory_errors_come_with_the_change_to_make() -> None:
    assert "micro_batch_size" in recognise("CUDA out of memory")[1]


def test_an_environment_without_nemo_rl_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    assert validate.ask(tmp_path / "config.yaml") is False


def test_nemo_rl_itself_reads_what_is_rendered(tmp_path: Path) -> None:
    """Its own parser, where an environment has one: OVERNIGHT_NEMO_RL_VENV (Python 3.12, a checkout in a .pth file)."""
    venv = os.environ.get("OVERNIGHT_NEMO_RL_VENV")
    if not venv:
        pytest.skip("no environment with NeMo-RL: set OVERNIGHT_NEMO_RL_VENV")
    python = str(Path(venv) / "bin/python")
    code = "import nemo_rl, pathlib; print(pathlib.Path(nemo_rl.__path__[0]).parent)"
    root = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=300, check=True).stdout.split()[-1]
    found = render.configuration(DpoSettings.read(REQUIRED), place(tmp_path), checkout.at(Path(root)))
    config = tmp_path / "config.yaml"
    config.write_text(render.text(found))
    assert validate.ask(config, python)
    found["dpo"]["max_num_steps"] = "many"
    config.write_text(render.text(found))
    if checkout.at(Path(root)).version >= "0.6":  # older ones check nothing
        with pytest.raises(BadSettings, match=r"dpo\.max_num_steps"):
            validate.ask(config, python)
