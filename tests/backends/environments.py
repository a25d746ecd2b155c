"""Environments of the NVIDIA back ends for tests: installed by make, and copies in which they run without a GPU.

A job's environment is the profile's business and nothing of ours leads PYTHONPATH into it, so the shim comes the way in
which anything does that a site adds to a virtual environment: by a ``.pth`` file, here in a small environment that
stands in front of the installed one.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jobs.core.spec import save
from tests.backends.stages import Stage

ROOT = Path(__file__).resolve().parents[2]
SHIMS = Path(__file__).parent / "cpu_shims"


def installed(name: str, needed: str) -> Path:
    """The environment that ``make venv-NAME`` made, or that OVERNIGHT_NAME_VENV names; skips the test without one.

    ``needed``: a module of it, so that an installation that was cut off is none.
    """
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
    script = Path(__file__).with_name("one_start.py")
    done = subprocess.run(
        [str(python), *launcher, str(script), str(path), str(stop_after)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    output = done.stdout + done.stderr
    if fails:
        assert done.returncode != 0, output[-3000:]
        return {"output": output}
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, output[-6000:]
    return dict(json.loads(lines[-1].removeprefix("RESULT ")))


def publish(given: Stage) -> Path:
    """What the finish of a job does: the stage's entry, for the next one to read."""
    store = given.spec.store_paths
    store.partial.rename(store.output)
    return store.root
