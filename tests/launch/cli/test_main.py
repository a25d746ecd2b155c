"""The command as a whole: what it imports, how errors leave it, and that no command can break another."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

import launch
from launch.base.errors import ClusterUnreachable, InputError, OvernightError, RejectedByCluster
from launch.cli import main

ROOT = Path(launch.__file__).parent.parent
HEAVY = ("torch", "transformers", "nemo_run", "submitit", "trl", "datasets", "huggingface_hub")


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}


def python(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    done = python("-c", code)
    return {name.partition(".")[0] for name in done.splitlines()[-1].split()}


def test_help_is_light() -> None:
    modules = loaded_by("from launch.cli.main import main; main(['--help'])")
    assert not modules & {"yaml", "jinja2", "rich", "json", "polib", "jobs", "asyncio", *HEAVY}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    printed = python("-m", "launch.cli", "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert all(name in printed for name in main.COMMANDS)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.25


def test_no_module_of_launch_imports_an_executor_or_a_trainer() -> None:
    names = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "launch").rglob("*.py")
        if path.name != "__main__.py"
    )
    assert "launch.config.pipeline" in names
    assert not loaded_by("import importlib; [importlib.import_module(name) for name in " + repr(names) + "]") & set(
        HEAVY
    )


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("stats",), "there is no command 'stats'; nearest: status"),
        (("--frobnicate",), "unrecognized arguments: --frobnicate"),
        (("cluster", "up", "--nodes", "many"), "invalid int value: 'many'"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(arguments) == 2
    error = capsys.readouterr().err
    assert part in error
    assert "next: overnight" in error
    assert "Traceback" not in error


def test_version_and_help_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"overnight {launch.__version__}\n"
    assert main.main(["cluster", "--help"]) == 0
    assert "usage: overnight cluster" in capsys.readouterr().out


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[argparse.Namespace], int]], None]:
    """Puts a command of the test's own in the place of ``overnight plan``."""

    def install(run: Callable[[argparse.Namespace], int]) -> None:
        module = types.ModuleType("launch.cli.plan", "A command of the test.")
        module.configure = lambda parser: parser.add_argument("--json", action="store_true")
        module.run = run
        monkeypatch.setitem(sys.modules, "launch.cli.plan", module)

    return install


def raising(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


Install = Callable[[Callable[[argparse.Namespace], int]], None]


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (
            InputError("bad", where="p.yaml:3:4", hint="overnight plan p.yaml"),
            2,
            "overnight: p.yaml:3:4: bad\nnext: overnight plan p.yaml\n",
        ),
        (
            RejectedByCluster("no", command=["sbatch", "x"], exit_code=1, stderr="Invalid account\n", hint="sinfo"),
            3,
            "overnight: no\n  sbatch x: exit 1\n  Invalid account\nnext: sinfo\n",
        ),
        (
            ClusterUnreachable("no answer", command=["squeue"], since=180.2, hint=None),
            4,
            "overnight: no answer\n  squeue: no answer for 180 s\n",
        ),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
        (OSError(28, "No space left on device", "/ws/x"), 2, "overnight: /ws/x: No space left on device\n"),
        (OSError(24, "Too many open files", "/ws/x"), 2, "overnight: /ws/x: Too many open files\n"),
        (OSError(110, "Connection timed out", "/ws/x"), 2, "overnight: /ws/x: Connection timed out\n"),
        (MemoryError(), 2, "overnight: this machine has no memory left for it\n"),
    ],
)
def test_expected_errors(
    plan: Install, error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(raising(error))
    assert main.main(["plan"]) == code
    assert capsys.readouterr().err == text


def test_errors_as_json(plan: Install, capsys: pytest.CaptureFixture[str]) -> None:
    errors: list[OvernightError] = [
        InputError("bad", where="p:1:1", hint="h"),
        RejectedByCluster("no", command=["sbatch"], exit_code=1, stderr="why", hint="h"),
        ClusterUnreachable("?", command=["squeue"], since=3.0, hint="h"),
    ]
    for error in errors:
        plan(raising(error))
        assert main.main(["plan", "--json"]) == error.exit_code
        printed = capsys.readouterr()
        assert printed.out == ""
        answer = json.loads(printed.err)
        assert (answer["error"], answer["message"], answer["hint"]) == (type(error).__name__, error.message, "h")
    assert main.main(["plan", "--json", "--wat"]) == 2
    assert "--wat" in json.loads(capsys.readouterr().err)["message"]


@pytest.mark.parametrize(
    "error", [RuntimeError("oops"), FileNotFoundError(2, "No such file", "x"), RecursionError("deep")]
)
def test_a_bug_is_shown_as_one(plan: Install, error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    plan(raising(error))
    assert main.main(["plan"]) == main.BUG
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert "this is a bug in overnight" in printed


def test_exit_code_and_output_of_a_command_pass(plan: Install, capsys: pytest.CaptureFixture[str]) -> None:
    plan(lambda args: print("out") or 5)
    assert main.main(["plan"]) == 5
    assert capsys.readouterr().out == "out\n"


def test_a_missing_or_broken_command_does_not_break_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = {**main.COMMANDS, "gone": "not there"}
    monkeypatch.setattr(main, "COMMANDS", table)
    assert main.main(["gone"]) == 2
    assert "not part of this installation" in capsys.readouterr().err
    assert main.main(["--help"]) == 0


def test_a_reader_that_leaves_early_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "launch.cli", "--help"],
        env=ENVIRONMENT,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == main.BROKEN_PIPE


@pytest.mark.parametrize("module", ["argparse", "launch.base.errors", "launch.cli.list", "launch.runs.rundir"])
def test_ctrl_c_while_modules_are_imported(tmp_path: Path, module: str) -> None:
    """In the first moments of a command, too, it is one word and the exit code of a signal."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r} and 'launch.cli' in sys.modules:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[3])])
    done = subprocess.run(
        [sys.executable, "-m", "launch.cli", "list", "--workspace", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.strip(), done.stdout) == (130, "interrupted", "")
