"""``overnight why`` for every class of failure of the training stacks: from the line in the log to the change to make.

The log is judged by the code that ends a job; what is printed is the command's.
"""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs import backends
from jobs.core import verdict
from jobs.core.verdict import FailureClass, Outcome
from jobs.lifecycle import steps
from jobs.lifecycle.steps import Start
from launch.cli.main import main
from launch.plan.model import PlannedInput
from launch.render import scripts
from launch.runs.rundir import Run
from tests.support.made_runs import make, said, stage, started, submitted

CLASSES: tuple[tuple[FailureClass, str, str], ...] = (  # class, line in the log, words of the change
    (FailureClass.GPU_MEMORY, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "halve micro_batch_size"),
    (FailureClass.COLLECTIVE_TIMEOUT, "[Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=12) ran for 600001 ms",
     "NCCL_DEBUG: INFO"),
    (FailureClass.TOKENIZER, "RuntimeError: size mismatch for model.embed_tokens.weight: copying a param of shape (32000, 64)",
     "ids and embeddings must be of one vocabulary"),
    (FailureClass.TOKENIZER, "IndexError: index out of range in self", "ids and embeddings must be of one vocabulary"),
    (FailureClass.WRONG_DATA, "Loading dataset nvidia/HelpSteer3", "environments of the profile"),
    (FailureClass.WRONG_DATA, "building MockDataModule for 8 samples", "environments of the profile"),
    (FailureClass.MISSING_GPUS, "RuntimeError: No CUDA GPUs are available", "gpus_per_node"),
    (FailureClass.MISSING_GPUS, "ResourceInsufficientError: 4 of 8 GPUs", "gpus_per_node"),
    (FailureClass.VERSIONS, "ImportError: cannot import name 'Cache' from 'transformers.cache_utils'", "docs/backends.md"),
    (FailureClass.INCOMPLETE_CHECKPOINT, "CheckpointException: /saves/x is not a distributed checkpoint", "the newest save that verifies"),
    (FailureClass.ENVIRONMENT, "/w/attempts/t/job.sh: line 31: srun: command not found", "modules, setup, environments or env"),
    (FailureClass.IMAGE, "slurmstepd: error: pyxis: failed to import docker image: 401 Unauthorized", "credentials on the nodes"),
    (FailureClass.NAMES, "socket.gaierror: [Errno -2] Name or service not known", "getent hosts NAME"),
)  # fmt: skip

OTHER_RUN = {
    FailureClass.GPU_MEMORY, FailureClass.TOKENIZER, FailureClass.WRONG_DATA, FailureClass.MISSING_GPUS, FailureClass.VERSIONS,
    FailureClass.ENVIRONMENT,
}  # fmt: skip


def ended(run: Run, *lines: str) -> str:
    """The stage's only start wrote these lines and ended with 1; the place of the first of them."""
    job = f"local-{os.uname().nodename}-{2**22 + 1}"  # more than any process id
    submitted(run, "cpt", job, carrier="local")
    started(run, "cpt", job)
    log = run.paths.stage("cpt").log(job, 0)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("\n".join(["step 1", *lines, "step 2"]) + "\n")
    plan, profile = run.plan(), run.profile()
    spec = scripts.stage_spec(run, plan, plan.stage("cpt"), profile, "aaaaaa", 1)
    steps.finish(spec, Start(job, 0, 0, "node1"), 1)
    return f"{log}:2"


def asked(run: Run, capsys: pytest.CaptureFixture[str]) -> tuple[str, dict[str, Any]]:
    """What ``overnight why`` says, for people and for machines."""
    capsys.readouterr()
    found = []
    for more in ([], ["--json"]):
        assert main(["why", run.id, "cpt", "--workspace", str(run.workspace.root), *more]) == 1
        found.append(capsys.readouterr().out)
    return found[0], json.loads(found[1])["stages"][0]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.mark.parametrize(
    ("failure", "line", "change"), CLASSES, ids=[f"{each[0].value}-{index}" for index, each in enumerate(CLASSES)]
)
def test_every_class_of_the_stacks_is_told_with_the_change_to_make(
    failure: FailureClass, line: str, change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make(tmp_path / "ws", stage("cpt", executor="local", steps=60), profile={"executor": "local"})
    place = ended(run, line)
    text, told = asked(run, capsys)
    assert told["failure"] == failure.value
    assert line in told["evidence"]
    assert told["source"] == place
    assert change in told["next"]
    command = (
        f"overnight run {tmp_path / 'files' / 'waits.yaml'} --cluster"
        if failure in OTHER_RUN
        else f"overnight resume {run.id}"
    )
    assert f"; then: {command}" in told["next"]
    for words in (
        f"class     {failure.value} (",
        f"shown by  {line}",
        f"in        {place}",
        f"next      {told['next']}",
    ):
        assert words in text, text


LLAMA_1B = {
    "model_type": "llama", "vocab_size": 128256, "num_hidden_layers": 16, "hidden_size": 2048, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 8192, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("backend", "micro", "known", "change"),
    [
        ("automodel", 8, True, "with micro_batch_size: 4 it needs "),
        ("automodel", 1, True, "with options.recompute: true it needs "),
        ("nemo", 1, True, "with options.recompute: selective it needs "),
        ("automodel", 1, False, "options.recompute: true, then options.tensor_parallel: 2"),
        (
            "nemo",
            2,
            False,
            "halve micro_batch_size down to 1, then options.recompute: full, then options.tensor_parallel: 2",
        ),
        ("trl", 1, False, "more nodes, or GPUs with more memory; then"),
    ],
)
def test_out_of_gpu_memory_is_answered_with_what_the_back_end_can_do(
    backend: str, micro: int, known: bool, change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = backends.load(backend).CAPABILITIES.memory
    assert memory is not None
    settings = {"batch_size": 8, "sequence_length": 4096, "precision": "bf16", "micro_batch_size": micro}
    base = PlannedInput("base", "download", "hf", "cd" * 32, is_job=False)
    planned = replace(
        stage("cpt", executor="local", steps=60),
        backend=backend,
        memory=memory,
        inputs={"checkpoint": base},
        settings=settings,
    )
    run = make(tmp_path / "ws", planned, profile={"executor": "local"})
    if known:
        output = run.workspace.entry(base.kind, base.fingerprint).output
        output.mkdir(parents=True)
        (output / "config.json").write_text(json.dumps(LLAMA_1B))
    ended(run, CLASSES[0][1])
    text, told = asked(run, capsys)
    assert change in told["next"]
    assert change in text
    assert "; then: overnight run " in told["next"]


def test_a_conversion_that_is_out_of_memory_is_not_told_of_options_that_it_has_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = replace(stage("cpt", executor="local", resumable=False), kind="convert", backend="nemo")
    run = make(tmp_path / "ws", planned, profile={"executor": "local"})
    ended(run, CLASSES[0][1])
    _, told = asked(run, capsys)
    assert "GPUs with more memory for convert (resources.convert of the profile)" in told["next"]
    assert "micro_batch_size" not in told["next"]


def test_no_gpu_is_visible_where_ray_should_start() -> None:
    torch = pytest.importorskip("torch")
    from jobs.backends.nemo_rl.cluster import ClusterShape, MissingGpus

    if torch.cuda.device_count():
        pytest.skip("this machine has a GPU")
    with pytest.raises(MissingGpus, match=r"no GPU is visible here .* ask for gpus_per_node") as caught:
        ClusterShape.of_job()
    assert verdict.classify(caught.value) is FailureClass.MISSING_GPUS


FEW = (FailureClass.KILLED, FailureClass.IMAGE, FailureClass.ENVIRONMENT)


@pytest.mark.failure(9)
@pytest.mark.parametrize(
    "failure",
    [
        one if one in FEW else pytest.param(one, marks=pytest.mark.full)
        for one in FailureClass
        if one is not FailureClass.NONE
    ],
)
def test_the_command_that_is_suggested_helps(
    failure: FailureClass, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is run: the class is gone, or the user is told what to do first."""
    run = make(tmp_path / "ws", stage("cpt", executor="local", steps=2), profile={"executor": "local"})
    job = f"local-{os.uname().nodename}-{2**22 + 1}"
    submitted(run, "cpt", job, carrier="local")
    started(run, "cpt", job)
    said(run, "cpt", job, Outcome.FAIL, failure, "its line", host="node1")
    main(["why", run.id, "cpt", "--workspace", str(run.workspace.root), "--json"])
    told = json.loads(capsys.readouterr().out)["stages"][0]
    command = shlex.split(told["next"].rpartition("then: ")[2])
    assert command[0] == "overnight"
    code = main([*command[1:], "--workspace", str(run.workspace.root)])
    shown = capsys.readouterr()
    if command[1] == "resume":
        assert code == 0, shown
        assert main(["why", run.id, "cpt", "--workspace", str(run.workspace.root), "--json"]) == 0
        after = json.loads(capsys.readouterr().out)["stages"][0]
        assert (after["state"], after["failure"], after["next"]) == ("sealed", "", "")
    else:  # its pipeline is not here: that is said, and nothing is taken for a bug
        assert code == 2
        assert shown.err.startswith("overnight: ")
        assert str(tmp_path / "files") in shown.err
