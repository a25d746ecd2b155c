"""W&B and MLflow are told of a run afterwards, without network: one id a stage, each step once, over all calls."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from jobs.core.progress import ProgressWriter
from launch.base.errors import InputError
from launch.runs.rundir import Run
from launch.status import trackers
from tests.support.toy_chain import Chain

STAGES = """\
  pairs: {kind: instructions, from: ./sft.jsonl}
  sft: {kind: sft, backend: toy, checkpoint: base, data: pairs, steps: 6, lr: 1.0, batch_size: 8, validate_every: 3}
"""


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    made = Chain.make(tmp_path_factory.mktemp("chain"), STAGES)
    made.fetch()
    made.start()
    return made


@pytest.fixture(autouse=True)
def nothing_told(chain: Chain) -> None:
    shutil.rmtree(chain.workspace.run(chain.newest_run).tracked, ignore_errors=True)


def more(chain: Chain, restart: int, *steps: int) -> None:
    writer = ProgressWriter(chain.stage("sft").progress, restart)
    for step in steps:
        writer.report(step, 9, "", loss=float(step))


def test_each_step_is_told_once_and_a_tracker_that_fails_changes_nothing(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(chain.workspace, chain.newest_run)
    calls: list[tuple[str, list[int], Any]] = []

    def tracker(run: Run, name: str, project: str, reports: list[Any], told: dict[str, Any]) -> str:
        calls.append((project, [report.step for report in reports], told.get("id")))
        if len(calls) == 2:
            raise ConnectionError("no route to host")
        return f"{run.id}-{name}"

    monkeypatch.setitem(trackers.TRACKERS, "wandb", tracker)
    sealed = chain.seal("sft")
    told = trackers.tell(run, run.plan(), "wandb", "p")
    assert told == {"sft": {"id": f"{run.id}-sft", "step": 6}}
    assert trackers.tell(run, run.plan(), "wandb", "p") == told
    more(chain, 1, 5, 6, 7)
    with pytest.raises(InputError, match="wandb did not accept the values of stage sft: no route to host"):
        trackers.tell(run, run.plan(), "wandb", "p")
    assert trackers.tell(run, run.plan(), "wandb", "p") == {"sft": {"id": f"{run.id}-sft", "step": 7}}
    assert calls == [("p", [1, 2, 3, 4, 5, 6], None), *2 * [("p", [7], f"{run.id}-sft")]]
    assert chain.seal("sft") == sealed


def test_what_was_told_before_a_failure_is_neither_made_nor_told_again(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str | None, list[int]]] = []

    def tracker(run: Run, name: str, project: str, reports: list[Any], told: dict[str, Any]) -> str:
        calls.append((told.get("id"), [report.step for report in reports]))
        told.setdefault("id", "theirs")
        if len(calls) == 1:
            told["step"] = 2
            raise ConnectionError("gone")
        return str(told["id"])

    monkeypatch.setitem(trackers.TRACKERS, "mlflow", tracker)
    run = Run(chain.workspace, chain.newest_run)
    with pytest.raises(InputError, match="gone"):
        trackers.tell(run, run.plan(), "mlflow", "p")
    trackers.tell(run, run.plan(), "mlflow", "p")
    assert calls[0][0] is None
    assert calls[1][0] == "theirs"
    assert calls[0][1] == [1, 2, *calls[1][1]]


def test_one_that_is_not_installed_says_so(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*given: Any) -> str:
        raise ImportError("No module named 'mlflow'")

    monkeypatch.setitem(trackers.TRACKERS, "mlflow", missing)
    run = Run(chain.workspace, chain.newest_run)
    with pytest.raises(InputError, match="mlflow is not installed here") as raised:
        trackers.tell(run, run.plan(), "mlflow", "p")
    assert raised.value.hint == "pip install 'overnight[mlflow]'"


def test_wandb_without_network(chain: Chain) -> None:
    """By the real library, twice: one id, and each step once."""
    pytest.importorskip("wandb", reason="W&B is not installed: pip install 'overnight[wandb]'")
    offline = Chain(chain.directory, environment={"WANDB_MODE": "offline", "WANDB_SILENT": "true"})
    run = chain.newest_run
    told = json.loads(offline.overnight("track", run, "--to", "wandb", "--json").stdout)["stages"]["sft"]
    more(chain, 2, told["step"] + 1)
    again = offline.overnight("track", run, "--to", "wandb").stdout
    assert again.splitlines()[-1] == f"sft: wandb id {run}-sft, up to step {told['step'] + 1}"
    found = list((chain.workspace.run(run).tracked / "wandb").glob("offline-run-*"))
    assert {path.name.split("-", 3)[3] for path in found} == {f"{run}-sft"}
    steps = [step for path in sorted(found) for step in logged(next(path.glob("*.wandb")))]
    assert steps == list(range(1, told["step"] + 2))


def logged(path: Path) -> list[int]:
    """The steps in a file of W&B: records in blocks of 32 KiB, each part with checksum, length and whether it is whole
    (1), a first (2), a middle (3) or a last one (4)."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, record, found = path.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        size, part = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        if left < 7 or part == 0:
            at += left
            continue
        record += content[at + 7 : at + 7 + size]
        at += 7 + size
        if part in (1, 4):
            made = Record.FromString(record)
            if made.WhichOneof("record_type") == "history":
                found.append(made.history.step.num)
            record = b""
    return found


def test_mlflow_without_network(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the real library, twice, into files below the run."""
    tracking = pytest.importorskip(
        "mlflow.tracking", reason="MLflow is not installed: pip install 'overnight[mlflow]'", exc_type=ImportError
    )
    run = chain.newest_run
    told = json.loads(chain.overnight("track", run, "--to", "mlflow", "--json").stdout)["stages"]["sft"]
    more(chain, 3, told["step"] + 1)
    again = json.loads(chain.overnight("track", run, "--to", "mlflow", "--json").stdout)["stages"]["sft"]
    assert again == {"id": told["id"], "step": told["step"] + 1}
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # to look at it here; the command says so by itself
    client = tracking.MlflowClient((chain.workspace.run(run).tracked / "mlflow").as_uri())
    found = client.get_metric_history(told["id"], "train/loss")
    assert [one.step for one in found] == list(range(1, told["step"] + 2))
    assert client.get_experiment_by_name("toy-chain") is not None
    assert [one.step for one in client.get_metric_history(told["id"], "validation/loss")] == [3, 6]
