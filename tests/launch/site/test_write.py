"""The profile that ``overnight profile init`` writes says what the site said."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launch.config.fields import Duration
from launch.config.profile_fields import GpuRequest
from launch.config.profile_file import read_profile
from launch.site import choose, cluster_info, write
from launch.site.cluster_info import ClusterInfo
from launch.site.storage import StorageArea
from tests.support.site_answers import nodes, partition, site

WORD = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Zs"], exclude_characters="\x7f"), min_size=1, max_size=12
)
GROUP = st.builds(
    cluster_info.NodeGroup,
    nodes=st.integers(1, 9999),
    cpus=st.integers(1, 512),
    memory_mb=st.integers(1000, 4_000_000),
    gpus=st.integers(0, 16),
    gpu_model=st.none() | WORD,
    features=st.lists(WORD, max_size=3).map(tuple),
    threads_per_core=st.integers(1, 2),
)
PARTITIONS = st.builds(
    cluster_info.PartitionFacts,
    name=WORD,
    is_default=st.booleans(),
    is_up=st.booleans(),
    is_hidden=st.booleans(),
    max_time=st.sampled_from([None, *map(Duration, ("04:00:00", "2-00:00:00", "30"))]),
    max_nodes=st.none() | st.integers(1, 100),
    exclusive=st.booleans(),
    preemptible=st.booleans(),
    max_memory_mb=st.none() | st.integers(1000, 100_000),
    allow_accounts=st.none(),
    allow_qos=st.none(),
    allow_groups=st.none() | st.just(("x",)),
    root_only=st.booleans(),
    groups=st.lists(GROUP, max_size=3).map(tuple),
)


@st.composite
def sites(draw: st.DrawFn) -> write.NewProfile:
    account = draw(st.none() | WORD)
    found = ClusterInfo(
        user=draw(WORD),
        config=draw(
            st.fixed_dictionaries(
                {},
                optional=dict.fromkeys(
                    (
                        "ClusterName",
                        "SelectTypeParameters",
                        "SLURM_VERSION",
                        "KillWait",
                        "JobRequeue",
                        "AccountingStorageType",
                    ),
                    WORD,
                ),
            )
        ),
        partitions=tuple({each.name: each for each in draw(st.lists(PARTITIONS, max_size=4))}.values()),
        associations=(
            cluster_info.Association(
                account, "", tuple(draw(st.lists(WORD, max_size=2))), None, draw(st.none() | st.integers(1, 9)), None
            ),
        )
        if account
        else (),
        default_account=account,
        qos={},
        srun_options=frozenset(draw(st.sets(st.sampled_from(["container-image", "environment"])))),
        module_system=draw(st.none() | WORD),
        modules=tuple(draw(st.lists(WORD, max_size=3))),
        unknown=draw(st.dictionaries(WORD, WORD, max_size=2)),
    )
    places = [
        StorageArea(
            "HOME",
            "/" + draw(WORD).replace("$", ""),
            draw(st.booleans()),
            draw(st.none() | st.just("nfs")),
            5,
            draw(st.sampled_from(["", "hung"])),
            quota=draw(st.none() | st.just(10**13)),
        )
    ]
    tools = write.Tools(
        executables=draw(st.dictionaries(st.sampled_from(["apptainer", "singularity", "enroot"]), WORD)),
        fast_interfaces=tuple(draw(st.lists(st.sampled_from(["ib0", "hsn1"])))),
        gpu_request=draw(st.none() | st.just(GpuRequest())),
    )
    return write.NewProfile(
        name="here",
        facts=found,
        choice=choose.choose(found, {"users"}),
        places=places,
        groups={"users"},
        tools=tools,
        devcluster=False,
        where=draw(WORD),
        python=draw(WORD),
    )


@given(sites())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_whatever_a_site_says_the_file_is_a_profile_that_says_the_same(
    tmp_path_factory: pytest.TempPathFactory, new: write.NewProfile
) -> None:
    path = tmp_path_factory.mktemp("written") / "here.yaml"
    path.write_text(write.render(new), encoding="utf-8")
    found = read_profile(path).profile
    usable = [each for each in new.facts.partitions if not choose.refusal(each, new.facts, new.groups)]
    assert set(found.partitions) == {each.name for each in usable}
    assert found.partition == (new.choice.partition and new.choice.partition.value)
    assert found.account == (new.choice.account and new.choice.account.value)
    for each in usable:
        if each.main is not None:
            assert (found.partitions[each.name].gpus, found.partitions[each.name].gpu_model) == (
                each.main.gpus,
                each.main.gpu_model or None,
            )
    assert found.resources_for("cpt").gpus_per_node == (new.choice.gpus or None)
    assert found.resources_for("cpt").time_seconds
    assert found.submission == (
        "all" if new.choice.queued is None else f"rolling({max(2, int(new.choice.queued.value))})"
    )


def test_comments_say_where_a_value_is_from() -> None:
    found = site(
        partitions=partition("gpu", default="YES"),
        nodes=nodes(("gpu", 2, 32, "gpu:a100:4", "(null)")),
        modules="overnight: Lmod 8.7\n/apps:\npython/3.12(default)\nCUDA/12.4\nR/4.4\n",
    )
    tools = write.Tools(
        gpu_request=GpuRequest(), gpu_why="`sbatch --test-only --gpus-per-node=1` is accepted", fast_interfaces=("ib0",)
    )
    text = write.render(
        write.NewProfile(
            "here",
            found,
            choose.choose(found, ()),
            [StorageArea("SCRATCH", "/scratch/me", True, "lustre", 10**12)],
            (),
            tools,
            False,
            "login1",
            "/venv/bin/python",
        )
    )
    for part in (
        "# guessed: $SCRATCH, lustre, 1.0 TB free",
        "# `sbatch --test-only --gpus-per-node=1` is accepted",
        "(Lmod 8.7): python/3.12, CUDA/12.4\n",
        "env: {NCCL_SOCKET_IFNAME: ib, GLOO_SOCKET_IFNAME: ib0}",
        "#   modules: did not answer" if "modules" in found.unknown else "# -- ",
        "partition: gpu  # guessed: it is the default one",
    ):
        assert part in text, part
    assert "R/4.4" not in text
