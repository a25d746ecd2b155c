"""Which probes are submitted for a profile."""

from __future__ import annotations

from pathlib import Path

from launch.config.profile_file import read_profile
from launch.site.probe import run


def test_one_probe_for_each_executor(tmp_path: Path) -> None:
    found = read_profile(Path(__file__).parents[3] / "sites" / "users" / "dgx-pyxis.yaml")
    plans = {plan.executor: plan for plan in run.plans(found, None, ())}
    assert set(plans) == {"nemo_run", "submitit"}
    assert plans["nemo_run"].resources.gpus_per_node == 8
    assert {plan.resources.nodes for plan in plans.values()} == {2}
    assert {plan.backend for plan in plans.values()} == {"toy"}, "the one with an image"
    assert {plan.minutes for plan in plans.values()} == {10}, "an image has to be fetched"
    (only,) = run.plans(replace_executors(found.path, tmp_path), 3, ("requeue", "signal"))
    assert (only.executor, only.minutes, only.requeue, only.lead) == ("submitit", 3, False, None)


def replace_executors(path: Path, directory: Path) -> object:
    file = directory / "mine.yaml"
    file.write_text(path.read_text() + "executors: {default: submitit, training: submitit}\n")
    return read_profile(file)
