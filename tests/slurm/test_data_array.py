"""``overnight data corpus --cluster`` on a real Slurm: the bytes of a local build, bad input with its place, and a
build that was killed goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.cli.main import main
from tests.support.slurm import Slurm

pytest.importorskip("submitit")
pytest.importorskip("tests.support.prepared", exc_type=ImportError)

from tests.support.prepared import document, tree, write_lines, write_tokenizer

pytestmark = pytest.mark.slurm


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slurm: Slurm) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("OVERNIGHT_DEVCLUSTER", str(slurm.directory))
    monkeypatch.setenv("SLURM_CONF", str(slurm.slurm_conf))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "in.jsonl", [{"text": document(seed % 100)} for seed in range(120)])


def corpus(source: Path, output: Path, *more: str) -> list[str]:
    return ["data", "corpus", str(source), "--output", str(output), "--json", *more]


@pytest.mark.parametrize("executor", ["submitit", pytest.param("nemo_run", marks=pytest.mark.full)])
def test_an_array_of_jobs_writes_the_bytes_of_a_local_build(tmp_path: Path, source: Path, executor: str) -> None:
    pytest.importorskip(executor)
    profile = tmp_path / "lab.yaml"
    profile.write_text(f"extends: devcluster\nexecutors: {{corpus: {executor}}}\n", encoding="utf-8")
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    settings = ("--set", f"tokenizer={tokenizer}", "--set", "shard_bytes=30000")
    assert main(corpus(source, tmp_path / "local", *settings)) == 0
    assert main(corpus(source, tmp_path / "array", *settings, "--cluster", str(profile))) == 0
    found = tree(tmp_path / "array")
    assert found == tree(tmp_path / "local")
    assert json.loads(found["card.json"])["dropped"] == {"duplicate": 20}
    assert len(found["megatron/train_text_document.bin"]) > 1000


def test_bad_input_of_a_job_has_its_place(tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open(source, "a", encoding="utf-8") as stream:
        stream.write('{"text": null}\n')
    settings = ("--set", "shard_bytes=60000", "--cluster", "devcluster")
    assert main(corpus(source, tmp_path / "out", *settings)) != 0
    shown = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert shown["message"] == f'{source}:121: field "text" is null'


def test_a_job_that_fails_is_named_with_its_shard_and_log(
    tmp_path: Path, source: Path, slurm: Slurm, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/bash\necho no such interpreter\nexit 9\n", encoding="utf-8")
    python.chmod(0o755)
    profile = tmp_path / "lab.yaml"
    profile.write_text(
        "executor: slurm\ndevcluster: true\npartition: batch\npoll_seconds: 2.0\n"
        f"environments: {{data: {{venv: {tmp_path / 'venv'}}}}}\n"
        'resources: {corpus: {time: "5", mem: 60M, cpus: 1}}\n',
        encoding="utf-8",
    )
    assert main(corpus(source, tmp_path / "out", "--cluster", str(profile))) == 2
    shown = json.loads(capsys.readouterr().err.splitlines()[-1])
    found = re.fullmatch(
        r"the job of shard 0 \(read\) ended with exit code 9; its log: (.*/(\d+)_0\.log)", shown["message"]
    )
    assert found, shown
    assert "no such interpreter" in Path(found[1]).read_text()
    assert slurm.job(found[2])["MinMemoryNode"] == "60M"


def test_interrupted_it_cancels_its_array(tmp_path: Path, source: Path, slurm: Slurm) -> None:
    settings = ("--set", "shard_bytes=5000", "--cluster", "devcluster", "--jobs", "1")
    command = [sys.executable, "-m", "launch.cli", *corpus(source, tmp_path / "out", *settings)]
    process = subprocess.Popen(
        command,
        cwd=Path(__file__).parents[2],
        env={**slurm.environment, **os.environ},
        stderr=subprocess.PIPE,
        text=True,
    )
    seals = tmp_path / "out.work" / "read"
    end = time.monotonic() + 180
    while not list(seals.glob("[0-9]*/seal.json")) and time.monotonic() < end:
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=180)
    assert process.returncode == 130
    array = re.search(r"job (\d+) is cancelled", said)
    assert array, said
    end = time.monotonic() + 120  # a job that is cancelled may complete for a while
    while array[1] in slurm.run(["squeue", "--noheader", "--array", "--format=%F"]).stdout.split():
        assert time.monotonic() < end, slurm.jobs()
        time.sleep(0.2)
    assert [path.name for path in (tmp_path / "out.work").glob("runs/*/stages/read-0/tasks.json")]
    assert not [path for path in (tmp_path / "out.work").rglob("*") if path.suffix in (".pkl", ".pickle")]
    assert len(list(seals.glob("[0-9]*/seal.json"))) < len(
        json.loads((tmp_path / "out.work/plan.json").read_text())["plan"]["shards"]
    )


@pytest.mark.full
def test_killed_half_way_it_does_only_what_is_missing(tmp_path: Path, source: Path, slurm: Slurm) -> None:
    settings = ("--set", "shard_bytes=10000", "--cluster", "devcluster", "--jobs", "1")
    command = [sys.executable, "-m", "launch.cli", *corpus(source, tmp_path / "out", *settings)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], env={**slurm.environment, **os.environ})
    seals = tmp_path / "out.work" / "read"
    end = time.monotonic() + 180
    while len(list(seals.glob("[0-9]*/seal.json"))) < 2 and time.monotonic() < end:
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    slurm.scancel_all()
    before = {path: path.stat().st_mtime_ns for path in seals.glob("[0-9]*/seal.json")}
    assert before
    assert not (seals / "00005").exists()
    again = subprocess.Popen(
        [*command, "--jobs", "4"], cwd=Path(__file__).parents[2], env={**slurm.environment, **os.environ}
    )
    decided = tmp_path / "out.work" / "decide"
    kept: dict[Path, int] = {}
    while not kept and again.poll() is None:  # the work directory goes at the end
        if decided.exists():
            try:
                kept = {path: path.stat().st_mtime_ns for path in before}
            except FileNotFoundError:
                break
        time.sleep(0.02)
    assert again.wait(timeout=300) == 0
    assert kept == before
    assert main(corpus(source, tmp_path / "local", "--set", "shard_bytes=10000")) == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "local")
