"""Both libraries carry the identical body, and their private hooks are what we take them for."""

import hashlib
import importlib.metadata
import inspect
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from launch.base.errors import InputError, RejectedByCluster
from launch.config.profile import Resources
from launch.render import request
from launch.render.executors import NAMES, carrier, nemo_run
from launch.render.request import JobRequest
from launch.slurm.options import flag_name

pytestmark = pytest.mark.usefixtures("libraries")


@pytest.fixture(scope="module")
def libraries():
    pytest.importorskip("nemo_run")
    pytest.importorskip("submitit")


@pytest.fixture
def asked(tmp_path):
    """A request with everything that one of the libraries would mangle."""
    stage = tmp_path / "nemo_run's $HOME 100%j é" / "stage"
    (stage / "logs").mkdir(parents=True)
    return JobRequest(
        name="r1-cpt.1",
        stage_dir=stage,
        resources=Resources(nodes=2, time="5", cpus=2, mem="200M", account="0123", partition="batch"),
        requeue=True,
        dependency="afterok:7",
        site={"gpus-per-node": "1"},
        sbatch={"comment": 'it\'s $x /nemo_run "y"', "exclusive": True},
        srun=("--mpi=none",),
        setup=("export FOO='a b'", 'echo "$FOO"'),
    )


def parts(text):
    """Header flags, what runs before srun, the srun line."""
    lines = text.splitlines()
    header = {line for line in lines if line.startswith("#SBATCH")}
    at = next(number for number, line in enumerate(lines) if line.startswith("srun "))
    return header, lines[:at], lines[at]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_request_gives_the_same_text(asked, name):
    assert carrier(name).render(asked) == carrier(name).render(asked)


@pytest.mark.failure(27)
def test_both_scripts_have_the_same_header_and_run_the_identical_body(asked):
    nemo, submitit = (parts(carrier(name).render(asked)) for name in NAMES)
    assert nemo[0] == submitit[0]
    for _, before, srun in (nemo, submitit):
        at = before.index("export FOO='a b'")
        assert [line for line in before[at:] if line and not line.startswith(("#", "export SUBMITIT_EXECUTOR"))] == [
            "export FOO='a b'",
            'echo "$FOO"',
            *(line for line in request.setup_lines(asked)[2:] if not line.startswith("#")),
        ]
        assert srun.endswith(f" --mpi=none {asked.start_node}")
    assert sorted(nemo[2].split()) == sorted(submitit[2].split())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.failure(27)
def test_header_says_what_was_asked(asked, name):
    header, _, _ = parts(carrier(name).render(asked))
    flags = {found[1].replace("-", "_") for line in header if (found := re.match(r"#SBATCH --([a-z-]+)", line))}
    assert flags == set(request.header(asked))


@pytest.mark.parametrize("name", NAMES)
def test_a_warning_signal_of_the_profile_is_not_taken_for_the_library_s_own(asked, name):
    header, _, _ = parts(carrier(name).render(replace(asked, sbatch={"signal": "B:USR1@60"})))
    assert [line for line in header if "--signal" in line] == ["#SBATCH --signal=B:USR1@60"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.failure(25)
def test_nothing_traced_nothing_buffered_by_pty_nothing_requeued_behind_our_back(asked, name):
    text = carrier(name).render(asked)
    for unwanted in ("set -evx", "set -x", "UNBUFFEREDIO", "--unbuffered", "--wait=", "wckey", "USR2", "afterok"):
        assert unwanted not in text, unwanted
    library = text.replace("\n".join(request.setup_lines(asked)), "")
    assert library != text
    assert "TORCHX_MAX_RETRIES=0" in library or "scontrol" not in library


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.failure(7, 17)
def test_every_flag_can_be_removed(asked, name):
    text = carrier(name).render(asked)
    header, _, srun = parts(text)
    flags = {flag_name(word) for line in header for word in line.split()[1:2]}
    flags |= {flag_name(word) for word in srun.split() if word.startswith("--")}
    assert {"gpus-per-node", "mem", "exclusive", "comment", "cpus-per-task", "kill-on-bad-exit"} <= flags
    bare = replace(asked, remove=tuple(f"--{flag}" for flag in flags), srun=())
    header, _, srun = parts(carrier(name).render(bare))
    assert (header, srun) == (set(), f"srun {bare.start_node}")


@pytest.mark.parametrize("name", NAMES)
def test_shellcheck(asked, name, tmp_path):
    path = tmp_path / "job.sh"
    path.write_text(carrier(name).render(asked))
    subprocess.run(["bash", "-n", str(path)], check=True)
    # SC1091: host.sh is not followed. The rest is the library's own ending: unquoted $exitcode, redundant checks.
    found = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), "-S", "warning", "-e", "SC1091", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == ""


@pytest.mark.parametrize("name", NAMES)
def test_rendering_needs_no_slurm_and_leaves_no_file(asked, name, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr("shutil.which", lambda *_: None)
    before = sorted(tmp_path.rglob("*"))
    carrier(name).render(asked)
    assert sorted(tmp_path.rglob("*")) == before


class Recorder:
    """A gateway that notes what it is asked to submit."""

    def __init__(self, error=None):
        self.calls = []
        self.error = error

    def sbatch(self, script, *, extra=()):
        self.calls.append((script, list(extra)))
        if self.error:
            raise self.error
        return "4711"


@pytest.mark.parametrize("name", NAMES)
def test_submission_goes_through_the_gateway_once(asked, name, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    gateway = Recorder()
    assert carrier(name).submit(asked, gateway) == "4711"
    script = asked.stage_dir / "job.sh"
    assert gateway.calls == [(script, ["--dependency=afterok:7"])]
    assert script.read_text() == carrier(name).render(asked)
    assert script.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in asked.stage_dir.iterdir()) == ["job.sh", "logs"]
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("name", NAMES)
def test_an_error_of_the_gateway_comes_out_as_it_is(asked, name):
    error = RejectedByCluster("no", command=["sbatch"], exit_code=1, stderr="")
    with pytest.raises(RejectedByCluster) as caught:
        carrier(name).submit(asked, Recorder(error))
    assert caught.value is error


def test_eight_submissions_through_submitit_do_not_wait_for_each_other(asked):
    began = time.monotonic()
    for _ in range(8):
        carrier("submitit").submit(asked, Recorder())
    assert time.monotonic() - began < 1.0  # the library's own spacing alone is 1.4 s


def test_importing_the_package_imports_neither_library():
    code = "import sys, launch.render.executors; sys.exit(bool({'nemo_run', 'submitit', 'torchx'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("name", "extra"), [("nemo_run", "nemo-run"), ("submitit", "submitit")])
def test_missing_library_says_what_to_install(name, extra, tmp_path):
    code = (
        f"import sys, pathlib; sys.modules[{name!r}] = None\n"
        "from launch.config.profile import Resources\n"
        "from launch.render.executors import carrier, JobRequest\n"
        f"carrier({name!r}).render(JobRequest('x', pathlib.Path('/x'), Resources(time='1')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert InputError.__name__ in done.stderr
    assert f"'{name}' needs {name}" in done.stderr


# Canaries: one per private hook. When one fails, read the library's changes before touching the pin.


def changed(library, what):
    return f"{library} {importlib.metadata.version(library)} has changed: {what}; see launch/executors"


@pytest.mark.parametrize(("library", "minor"), [("nemo_run", "0.11."), ("submitit", "1.5.")])
def test_canary_versions(library, minor):
    assert importlib.metadata.version(library).startswith(minor), changed(library, "its minor version")


@pytest.mark.parametrize(
    ("hook", "parameters"),
    [
        ("_make_submission_file_text", ["self", "command", "uid"]),
        ("_internal_process_submissions", ["self", "delayed_submissions"]),
        ("affinity", []),
        ("_valid_parameters", []),
    ],
)
def test_canary_submitit_methods(hook, parameters):
    from submitit.slurm.slurm import SlurmExecutor

    method = getattr(SlurmExecutor, hook, None)
    assert callable(method), changed("submitit", f"SlurmExecutor.{hook} is gone")
    assert list(inspect.signature(method).parameters) == parameters, changed("submitit", f"arguments of {hook}")


def test_canary_submitit_command_property():
    from submitit.slurm.slurm import SlurmExecutor

    assert isinstance(inspect.getattr_static(SlurmExecutor, "_submitit_command_str", None), property), changed(
        "submitit", "SlurmExecutor._submitit_command_str"
    )


def test_canary_submitit_script_parameters():
    from submitit.slurm.slurm import SlurmExecutor

    wanted = {"setup", "srun_args", "stderr_to_stdout", "additional_parameters", "nodes", "time", "ntasks_per_node"}
    assert wanted <= SlurmExecutor._valid_parameters(), changed("submitit", "parameters of the Slurm executor")


def test_canary_nemo_run_job_record():
    from nemo_run.run.torchx_backend.schedulers import slurm

    assert isinstance(getattr(slurm, "SLURM_JOB_DIRS", None), str), changed("nemo_run", "SLURM_JOB_DIRS")
    assert "SLURM_JOB_DIRS" in inspect.getsource(slurm._save_job_dir), changed("nemo_run", "_save_job_dir")


def test_canary_nemo_run_tunnel():
    from nemo_run.core.tunnel.client import LocalTunnel
    from nemo_run.run.torchx_backend.schedulers.slurm import SlurmTunnelScheduler

    assert list(inspect.signature(LocalTunnel.run).parameters)[:2] == ["self", "command"], changed(
        "nemo_run", "LocalTunnel.run"
    )
    source = inspect.getsource(SlurmTunnelScheduler.schedule)
    assert source.count("self.tunnel.run(") == 1, changed("nemo_run", "schedule() runs more than sbatch")


def test_canary_nemo_run_script_name():
    from nemo_run.run.torchx_backend.schedulers.slurm import SlurmTunnelScheduler

    assert "{executor.job_name}_sbatch.sh" in inspect.getsource(SlurmTunnelScheduler._submit_dryrun), changed(
        "nemo_run", "where submit_dryrun writes the script"
    )


def test_canary_nemo_run_template():
    from importlib import resources

    text = resources.files("nemo_run.core.execution").joinpath("templates/slurm.sh.j2").read_bytes()
    assert hashlib.sha256(text).hexdigest() == TEMPLATE, changed("nemo_run", "the template slurm.sh.j2: read it again")
    assert len(nemo_run._EDITS) == 5


#: Of nemo_run 0.11.1.
TEMPLATE = "191474dba5a5fb7ca2ed757c1da4d2542821f7145f92f49351795d1f3245aa6c"
