"""Environments of the NVIDIA back ends for tests: installed by make, and copies in which they run without a GPU.

A job's environment is the profile's business and nothing of ours leads PYTHONPATH into it, so the shim comes the way in
which anything does that a site adds to a virtual environment: by a ``.pth`` file, here in a small environment that
stands in front of the installed one.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from jobs.core.spec import save
from tests.support.stages import Stage

ROOT = Path(__file__).resolve().parents[2]
SHIMS = Path(__file__).parent / "cpu_shims"
IN_NEMO = Path(__file__).parent / "in_nemo"

FIXTURES = frozenset({"nemo", "automodel"})
"""A test with one of these needs an environment of NVIDIA's, and is marked so."""

is_asked_for = True
"""Whether the test that runs is one of ``make test-nvidia``."""


def installed(name: str, needed: str) -> Path:
    """The environment that ``make venv-NAME`` made, or that OVERNIGHT_NAME_VENV names; skips the test without one.

    ``needed``: a module of it, so that an installation that was cut off is none.
    """
    assert is_asked_for, "mark this test: pytest.mark.nvidia"
    given = os.environ.get(f"OVERNIGHT_{name.upper()}_VENV")
    venv = Path(given) if given else ROOT / f".venv-{name}"
    if not any(venv.glob(f"lib/python3.*/site-packages/{needed}")) or not (given or (venv / ".done").exists()):
        pytest.skip(f"{venv} has no {needed}: make venv-{name}, or set OVERNIGHT_{name.upper()}_VENV")
    return venv


def on_cpu(venv: Path, directory: Path) -> Path:
    """An environment at ``directory`` that finds everything of ``venv`` and runs it on the CPU."""
    subprocess.run([str(venv / "bin/python"), "-m", "venv", "--without-pip", str(directory)], check=True, timeout=120)
    (packages,) = venv.glob("lib/python3.*/site-packages")
    (target,) = directory.glob("lib/python3.*/site-packages")
    lines = (f"import site; site.addsitedir({str(packages)!r})", str(SHIMS), "import cpu_shim")
    (target / "cpu_shim.pth").write_text("\n".join(lines) + "\n")
    return directory


def start(python: Path, given: Stage, stop_after: int = 0, ranks: int = 1, fails: bool = False) -> dict[str, Any]:
    """One start of a stage by an environment's Python: its result, or with ``fails`` its output as ``output``."""
    path = given.spec.stage_paths.root / "spec.json"
    save(path, given.spec)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    script = IN_NEMO / "one_start.py"
    done = subprocess.run(
        [str(python), *launcher, str(script), str(path), str(stop_after)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    output = done.stdout + done.stderr
    if fails:
        assert done.returncode != 0, output[-3000:]
        return {"output": output}
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, output[-6000:]
    return dict(json.loads(lines[-1].removeprefix("RESULT ")))


@dataclass
class Starts:
    """Starts one after the other with one import of NeMo (``nemo_starts.py``), below ``root``."""

    root: Path
    plan: list[dict[str, Any]] = field(default_factory=list)

    def add(self, given: Stage, stop_after: int = 0, ranks: int = 1, publish: bool = False) -> Stage:
        """One more start of a stage; ``publish``: its entry is there for the starts that follow."""
        path = given.spec.stage_paths.root / f"start{len(self.plan)}.json"
        save(path, given.spec)
        self.plan.append({"spec": str(path), "stop_after": stop_after, "ranks": ranks, "publish": publish})
        return given

    def script(self, name: str, *arguments: str) -> None:
        """One more fork that runs a script of this directory; what it prints last, in JSON, is its result."""
        log = self.root / f"script{len(self.plan)}.json"
        self.plan.append({"spec": str(log), "script": [name, *arguments], "ranks": 1, "publish": False})

    def run(self, python: Path, **environment: str) -> list[dict[str, Any]]:
        """Results in the order of the starts; ``output`` in that of one that failed, which only ``fails`` in the plan allows."""
        path = self.root / "plan.json"
        path.write_text(json.dumps(self.plan))
        done = subprocess.run(
            [str(python), str(IN_NEMO / "nemo_starts.py"), str(path)],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        words = "RESULT "
        found = [json.loads(line.removeprefix(words)) for line in done.stdout.splitlines() if line.startswith(words)]
        if len(found) < len(self.plan):
            raise AssertionError(found[-1].get("output", done.stderr) if found else done.stderr[-6000:])
        for one, result in zip(self.plan, found, strict=True):
            assert one.get("fails") or "output" not in result, result["output"]
        return found


def publish(given: Stage) -> Path:
    """What the finish of a job does: the stage's entry, for the next one to read."""
    store = given.spec.store_paths
    store.partial.rename(store.output)
    return store.root
