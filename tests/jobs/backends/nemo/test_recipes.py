"""What `nemo` refuses before a submission: asked as ``overnight submit`` asks it, in its own environment and in ours."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.backends import nemo
from jobs.backends.nemo.recipes import Parallel, check_spread
from jobs.training import interface
from jobs.training.interface import ProcessShape
from jobs.training.settings import BadSettings
from launch.inputs import toolkit
from tests.support import environments, stages

TRAINING: dict[str, Any] = {"steps": 4, "lr": 1e-3, "batch_size": 4, "sequence_length": 32}
INPUTS = {"checkpoint": Path("/nowhere"), "data": Path("/nowhere")}
FORMATS = {"checkpoint": "nemo", "data": "corpus"}


def a_stage(root: Path, **changes: Any) -> stages.Stage:
    return stages.stage(root, "cpt", "nemo", {**TRAINING, **changes}, INPUTS, FORMATS)


def asked(python: Path, root: Path, cases: list[dict[str, Any]], processes: int = 4) -> list[str]:
    """What is said against each; nothing is an empty text."""
    request = []
    for number, changes in enumerate(cases):
        given = a_stage(root / str(number), **changes)
        request.append({"spec": given.spec, "nodes": 1, "processes": processes, "gpus": False})
    (root / "request.json").write_text(json.dumps(request, default=vars))
    command = [str(python), str(toolkit.installed_boot()), "render", str(root / "request.json")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    return [answer.get("error", answer.get("missing", "")) for answer in json.loads(said.splitlines()[-1])]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 3}, "batch_size 3 does not divide over 2 model replicas"),
        ({"micro_batch_size": 3, "batch_size": 8}, "micro_batch_size 3 does not divide 4"),
        ({"tensor_parallel": 3}, "= 3 processes for one model do not divide the 2"),
        ({"tensor_parallel": 2, "lora_rank": 3}, "lora_rank 3 .* tensor_parallel 2"),
    ],
)
def test_what_does_not_divide_ends_the_submission(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """In an interpreter without NeMo, too, which is asked where NeMo is in an image."""
    shape = ProcessShape(processes=2)
    assert interface.rendered(nemo, a_stage(tmp_path / "fits").spec, shape).command  # type: ignore[arg-type]
    with pytest.raises(BadSettings, match=message):
        interface.rendered(nemo, a_stage(tmp_path / "not", **changes).spec, shape)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spread", "message"),
    [
        (Parallel(pipeline=3), "pipeline_parallel 3 does not divide the 16 layers"),
        (Parallel(tensor=3), "tensor_parallel 3 does not divide the 32 attention heads"),
        (Parallel(tensor=16), "tensor_parallel 16 does not divide the 8 query groups"),
    ],
)
def test_a_model_that_cannot_be_spread_like_this(spread: Parallel, message: str) -> None:
    config = SimpleNamespace(num_layers=16, num_attention_heads=32, num_query_groups=8)
    check_spread(Parallel(8, 2), config)
    with pytest.raises(BadSettings, match=message):
        check_spread(spread, config)


@pytest.mark.nvidia
def test_what_the_installed_layers_cannot_do_ends_the_submission(tmp_path: Path) -> None:
    """Nothing is imported for it: the environment of the tests has no transformer_engine and no apex."""
    python = environments.installed("nemo", "nemo") / "bin/python"
    cases: list[dict[str, Any]] = [
        {}, {"distributed_optimizer": True}, {"context_parallel": 2}, {"tensor_parallel": 2, "sequence_parallel": True},
        {"tensor_parallel": 3, "context_parallel": 2}, {"fp8": "delayed", "precision": "bf16"},
    ]  # fmt: skip
    said = asked(python, tmp_path, cases)
    assert said[0] == ""
    assert "cannot be saved without transformer_engine or apex" in said[1]
    assert said[2].startswith(
        "context_parallel 2 needs transformer_engine, which is not installed here: write context_par"
    )
    assert "sequence_parallel: true needs transformer_engine" in said[3]
    assert "= 6 processes for one model do not divide the 4 of the stage" in said[4]
    assert said[5].startswith("fp8: delayed needs transformer_engine, which is not installed here: leave it out")


@pytest.mark.nvidia
@pytest.mark.full
def test_a_recipe_is_looked_at_before_the_submission(tmp_path: Path) -> None:
    python = environments.installed("nemo", "nemo") / "bin/python"
    cases = [{"recipe": "llama32_1b"}, {"recipe": "nosuch"}, {"recipe": "llama3_8b"}]
    said = asked(python, tmp_path, [*cases, {"recipe": "llama3_8b", "context_parallel": 1}])
    assert said[0] == ""
    assert said[1].startswith("no recipe 'nosuch' in this NeMo; there are: ")
    assert {"llama32_1b", "llama3_8b", "qwen3_8b"} <= set(said[1].split(": ", 1)[1].split(", "))
    assert "context_parallel 2 (recipe 'llama3_8b' brings it) needs transformer_engine" in said[2]
    assert "write context_parallel: 1" in said[2]
    assert said[3] == ""
