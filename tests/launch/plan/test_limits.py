"""What a plan asks for against the profile's partitions: refused before any sbatch, with the line and what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.base.errors import InputError
from launch.config.pipeline_file import PipelineFile, read_pipeline
from launch.config.profile_file import ProfileFile, read_profile
from launch.plan import limits
from launch.plan.model import Plan
from tests.sites.golden import HERE, SITES, plan_of

PROFILE = """\
executor: slurm
partition: gpu
partitions:
  gpu: {max_time: "4:00:00", max_nodes: 4, gpus: 4, memory: 256G, cpus: 64}
  long: {max_time: "2-00:00:00", max_nodes: 64, gpus: 8, memory: 512G, cpus: 64}
  cpu: {max_time: "4:00:00", gpus: 0}
resources:
  default: {time: "1:00:00"}
  cpt: {gpus_per_node: 4}
"""
PIPELINE = (HERE / "pipeline.yaml").read_text()


def planned(
    directory: Path, profile: str = PROFILE, pipeline: str = PIPELINE
) -> tuple[Plan, ProfileFile, PipelineFile]:
    (directory / "lab.yaml").write_text(profile)
    (directory / "p.yaml").write_text(pipeline)
    read = read_pipeline(directory / "p.yaml")
    found = read_profile(directory / "lab.yaml").with_pipeline(read.data, read.positions)
    return plan_of(found.profile, directory / "p.yaml"), found, read


def test_what_fits_is_not_refused(tmp_path: Path) -> None:
    asked = planned(tmp_path)
    limits.refuse(*asked)
    assert limits.notes(*asked) == []


@pytest.mark.failure(17)
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "partition: gpu\n",
            "partition: gpuu\n",
            "lab.yaml:2:12: partition: the profile has no partition 'gpuu'; nearest: gpu",
        ),
        (
            "gpus_per_node: 4}",
            "gpus_per_node: 8}",
            "cpt' asks for 8 GPUs a node; partition 'gpu' allows 4: write gpus_per_node: 4, or partition: long",
        ),
        (
            "gpus_per_node: 4}",
            "gpus_per_node: 4, partition: cpu}",
            "partition 'cpu' allows 0: leave gpus_per_node out, or partition: gpu or long",
        ),
        (
            "gpus_per_node: 4}",
            "gpus_per_node: 4, mem: 300G}",
            "cpt' asks for 300G of memory a node; partition 'gpu' allows 256G: write mem: 256G, or partition: long",
        ),
        (
            "gpus_per_node: 4}",
            "gpus_per_node: 4, cpus: 65}",
            "cpt' asks for 65 CPUs a node; partition 'gpu' allows 64: write cpus: 64",
        ),
        (
            'time: "1:00:00"',
            'time: "5:00:00"',
            "lab.yaml:8:19: resources.default.time: stage 'corpus' asks for a time of 5:00:00; partition 'gpu' allows \"4:00:00\": write time: \"4:00:00\", or partition: long",
        ),
    ],
)
def test_over_a_limit(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in PROFILE
    with pytest.raises(InputError) as caught:
        limits.refuse(*planned(tmp_path, PROFILE.replace(old, new)))
    assert said in str(caught.value)


@pytest.mark.failure(17)
def test_a_line_of_the_pipeline(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"p.yaml:6:.*stages.cpt.nodes: .*asks for 8 nodes; .*allows 4: write nodes: 4"
    ):
        limits.refuse(*planned(tmp_path, pipeline=PIPELINE.replace("nodes: 2", "nodes: 8")))
    with pytest.raises(InputError, match=r"p.yaml:7:.*partition: the profile has no partition 'fast'"):
        limits.refuse(*planned(tmp_path, pipeline=PIPELINE + "cluster: {partition: fast}\n"))


def test_what_goes_on_from_its_saves_is_split_at_the_limit(tmp_path: Path) -> None:
    text = PROFILE.replace("gpus_per_node: 4}", 'gpus_per_node: 4, time: "1-00:00:00"}')
    asked = planned(tmp_path, text)
    limits.refuse(*asked)
    assert asked[0].stage("cpt").resources.time == "4:00:00"
    assert limits.notes(*asked) == ["cpt: time 1-00:00:00 in segments of 4:00:00, the most of partition 'gpu'"]
    with pytest.raises(InputError, match=r"lab.yaml:1:8: links: .*3 links of 4:00:00 are less: write links: 6"):
        limits.refuse(*planned(tmp_path, "links: 3\ncontinuation: chain\n" + text))
    limits.refuse(*planned(tmp_path, "links: 6\ncontinuation: chain\n" + text))


def test_features_whole_nodes_and_preemption(tmp_path: Path) -> None:
    text = PROFILE.replace(
        "cpus: 64}\n  long", "cpus: 64, features: [a100, ib], exclusive: true, preemptible: true}\n  long"
    )
    assert limits.notes(*planned(tmp_path, text.replace("gpus_per_node: 4", "gpus_per_node: 1"))) == [
        "corpus: partition 'gpu' may take its nodes away, and it has no saves: it starts anew then",
        "corpus: partition 'gpu' gives whole nodes, 4 of 4 GPUs stay idle",
        "cpt: partition 'gpu' gives whole nodes, 3 of 4 GPUs stay idle",
    ]
    spelt = planned(
        tmp_path, PROFILE.replace("cpus: 64}", "cpus: 64, features: [a100, ib]}", 1) + "constraint: a10&ib\n"
    )
    near = "constraint 'a10' is not a feature that the profile lists for partition 'gpu'; nearest: a100"
    assert limits.notes(*spelt) == [f"corpus: {near}", f"cpt: {near}"]


def test_one_of_several_partitions_is_enough(tmp_path: Path) -> None:
    several = PROFILE.replace("partition: gpu\n", 'partition: "gpu,long"\n').replace('"1:00:00"', '"5:00:00"')
    limits.refuse(*planned(tmp_path, several))
    with pytest.raises(InputError, match="partitions gpu, long allow 8: write gpus_per_node: 8"):
        limits.refuse(*planned(tmp_path, several.replace("gpus_per_node: 4", "gpus_per_node: 9")))


@pytest.mark.parametrize("site", SITES)
def test_no_packaged_profile_is_over_its_own_limits(site: str) -> None:
    found = read_profile(HERE / "users" / f"{site}.yaml")
    limits.refuse(plan_of(found.profile), found, read_pipeline(HERE / "pipeline.yaml"))


@pytest.mark.failure(8)
@pytest.mark.parametrize(("time", "fits"), [("2:00", False), ("1:00", False), ("2:01", True)])
def test_a_time_that_is_no_more_than_the_lead_is_refused(tmp_path: Path, time: str, fits: bool) -> None:
    """A stage that saves before its first step would start again for each step."""
    asked = planned(
        tmp_path, f'executor: slurm\nresources: {{default: {{time: "1:00:00"}}, cpt: {{time: "{time}"}}}}\n'
    )
    if fits:
        limits.refuse(*asked)
        return
    with pytest.raises(InputError, match="saves 2:00 before its end") as caught:
        limits.refuse(*asked)
    assert f"{tmp_path}/lab.yaml:2:" in str(caught.value)


@pytest.mark.failure(8)
def test_nor_is_one_that_is_no_more_than_the_lead_of_the_signal(tmp_path: Path) -> None:
    """Slurm sends it at once then."""
    profile = 'executor: slurm\nsignal: {lead: "5:00"}\nresources: {default: {time: "1:00:00"}, cpt: {time: "4:00"}}\n'
    with pytest.raises(InputError, match=r"saves 5:00 before its end \(signal\.lead\)"):
        limits.refuse(*planned(tmp_path, profile))
    limits.refuse(*planned(tmp_path, profile.replace("4:00", "6:00")))
