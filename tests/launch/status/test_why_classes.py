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
from jobs.core.paths import Workspace
from jobs.core.verdict import FailureClass, Outcome
from jobs.lifecycle import steps
from jobs.lifecycle.start import Start
from launch.cli.main import main
from launch.plan.model import PlannedInput
from launch.render import scripts
from launch.runs import rundir
from launch.runs.rundir import Run
from launch.submit import prepare
from launch.submit.prepare import PipelineOnCluster
from tests.support import commands
from tests.support.llamas import LLAMA_1B
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
    (FailureClass.VERSIONS, "ModuleNotFoundError: No module named 'torch'", "install it into the environment"),
    (FailureClass.VERSIONS, "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).", "a torch for an older CUDA"),
    (FailureClass.BAD_CONFIGURATION, "Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 60", "leave CUDA_VISIBLE_DEVICES out"),
    (FailureClass.BAD_CONFIGURATION, "Bootstrap : no socket interface found", "names no interface of that node"),
    (FailureClass.MISSING_GPUS, "RuntimeError: CUDA error: uncorrectable ECC error encountered", "tell the site"),
    (FailureClass.ENVIRONMENT, "RuntimeError: unable to write to file </torch_4242_1_0>", "/dev/shm of that node"),
    (FailureClass.INCOMPLETE_CHECKPOINT, "CheckpointException: /saves/x is not a distributed checkpoint", "the newest save that verifies"),
    (FailureClass.ENVIRONMENT, "/w/attempts/t/job.sh: line 31: srun: command not found", "modules, setup, environments or env"),
    (FailureClass.IMAGE, "slurmstepd: error: pyxis: failed to import docker image: 401 Unauthorized", "credentials on the nodes"),
    (FailureClass.NAMES, "socket.gaierror: [Errno -2] Name or service not known", "getent hosts NAME"),
)  # fmt: skip

OTHER_RUN = {
    FailureClass.GPU_MEMORY, FailureClass.TOKENIZER, FailureClass.WRONG_DATA, FailureClass.MISSING_GPUS, FailureClass.VERSIONS,
    FailureClass.ENVIRONMENT, FailureClass.BAD_CONFIGURATION,
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
    declared = backends.load(backend).CAPABILITIES.memory
    memory = declared and declared.installed(())
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


STAGES = """\
  corpus: {kind: corpus, from: ./text, split: {test: 0}}
  cpt: {kind: cpt, backend: toy, checkpoint: base, data: corpus, steps: 2, lr: 0.5, batch_size: 2}
"""


class Here:
    """A pipeline that runs on this machine, and the commands, each in a process of its own."""

    def __init__(self, directory: Path, stages: str = STAGES) -> None:
        self.directory = directory
        self.text, self.pipeline = directory / "text" / "0.txt", directory / "p.yaml"
        self.text.parent.mkdir()
        for number in range(40):
            (self.text.parent / f"{number}.txt").write_text(f"Line {number} of a text about {number * 7} things.\n")
        (directory / "base").mkdir()
        (directory / "base" / "config.json").write_text('{"model_type": "llama"}')
        (directory / "base" / "model.safetensors").write_bytes(bytes(64))
        self.pipeline.write_text(f"name: here\nmodel: {{base: ./base}}\nstages:\n{stages}")

    def do(self, *command: str) -> tuple[int, str]:
        """Exit code and output."""
        workspace = ("--workspace", str(self.directory / "ws"))
        done = commands.overnight(*command, *workspace, cwd=self.directory, environment=os.environ)
        return done.returncode, done.stdout + done.stderr

    def start(self) -> int:
        assert self.do("fetch", str(self.pipeline))[0] == 0
        return self.do("run", str(self.pipeline), "--cluster", "local")[0]

    @property
    def run(self) -> Run:
        (name, *_) = sorted(os.listdir(self.directory / "ws" / "runs"), key=lambda name: self._made(name))
        return Run(Workspace(self.directory / "ws"), name)

    def _made(self, name: str) -> int:
        return (self.directory / "ws" / "runs" / name / "plan.json").stat().st_mtime_ns

    def why(self, stage: str) -> dict[str, Any]:
        """Of the first run."""
        return dict(json.loads(self.do("why", self.run.id, stage, "--json")[1])["stages"][0])

    def follow(self, stage: str) -> None:
        """Do what is suggested for a stage of the first run; then it is sealed, and nothing is wrong with it."""
        for part in self.why(stage)["next"].split("; then: "):
            if part.startswith("overnight ") and " shows " not in part:
                code, said = self.do(*shlex.split(part)[1:])
                assert code == 0, said
        after = self.why(stage)
        assert (after["state"], after["failure"], after["next"]) == ("sealed", "", ""), after


TOLD_FIRST = set(FailureClass) - {
    FailureClass.NONE, FailureClass.TIME_LIMIT, FailureClass.PREEMPTED, FailureClass.NODE_FAILURE, FailureClass.KILLED,
    FailureClass.HANG, FailureClass.BROKEN_INPUT, FailureClass.CANCELLED, FailureClass.CLAIM_LOST,
}  # fmt: skip
"""Classes of which something else has to be done before the command."""


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
def test_the_command_that_is_suggested_helps(failure: FailureClass, tmp_path: Path) -> None:
    """It is run: the class is gone. What has to be done before it is said, of each class that would come again."""
    here = Here(tmp_path, STAGES.splitlines()[0] + "\n")
    planned = prepare.plan(PipelineOnCluster(here.pipeline, "local", workspace=tmp_path / "ws"))
    run = rundir.create(planned.workspace, planned.pipeline, planned.profile, planned.plan)
    job = f"local-{os.uname().nodename}-{2**22 + 1}"
    submitted(run, "corpus", job, carrier="local")
    started(run, "corpus", job)
    said(run, "corpus", job, Outcome.FAIL, failure, "its line", host="node1")
    found = here.why("corpus")
    assert found["failure"] == failure.value
    assert ("; then: " in found["next"]) == (failure in TOLD_FIRST), found["next"]
    here.follow("corpus")


@pytest.mark.failure(9)
def test_a_file_that_has_gone_is_to_be_put_back(tmp_path: Path) -> None:
    here = Here(tmp_path, STAGES.splitlines()[0] + "\n")
    aside = _away_after_planning(here)
    assert here.why("corpus")["failure"] == "missing_input", here.why("corpus")
    assert "put back the file" in here.why("corpus")["next"]
    aside.rename(here.text)
    here.follow("corpus")


def _away_after_planning(here: Here) -> Path:
    """A run that was planned while the data were there, and found them no more."""
    planned = prepare.plan(PipelineOnCluster(here.pipeline, "local", workspace=here.directory / "ws"))
    run = rundir.create(planned.workspace, planned.pipeline, planned.profile, planned.plan)
    aside = here.text.rename(here.directory / "aside.txt")
    assert here.do("resume", run.id)[0] == 1
    return aside


@pytest.mark.failure(9)
def test_data_that_changed_after_planning_are_planned_again(tmp_path: Path) -> None:
    here = Here(tmp_path, STAGES.splitlines()[0] + "\n")
    _away_after_planning(here)
    here.text.write_text("Other text, changed.\n")
    code, text = here.do("resume", here.run.id)
    assert code == 2
    assert "changed since run" in text
    code, text = here.do(*shlex.split(text.rpartition("next: ")[2])[1:])
    assert code == 0, text
    assert here.why("corpus")["state"] != "sealed", "of the data as they were there is no result"
    assert len(os.listdir(tmp_path / "ws" / "runs")) == 2


@pytest.mark.full
@pytest.mark.failure(9, 30)
@pytest.mark.parametrize("what", ["base", "corpus"])
def test_a_damaged_input_is_brought_or_made_again(what: str, tmp_path: Path) -> None:
    here = Here(tmp_path)
    assert here.start() == 0
    cpt = here.run.plan().stage("cpt").store(here.run.workspace)
    cpt.root.rename(cpt.root.with_name("aside"))
    kind = {"base": "download", "corpus": "dataset"}[what]
    (entry,) = here.run.workspace.store.glob(f"{kind}-*")
    path = next(path for path in (entry / "output").rglob("*") if path.suffix in (".safetensors", ".jsonl"))
    flipped = bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]
    path.unlink()  # it may be a link to the user's own
    path.write_bytes(flipped)
    assert here.do("resume", here.run.id)[0] == 1
    found = here.why("cpt")
    assert found["failure"] == "broken_input"
    assert ("overnight fetch" in found["next"]) == (what == "base")
    here.follow("cpt")
