"""Every form in which a profile can ask for GPUs, on a real Slurm: the work has as many on each node as were asked for."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.core.files import write_atomic
from jobs.core.paths import Workspace
from launch.config.profile_fields import GpuForm
from launch.config.profile_file import read_profile
from launch.render import scripts
from launch.render.executors import carrier
from launch.runs.rundir import Run
from launch.site import test_only
from launch.slurm.client import Gateway
from tests.support.slurm import Slurm

pytestmark = pytest.mark.slurm

GPUS, NODES = 2, 2


@pytest.mark.failure(17)
@pytest.mark.parametrize("model", ["h100", pytest.param(None, marks=pytest.mark.full)])
@pytest.mark.parametrize("form", [form for form in GpuForm if form is not GpuForm.NONE])
def test_the_work_gets_what_was_asked_for(slurm: Slurm, tmp_path: Path, form: GpuForm, model: str | None) -> None:
    path = tmp_path / "lab.yaml"
    request = f"{{form: {form}{f', model: {model}' if model else ''}}}"
    path.write_text(
        f"executor: slurm\npartition: batch\ngpu_request: {request}\n"
        f'resources: {{default: {{time: "5", nodes: {NODES}, gpus_per_node: {GPUS}, cpus: 1}}}}\n'
    )
    profile = read_profile(path).profile
    run = Run(Workspace(tmp_path), "abcde")
    stage = test_only.stage_of(profile, "cpt", profile.resources_for("cpt"), "submitit", test_only.NAME, sys.executable)
    asked = replace(scripts.request(run, stage, profile, "a", 0, None), name=f"gpus-{tmp_path.name}")
    asked.logs.mkdir(parents=True)
    asked.scripts.root.mkdir(parents=True)
    write_atomic(asked.scripts.host, "")
    seen = tmp_path / "seen"
    write_atomic(
        asked.scripts.node, f'#!/bin/bash\necho "$SLURM_NODEID ${{CUDA_VISIBLE_DEVICES-none}}" >>{seen}\n', mode=0o755
    )
    job = carrier("submitit").submit(asked, Gateway(slurm.slurm_conf))
    slurm.wait_for_state(job, "COMPLETED")
    found = dict(line.split() for line in seen.read_text().splitlines())
    assert sorted(found) == [str(node) for node in range(NODES)]
    assert {len(gpus.split(",")) for gpus in found.values()} == {GPUS}, found
