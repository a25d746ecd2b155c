"""What the light commands import. Their speed is measured by ``benchmarks/cli.py``; what makes them slow is caught here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import launch
from tests.support.base_model import complete

ROOT = Path(launch.__file__).parent.parent
HEAVY = {
    "accelerate", "datasets", "fastapi", "fiddle", "gguf", "huggingface_hub", "leptonai", "nemo_run", "numpy", "pandas",
    "sacrebleu", "submitit", "tokenizers", "torch", "torchx", "transformers", "trl",
}  # fmt: skip
SHOWING = {"jinja2", "pydantic", "rich"}
"""Light enough for a bar or a script, too much for a table."""

PIPELINE = """\
name: light
model: {base: ./base}
stages:
  corpus: {kind: corpus, from: text.txt}
  cpt: {kind: cpt, checkpoint: base, data: corpus, steps: 4, lr: 1e-5}
  final: {kind: evaluate, checkpoint: cpt, tasks: {perplexity: {data: corpus}}}
"""


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text("One line.\n", encoding="utf-8")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}\n", encoding="utf-8")
    complete(tmp_path / "base")
    path = tmp_path / "light.yaml"
    path.write_text(PIPELINE, encoding="utf-8")
    return path


def imported_by(*arguments: str | Path) -> set[str]:
    """Top-level packages that a Python process imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    found = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert len(found) > 10
    return found


def test_help_imports_next_to_nothing() -> None:
    found = imported_by("-m", "launch.cli", "--help")
    assert not found & (HEAVY | SHOWING | {"json", "pathlib", "subprocess", "yaml"})


@pytest.mark.parametrize("cluster", ["devcluster", "local"])
def test_plan_imports_no_executor_no_trainer_and_nothing_to_draw_with(pipeline: Path, cluster: str) -> None:
    found = imported_by(
        "-m", "launch.cli", "plan", pipeline, "--cluster", cluster, "--workspace", pipeline.parent / "w"
    )
    assert {"launch", "yaml"} <= found
    assert not found & (HEAVY | SHOWING)


COUNTED = """\
import json, sys
started = []
sys.addaudithook(lambda event, given: started.append(str(given[0])) if event == "subprocess.Popen" else None)
from launch.cli.main import main
code = main(sys.argv[1:])
print(json.dumps({"code": code, "started": started, "modules": sorted(sys.modules)}))
"""


def test_a_second_plan_starts_no_process_and_imports_little(pipeline: Path) -> None:
    command = [sys.executable, "-c", COUNTED, "plan", str(pipeline), "--cluster", "devcluster"]
    command += ["--workspace", str(pipeline.parent / "w")]
    found: list[dict] = []
    # What has changed within the last seconds is not kept: a test before may have written beside our packages.
    while not found or (found[-1]["started"] and len(found) < 5):
        time.sleep(2.5 if found else 0)
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        found.append(json.loads(done.stdout.splitlines()[-1]))
        assert found[-1]["code"] == 0
    assert len(found[0]["started"]) == 1
    assert found[-1]["started"] == []
    modules = set(found[-1]["modules"])
    ours = {name for name in modules if name.startswith(("launch.", "jobs."))}
    # Of jobs and queues a plan that finds no attempt needs nothing.
    assert not {"launch.slurm.client", "launch.slurm.queue", "launch.runs.attempt_state", "launch.status.model"} & ours
    assert not {"statistics", "asyncio", "concurrent.futures", "http.client", "multiprocessing"} & modules
    assert len(ours) < 105, sorted(ours)
    assert len(modules) < 360, sorted(modules)


def test_the_probe_of_the_back_ends_reads_versions_without_importing_the_packages() -> None:
    found = imported_by(ROOT / "jobs" / "boot.py", "probe", "convert", "data", "toy", "trl")
    assert "jobs" in found
    assert not found & (HEAVY | SHOWING)
