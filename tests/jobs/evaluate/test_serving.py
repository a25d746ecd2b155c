"""A server that the stage starts itself: it answers as the model does, its end is told, and none of it is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("sacrebleu")

from jobs.core import results, spec
from jobs.core.verdict import FailureClass
from jobs.evaluate import serving
from jobs.evaluate.kept import SAMPLES
from jobs.evaluate.serving import ServerFailed
from jobs.training.deadline import StopRequest
from jobs.training.settings import BadSettings
from tests.support import stages
from tests.support.servers import wait_until

pytestmark = pytest.mark.train
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    stages.make_model(root / "output")
    return root


def evaluation(root: Path, data: Path, model: Path, how: str | None, *more: str, **settings: Any) -> stages.Stage:
    """One whose server answers ``how``; None: by the model itself."""
    tasks = {"support": {"data": "rows", "measure": {"chrf": {}, "length": {}}, "max_new_tokens": 8}}
    given: dict[str, Any] = {"tasks": tasks, "seed": 1, "resamples": 300, "threads": 1, "at_once": 2, **settings}
    if how is not None:
        program = [sys.executable, str(ROOT / "tests/support/stand_in_server.py"), "--port={port}"]
        own = ["--checkpoint", "{checkpoint}", "--how", how, "--pids", str(root / "pids"), *more]
        given |= {"command": [*program, *own]}
    return stages.stage(root, "evaluate", "trl", given, {"checkpoint": model, "rows": data / "instructions"})


def answers(one: stages.Stage) -> dict[str, str]:
    lines = (json.loads(line) for line in (one.output / SAMPLES).read_text().splitlines())
    return {line["id"]: line["hypothesis"] for line in lines}


def left(root: Path) -> list[int]:
    """Processes of the server that are there."""
    found = [int(line) for line in (root / "pids").read_text().split()]
    assert len(found) >= 3
    return [one for one in found if Path(f"/proc/{one}").exists()]


def failure(one: stages.Stage) -> ServerFailed:
    with pytest.raises(ServerFailed) as caught:
        one.start()
    return caught.value


def test_it_answers_as_the_model_does(tmp_path: Path, data: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    direct = evaluation(tmp_path / "direct", data, model, None)
    direct.start()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    served = evaluation(tmp_path / "served", data, model, "model")
    assert served.start().outcome == "done"
    assert left(tmp_path / "served") == []
    assert answers(served) == answers(direct)
    assert len(answers(served)) == 24
    one, other = (results.read(each.output / "evaluation.json")["support"] for each in (served, direct))
    assert one["metrics"]["chrf"]["value"] == other["metrics"]["chrf"]["value"]
    assert (one["engine"], one["model"]) == ("server", "checkpoint")
    assert served.start().outcome == "done"
    assert len((tmp_path / "served/pids").read_text().split()) == 3, "nothing was left to ask: none was started"


def test_one_that_dies_at_its_start(tmp_path: Path, data: Path, model: Path) -> None:
    error = failure(evaluation(tmp_path, data, model, "dies"))
    assert str(error).startswith("the server ended with exit code 1; the end of its log ")
    assert str(error).endswith("0.rank0.server:\nloading the weights\nthere is no such kernel")
    assert error.failure is FailureClass.CODE_ERROR
    assert left(tmp_path) == []


def test_a_program_that_is_not_there(tmp_path: Path, data: Path, model: Path) -> None:
    command = ["/nowhere/python", "{checkpoint}", "{port}"]
    error = failure(evaluation(tmp_path, data, model, None, command=command))
    assert "/nowhere/python: No such file or directory" in str(error)
    assert error.failure is FailureClass.BAD_CONFIGURATION


def test_one_that_is_never_ready(tmp_path: Path, data: Path, model: Path) -> None:
    began = time.monotonic()
    error = failure(evaluation(tmp_path, data, model, "silent", ready=2.0))
    assert time.monotonic() - began < 20
    assert str(error).startswith("the server was not ready after 2 s (engine: {server: {ready: SECONDS}})")
    assert "loading the weights" in str(error)
    assert error.failure is FailureClass.HANG
    assert left(tmp_path) == []


def test_one_that_ends_while_it_answers(tmp_path: Path, data: Path, model: Path) -> None:
    one = evaluation(tmp_path, data, model, "half")
    error = failure(one)
    assert "the server ended with exit code 5" in str(error)
    assert str(error).endswith("loading the weights\nan illegal instruction")
    assert left(tmp_path) == []
    kept = one.spec.store_paths.work
    lines = [line for path in kept.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert len(lines) == 4, "whole groups of two are kept"
    assert not any("problem" in line for line in lines)
    again = evaluation(tmp_path, data, model, "echo")
    assert again.start().outcome == "done"
    assert len(answers(again)) == 24


def test_the_deadline_stops_it(tmp_path: Path, data: Path, model: Path) -> None:
    for how, most in (("echo", 24), ("silent", 1)):
        root = tmp_path / how
        one = evaluation(root, data, model, how, "--slow", "0.5")
        deadline = root / "deadline"
        end = time.time() + 6
        stages.write_deadline(deadline, end)
        result = stages.run_spec(one.spec, StopRequest(one.spec.stage_paths, deadline, 2.0), [])
        assert result.outcome == "stopped"
        assert (result.step or 0) < most
        assert time.time() < end
        assert left(root) == []


def test_nothing_of_it_outlives_a_stage_that_is_killed(tmp_path: Path, data: Path, model: Path) -> None:
    one = evaluation(tmp_path, data, model, "echo", "--slow", "600")
    path = tmp_path / "spec.json"
    spec.save(path, one.spec)
    code = "import sys; from pathlib import Path; from jobs.core.spec import load; from tests.support import stages; "
    start = f"{code}stages.Stage(load(Path(sys.argv[1]))).start()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    stage = subprocess.Popen([sys.executable, "-c", start, str(path)], env=environment, start_new_session=True)
    try:
        wait_until(lambda: (tmp_path / "pids").exists() and len((tmp_path / "pids").read_text().split()) == 3, 120)
        assert len(left(tmp_path)) == 3
    finally:
        stage.kill()
        stage.wait()
    wait_until(lambda: left(tmp_path) == [])


def test_a_model_that_it_does_not_have(tmp_path: Path, data: Path, model: Path) -> None:
    with pytest.raises(BadSettings, match="model 'mine' is none of the server's: it has the-model"):
        stages.with_settings(evaluation(tmp_path, data, model, "echo"), tmp_path, model="mine").start()
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ([], "is empty"),
        (["x", "{port}"], "no part has {checkpoint}"),
        (["x", "{port}", "{checkpoint}", "{home}"], "{home} is not a known placeholder"),
    ],
)
def test_a_command_that_is_refused(tmp_path: Path, data: Path, model: Path, command: list[str], text: str) -> None:
    with pytest.raises(BadSettings, match=text):
        evaluation(tmp_path, data, model, None, command=command).start()


def test_what_is_put_in_is_data() -> None:
    given = {"checkpoint": "/a b/{port}; rm", "port": "7"}
    assert serving.filled(['{"x": 1}', "--at={checkpoint}:{port}"], given) == ['{"x": 1}', "--at=/a b/{port}; rm:7"]


def test_the_environment_of_a_server() -> None:
    ours = {
        "PATH": "/bin", "PYTHONPATH": "/ours", "SLURM_JOB_ID": "1", "RANK": "3", "MASTER_PORT": "1", "TOKEN": "s",
        "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b",
    }  # fmt: skip
    found = serving.environment(ours, "k", {"TOKEN"})
    assert found == {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "GPU-b", "VLLM_API_KEY": "k", "LLAMA_API_KEY": "k"}
    assert serving.environment({"PATH": "/bin"}, "k")["PATH"] == "/bin"
    assert "CUDA_VISIBLE_DEVICES" not in serving.environment({"LOCAL_WORLD_SIZE": "1"}, "k")
