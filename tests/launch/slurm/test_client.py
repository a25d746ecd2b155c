"""The gateway against what a real Slurm does not do on demand: small executables on PATH stand in for its commands.

What a real Slurm does on demand is in tests/slurm.
"""

import os
import time
from pathlib import Path

import pytest

from launch.base.errors import ClusterUnreachable, RejectedByCluster
from launch.slurm import ask
from launch.slurm.client import Gateway


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Install a shell script under a command's name; its arguments are appended to ``<name>.calls``."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")

    def install(name, body):
        path = directory / name
        path.write_text(f'#!/bin/bash\nprintf "%s\\n" "$*" >>{directory}/{name}.calls\n{body}\n')
        path.chmod(0o755)
        return directory / f"{name}.calls"

    return install


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "job.sh"
    path.write_text("#!/bin/bash\n")
    return path


@pytest.mark.parametrize(
    "prints",
    [
        "echo 4711",
        "echo '4711;lab'",
        "echo 'Welcome to the 2 clusters'; echo; echo 4711",
        "echo 'sbatch: warning: can not run on 3' >&2; echo 4711",
        "echo 4711; echo 'Have a nice day, job 5'",
        "echo 'Submitted batch job 4711'",
    ],
)
@pytest.mark.failure(11)
def test_job_ids(fake, script, prints):
    calls = fake("sbatch", prints)
    assert Gateway().sbatch(script, extra=["--dependency=afterok:1:2"]) == "4711"
    assert calls.read_text() == f"--parsable --dependency=afterok:1:2 {script}\n"


@pytest.mark.parametrize("prints", ["echo thanks", "true", "echo 4711; exit 1"])
def test_an_answer_that_tells_nothing_is_silence(fake, script, prints):
    fake("sbatch", prints)
    with pytest.raises(ClusterUnreachable, match="not known"):
        Gateway().sbatch(script)


@pytest.mark.failure(10)
def test_socket_timed_out_is_silence(fake, script):
    fake("sbatch", "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv' >&2; exit 1")
    with pytest.raises(ClusterUnreachable, match="Socket timed out") as caught:
        Gateway().sbatch(script)
    assert caught.value.command[0] == "sbatch"


def test_refusal_carries_command_exit_code_and_stderr(fake, script):
    fake("sbatch", "echo 'sbatch: error: AssocMaxSubmitJobLimit' >&2; exit 3")
    with pytest.raises(RejectedByCluster, match="your account limits jobs in the queue") as caught:
        Gateway().sbatch(script)
    assert (caught.value.command_exit_code, caught.value.command[-1]) == (3, str(script))
    assert "AssocMaxSubmitJobLimit" in caught.value.stderr


def test_no_slurm_here(script, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RejectedByCluster, match="no sbatch on this machine"):
        Gateway().sbatch(script)


def test_time_out_kills_the_whole_group(fake, script, tmp_path):
    pid = tmp_path / "pid"
    fake("sbatch", f"sleep 300 & echo $! >{pid}; wait")
    began = time.monotonic()
    with pytest.raises(ClusterUnreachable, match="did not answer") as caught:
        Gateway(sbatch_timeout=1).sbatch(script)
    assert time.monotonic() - began < 5
    assert caught.value.since == pytest.approx(1, abs=1)
    assert _gone(int(pid.read_text()))


def _gone(pid):
    """Gone or a zombie that nobody has reaped yet."""
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.failure(24, 25)
def test_environment_of_the_commands(fake, script, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CPU_BIND", "none")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("KEPT_TOKEN", "kept")
    fake("sbatch", f"env >{tmp_path}/env; pwd >{tmp_path}/cwd; echo 1")
    Gateway(Path("/etc/x/slurm.conf"), keep=["KEPT_TOKEN"]).sbatch(script)
    seen = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line)
    assert seen["SLURM_CONF"] == "/etc/x/slurm.conf"
    assert (seen["LC_ALL"], seen["SLURM_TIME_FORMAT"], seen["KEPT_TOKEN"]) == ("C.UTF-8", "%s", "kept")
    assert not {"SLURM_CPU_BIND", "HF_TOKEN"} & set(seen)
    assert (tmp_path / "cwd").read_text().strip() == str(tmp_path)


def test_a_torn_queue_is_silence(fake):
    fake("squeue", r"printf '\x1e12\x1fRUNNING\x1f17954'")
    with pytest.raises(ClusterUnreachable, match="cannot be read"):
        Gateway().squeue()


def test_a_queue_that_cannot_be_read_is_never_empty(fake):
    fake("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1")
    with pytest.raises(ClusterUnreachable):
        Gateway().squeue()


@pytest.mark.parametrize(
    "body",
    [
        "echo 'Slurm accounting storage is disabled' >&2; exit 1",
        "echo 'sacct: error: Problem talking to the database: Connection refused' >&2; exit 1",
        "sleep 30",
    ],
)
@pytest.mark.failure(20)
def test_no_accounting_is_none(fake, body):
    fake("sacct", body)
    assert Gateway(timeout=1).sacct(since=0) is None


def test_sacct_not_installed(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert Gateway().sacct(since=0) is None


def test_sacct_asks_for_this_user_and_all_runs(fake):
    calls = fake("sacct", "true")
    assert Gateway().sacct(since=86400 * 366) == []
    assert f"-D -n -P --delimiter=\x1f -u {os.getuid()} -S 1971-01-0" in calls.read_text()


def test_cancel_is_one_call_and_none_for_nothing(fake):
    calls = fake("scancel", "true")
    Gateway().scancel([])
    assert not calls.exists()
    Gateway().scancel(["3", "2", "1"])
    assert calls.read_text() == "3 2 1\n"


def test_cancel_of_an_ended_job_is_no_error_in_any_version(fake):
    fake("scancel", "echo 'scancel: error: Kill job error on job id 3: Invalid job id specified' >&2; exit 1")
    Gateway().scancel(["3"])


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("scancel: error: Kill job error on job id 2: Access/permission denied", RejectedByCluster),
        ("scancel: error: Unable to contact slurm controller (connect failure)", ClusterUnreachable),
        ("", ClusterUnreachable),
    ],
)
def test_cancel_failures(fake, said, error):
    fake(
        "scancel",
        f"echo 'scancel: error: Kill job error on job id 3: Invalid job id specified'; echo '{said}' >&2; exit 1",
    )
    with pytest.raises(error):
        Gateway().scancel(["3", "2"])


def noting(directory: Path) -> dict[str, str]:
    """An environment in which Slurm's commands note their arguments and say nothing."""
    for name in ("squeue", "sacct", "scancel", "scontrol", "sinfo"):
        path = directory / name
        path.write_text(f'#!/bin/sh\necho {name} "$@" >>{directory}/calls\n')
        path.chmod(0o755)
    return {"PATH": f"{directory}:/usr/bin:/bin"}


@pytest.mark.failure(18)
def test_every_question_goes_to_the_cluster_of_the_jobs(tmp_path: Path) -> None:
    """Without -M the commands speak of this machine's cluster: the queue would be empty and a cancellation in vain."""
    there = Gateway(environment=noting(tmp_path), cluster="big")
    there.squeue()
    there.sacct(0)
    there.scancel(["7"])
    there.requeue("7")
    there.update_dependency("7", "afterok:8")
    for question in ask.questions("me", []).values():
        if question[0] in ("sinfo", "scontrol"):
            there.ask(question, timeout=60)
    names = ("squeue ", "sacct ", "scancel ", "scontrol ", "sinfo ")
    calls = [line for line in (tmp_path / "calls").read_text().splitlines() if line.startswith(names)]
    assert [call.split()[1:3] for call in calls] == [["-M", "big"]] * 8
    there.ask(["df", "-P", "/"], timeout=60)


@pytest.mark.failure(14)
def test_questions_of_all_commands_keep_the_time_that_the_site_wants(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    first, second = (Gateway(environment=noting(tmp_path), floor=1.0, asked=asked) for _ in range(2))
    began = time.monotonic()
    first.squeue()
    assert time.monotonic() - began < 0.9
    second.squeue()
    assert time.monotonic() - began >= 0.9
