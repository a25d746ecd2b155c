"""Frontier gives large jobs more time: what a plan takes, splits and refuses follows the number of nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.base.errors import InputError
from launch.config.pipeline_file import PipelineFile, read_pipeline
from launch.config.profile_file import ProfileFile, read_profile
from launch.plan import limits
from launch.plan.model import Plan
from tests.sites.golden import HERE, plan_of

USER = HERE / "users" / "frontier.yaml"
PIPELINE = (HERE / "pipeline.yaml").read_text()


def planned(directory: Path, nodes: int, keys: str = "", corpus: str = "") -> tuple[Plan, ProfileFile, PipelineFile]:
    path = directory / "p.yaml"
    text = PIPELINE.replace("batch_size: 128, nodes: 2", f"batch_size: {nodes * 8}, nodes: {nodes}{keys}")
    assert text != PIPELINE
    path.write_text(text.replace("from: ./raw", f"from: ./raw{corpus}"))
    read = read_pipeline(path)
    found = read_profile(USER).with_pipeline(read.data, read.positions)
    return plan_of(found.profile, path), found, read


@pytest.mark.parametrize(
    ("nodes", "segment"),
    [(1, "2:00:00"), (91, "2:00:00"), (92, "6:00:00"), (183, "6:00:00"), (184, "12:00:00"), (4000, "12:00:00")],
)
def test_training_is_split_at_the_time_of_its_size(tmp_path: Path, nodes: int, segment: str) -> None:
    asked = planned(tmp_path, nodes, ', time: "24:00:00"')
    limits.refuse(*asked)
    assert asked[0].stage("cpt").resources.time == segment
    assert [note for note in limits.notes(*asked) if "segments" in note] == [
        f"cpt: time 24:00:00 in segments of {segment}, the most of partition 'batch'"
    ]


def test_what_cannot_be_split_is_refused_by_its_size(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"corpus.*a time of 3:00:00; partition 'batch' allows \"2:00:00\""):
        limits.refuse(*planned(tmp_path, 4, corpus=', time: "3:00:00"'))


def test_extended_is_for_few_nodes(tmp_path: Path) -> None:
    limits.refuse(*planned(tmp_path, 64, ", partition: extended"))
    with pytest.raises(InputError, match=r"asks for 65 nodes; partition 'extended' allows 64: write nodes: 64"):
        limits.refuse(*planned(tmp_path, 65, ", partition: extended"))
