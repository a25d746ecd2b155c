"""NeMo-RL's configuration for each version, against schemas that are written down here once more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.backends.nemo_rl import checkout, progress, render, steps, validate
from jobs.backends.nemo_rl import settings as nemo_rl
from jobs.backends.nemo_rl.render import NemoRlPaths
from jobs.core import files
from jobs.core.symptoms import recognise
from jobs.core.verdict import FailureClass
from jobs.training.settings import BadSettings
from tests.support.nemo_rl_fake import tree

VERSIONS = ("0.3.1", "0.4.0", "0.5.0", "0.6.0", "0.7.0")
REQUIRED: dict[str, Any] = {"steps": 60, "lr": 5e-6, "batch_size": 8, "sequence_length": 128, "save_every": 20}


def rendered(
    root: Path, kind: str, version: str, *, settings: dict[str, Any] = REQUIRED, **changes: Any
) -> dict[str, Any]:
    found = tree(root / f"rl-{kind}-{version}", version)
    return render.configuration(nemo_rl.read(kind, settings), place(root, **changes), found)


def place(root: Path, **changes: Any) -> NemoRlPaths:
    given: dict[str, Any] = {
        "model": root / "model", "data": root / "train.jsonl", "rows": 100, "checkpoints": root / "work",
        "logs": root / "stage/logs", "nodes": 2, "gpus_per_node": 4, **changes,
    }  # fmt: skip
    return NemoRlPaths(**given)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["dpo", "sft"])
def test_our_data_is_named_where_the_version_looks(tmp_path: Path, kind: str, version: str) -> None:
    """A key of another version would be ignored, and the run would train on HelpSteer3 or squad."""
    found = rendered(tmp_path, kind, version)
    data, path = found["data"], str(tmp_path / "train.jsonl")
    name = {"dpo": "BinaryPreferenceDataset", "sft": "ResponseDataset"}[kind]
    if version < "0.4":
        assert data["dataset_name"] == {"dpo": "ours", "sft": "prompt_response_dataset"}[kind]
        assert (data["train_data_path"], data["val_data_path"]) == (path, path)
        assert "shuffle" not in data
    elif version < "0.6":
        assert (data["dataset_name"], data["train_data_path"]) == (name, path)
        assert data.get("val_data_path") == (path if kind == "sft" else None)  # SFT asks how long it is
        assert "train" not in data
    else:
        assert (data["train"]["dataset_name"], data["train"]["data_path"]) == (name, path)
        assert data["validation"] is None
        assert "train_data_path" not in data
    keys = data["train"] if version >= "0.6" else data
    if kind == "sft":
        assert (keys["input_key"], keys["output_key"]) == ("prompt", "completion")
        assert (data["add_bos"], data["add_eos"], data["add_generation_prompt"]) == (True, True, False)
        # From 0.6 a row of exactly this length has no weight.
        assert data["max_input_seq_length"] == (129 if version >= "0.6" else 128)
    elif version >= "0.4":
        assert (keys["prompt_key"], keys["chosen_key"], keys["rejected_key"]) == ("prompt", "chosen", "rejected")
    assert found["policy"]["tokenizer"] == {"name": found["policy"]["model_name"], "chat_template": render.PLAIN}
    assert found["policy"]["dtensor_cfg"].get("_v2") is (None if version < "0.4" else False)
    assert found["policy"]["max_total_sequence_length"] == 128
    # 12 batches an epoch; from 0.4 the file holds the rows of all steps
    assert found[kind]["max_num_epochs"] == (5 if version < "0.4" else 1)
    assert ("reference_policy_kl_penalty" in found[kind]) == (kind == "dpo")
    assert json.loads(files.json_text(found)) == found


@pytest.mark.parametrize("kind", ["dpo", "sft"])
def test_a_key_the_version_would_ignore_is_refused(tmp_path: Path, kind: str) -> None:
    keys = tree(tmp_path / "rl", "0.7.0").schema.keys[kind]
    with pytest.raises(BadSettings, match=r"data\.train_data_path.*nearest: data\.train\.data_path"):
        render.check({"data": {"train_data_path": "x"}}, keys)


def test_without_a_clock_there_have_to_be_saves(tmp_path: Path) -> None:
    """0.3 cannot be told to save before the time limit."""
    with pytest.raises(BadSettings, match=r"NeMo-RL 0\.3\.1 has no way to save .* set save_every"):
        rendered(tmp_path, "dpo", "0.3.1", settings={**REQUIRED, "save_every": None})
    assert "checkpoint_must_save_by" not in rendered(tmp_path, "sft", "0.3.1", must_save_by=60.0)["checkpointing"]
    later = rendered(tmp_path, "sft", "0.4.0", must_save_by=60.0, settings={**REQUIRED, "save_every": None})
    assert later["checkpointing"]["checkpoint_must_save_by"] == "00:00:01:00"


@pytest.mark.parametrize(("version", "known"), [("0.2.1", False), ("0.8.0", False), ("0.3.0", True), ("0.5.0", True)])
def test_versions_that_are_not_known_are_refused(tmp_path: Path, version: str, known: bool) -> None:
    if known:
        assert tree(tmp_path, version).version == version
        return
    with pytest.raises(ImportError, match="is not known here"):
        tree(tmp_path, version)


@pytest.mark.parametrize(
    ("kind", "wrong", "said"),
    [
        ("sft", {"beta": 0.1}, "unknown setting 'beta'"),
        ("dpo", {"too_long": "skip"}, "unknown setting 'too_long'"),
        ("sft", {"too_long": "cut"}, "too_long must be one of error, skip"),
        ("dpo", {"beta": 0.0}, "beta must be above 0"),
        ("sft", {"lr": 0.0}, "lr must be above 0"),
        ("sft", {"chat_template": "chatml"}, "chat_template must be one of plain, default"),
    ],
)
def test_settings_that_do_not_fit_the_kind(kind: str, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(BadSettings, match=said):
        nemo_rl.read(kind, {**REQUIRED, **wrong})


@pytest.mark.parametrize(
    ("seconds", "text"), [(59.9, "00:00:00:59"), (3600, "00:01:00:00"), (90061, "01:01:01:01"), (-5, "00:00:00:01")]
)
def test_durations_have_four_fields(seconds: float, text: str) -> None:
    assert render.duration(seconds) == text


def test_batches_that_do_not_divide(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="does not divide over 6"):
        rendered(tmp_path, "dpo", "0.7.0", nodes=2, gpus_per_node=3)
    with pytest.raises(BadSettings, match="less than one batch"):
        rendered(tmp_path, "sft", "0.7.0", rows=7)


def test_steps_are_read_from_what_it_prints() -> None:
    reader = progress.StepReader(4)
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
        (
            "megatron.core.dist_checkpointing.core.CheckpointingException: is not a distributed checkpoint",
            FailureClass.INCOMPLETE_CHECKPOINT,
        ),
        ("ZeroDivisionError: division by zero", FailureClass.CODE_ERROR),
    ],
)
def test_failures_are_recognised(line: str, failure: FailureClass) -> None:
    found, evidence = recognise(f"first\n{line}\n")
    assert found is failure
    assert line[:40] in evidence


def test_memory_errors_come_with_the_change_to_make() -> None:
    assert "micro_batch_size" in recognise("CUDA out of memory")[1]


def test_an_environment_without_nemo_rl_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    answer = validate.ask(tmp_path / "config.yaml", "dpo")
    assert not answer.read
    assert "No module named 'nemo_rl'" in answer.reason


def test_the_script_needs_nothing_of_ours(tmp_path: Path) -> None:
    """It runs in NeMo-RL's environment, where only NeMo-RL is installed; without that it says so, and nothing else."""
    command = [sys.executable, "-I", "-S", validate.__file__, str(tmp_path / "config.yaml"), "dpo"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (
        validate.NOT_ASKED,
        "ModuleNotFoundError: No module named 'nemo_rl'",
    )


PARSER = """
class MasterConfig:
    def __init__(self, **given):
        if given["dpo"]["max_num_steps"] == "many":
            raise ValueError("dpo.max_num_steps should be a number")
"""


def test_what_its_parser_refuses_is_refused_and_what_it_reads_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a parser of three lines in the place of NeMo-RL's."""
    for name, text in {
        "nemo_rl/algorithms/dpo.py": PARSER,
        "nemo_rl/utils/config.py": "import json\ndef load_config(path): return json.load(open(path))\n",
        "omegaconf.py": "class OmegaConf:\n    to_container = staticmethod(lambda given, resolve: given)\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    config = tmp_path / "config.yaml"
    config.write_text('{"dpo": {"max_num_steps": 4}}')
    assert validate.ask(config, "dpo") == validate.ParserAnswer(True)
    config.write_text('{"dpo": {"max_num_steps": "many"}}')
    with pytest.raises(BadSettings, match=r"refuses the configuration of the stage: ValueError: dpo\.max_num_steps"):
        validate.ask(config, "dpo")
    assert "No module named 'nemo_rl.algorithms.sft'" in validate.ask(config, "sft").reason
    (tmp_path / "nemo_rl/algorithms/sft.py").write_text("import os; os._exit(7)")
    assert validate.ask(config, "sft") == validate.ParserAnswer(False, "exit code 7")


@pytest.mark.nvidia
def test_nemo_rl_itself_reads_what_is_rendered(tmp_path: Path) -> None:
    """Its own parser, where an environment has one: OVERNIGHT_NEMO_RL_VENV (Python 3.12, a checkout in a .pth file)."""
    venv = os.environ.get("OVERNIGHT_NEMO_RL_VENV")
    if not venv:
        pytest.skip("no environment with NeMo-RL: set OVERNIGHT_NEMO_RL_VENV")
    python = str(Path(venv) / "bin/python")
    code = "import nemo_rl, pathlib; print(pathlib.Path(nemo_rl.__path__[0]).parent)"
    root = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=300, check=True).stdout.split()[
        -1
    ]
    for kind in ("dpo", "sft"):
        found = render.configuration(nemo_rl.read(kind, REQUIRED), place(tmp_path), checkout.at(Path(root)))
        config = tmp_path / "config.yaml"
        config.write_text(files.json_text(found))
        assert validate.ask(config, kind, python).read
        found[kind]["max_num_steps"] = "many"
        config.write_text(files.json_text(found))
        if "BaseModel" in Path(root, f"nemo_rl/algorithms/{kind}.py").read_text():  # older ones check nothing
            with pytest.raises(BadSettings, match=rf"{kind}\.max_num_steps"):
                validate.ask(config, kind, python)
