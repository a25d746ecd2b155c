"""``overnight profile``: what is concluded from a site's answers, the file that is written, and what is put into it.

The same commands on a real Slurm are in ``tests/slurm/test_profile_commands.py``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.core.paths import StagePaths
from launch.base.errors import InputError
from launch.cli import main
from launch.config.document.reader import parse
from launch.config.profile_fields import GpuRequest
from launch.config.profile_file import available, read_profile
from launch.site import check, choose, cluster_info, show, storage, write
from launch.site.cluster_info import ClusterInfo
from launch.site.devcluster_shape import shape_of
from launch.site.finding import Level
from launch.site.probe import amend, results, run
from launch.site.probe.amend import ProfileChange
from launch.site.probe.run import Probe, ProbePlan
from launch.site.storage import StorageArea
from launch.slurm import ask
from launch.slurm.ask import FIELD, Response
from launch.slurm.client import Gateway
from launch.slurm.devcluster import config
from launch.slurm.devcluster.config import ClusterConfig
from tests.sites.golden import SITES, profile_of

PACKAGED = sorted(set(available()) - {"local"})


# -- a site's answers

CONFIG = "ClusterName = Big One\nSLURM_VERSION = 23.11.4\nAccountingStorageType = accounting_storage/{kind}\nSelectType = select/cons_tres\nSelectTypeParameters = CR_CORE_MEMORY\nJobRequeue = 1\nKillWait = 30 sec\n"
PARTITION = "PartitionName={name} AllowGroups={groups} AllowAccounts={accounts} AllowQos=ALL Default={default} MaxNodes=UNLIMITED MaxTime={time} State=UP OverSubscribe=NO PreemptMode=OFF JobDefaults=(null) DefMemPerCPU=512 MaxMemPerNode=UNLIMITED RootOnly=NO\n"


def partition(
    name: str, time: str = "1-00:00:00", *, default: str = "NO", groups: str = "ALL", accounts: str = "ALL"
) -> str:
    return PARTITION.format(name=name, time=time, default=default, groups=groups, accounts=accounts)


def nodes(*rows: tuple[str, int, int, str, str]) -> str:
    """(partition, nodes, CPUs, GRES, features) as sinfo prints them."""
    return "".join(
        FIELD.join([name, str(count), str(cpus), "512000", gres, features, "1"]) + "\n"
        for name, count, cpus, gres, features in rows
    )


def site(**answers: str | None) -> ClusterInfo:
    texts = {
        "config": CONFIG.format(kind="slurmdbd"),
        "partitions": "",
        "nodes": "",
        "srun": "",
        "modules": None,
        **answers,
    }
    response = {
        name: Response(name, text, "" if text is not None else "did not answer") for name, text in texts.items()
    }
    return cluster_info.read("me", response)


@pytest.mark.parametrize(
    ("gres", "found"),
    [
        ("gpu:h100:8(S:0-1)", (8, "h100")),
        ("gpu:4", (4, None)),
        ("gpu", (1, None)),
        ("gpu:a100:2(S:0,3),nvme:1600,gpu:a100:2", (4, "a100")),
        ("gpu:nvidia_h100_80gb_hbm3:4", (4, "nvidia_h100_80gb_hbm3")),
        ("(null)", (0, None)),
        ("gpumem:80", (0, None)),
        ("craynetwork:4", (0, None)),
    ],
)
def test_gpus_of_a_node(gres: str, found: tuple[int, str | None]) -> None:
    assert cluster_info.gpus_of(gres) == found


def test_a_queue_that_is_a_qos_and_nodes_that_are_told_apart_by_features() -> None:
    found = site(
        partitions=partition("regular", "UNLIMITED", default="YES"),
        nodes=nodes(
            ("regular*", 1500, 128, "gpu:a100:4", "a100,gpu,ss11"), ("regular*", 3000, 256, "(null)", "cpu,milan,ss11")
        ),
        associations="Big One|m1||debug,regular,preempt|debug||5|||\nBig One|m2||regular|||||\nelsewhere|m3||x||||||\n",
        user="me|m1\n",
        qos="debug|00:30:00||||||\nregular|2-00:00:00|||||\npreempt|2-00:00:00|||||\n",
    )
    choice = choose.choose(found, {"users"})
    assert choice.partition is not None
    assert choice.partition.value == "regular"
    assert (choice.constraint and choice.constraint.value, choice.data_constraint and choice.data_constraint.value) == (
        "gpu",
        "cpu",
    )
    assert choice.qos is not None
    assert choice.qos.value == "regular", "debug, the default one, is too short; preempt may be taken away"
    assert "at most 00:30:00" in choice.qos.why
    assert choice.account is not None
    assert choice.account.value == "m1"
    assert "m2" in choice.account.why
    assert "m3" not in choice.account.why, "another cluster's"
    assert choice.gpus == 4
    assert choice.seconds == 86400
    assert choice.queued is not None
    assert choice.queued.value == "5"


def test_a_small_cluster_without_accounting_and_partitions_that_are_not_for_us() -> None:
    found = site(
        config=CONFIG.format(kind="none"),
        partitions=partition("cpu", default="YES")
        + partition("gpu", "08:00:00")
        + partition("debug-gpu", "00:30:00")
        + partition("rich", groups="bosses")
        + partition("secret").replace("State", "Hidden=YES State"),
        nodes=nodes(
            ("cpu*", 40, 64, "(null)", "(null)"),
            ("gpu", 4, 32, "gpu:v100:2", "(null)"),
            ("debug-gpu", 4, 32, "gpu:v100:2", "(null)"),
            ("rich", 9, 64, "gpu:h100:8", "(null)"),
            ("secret", 9, 64, "gpu:h100:8", "(null)"),
        ),
        associations=None,
        user=None,
        qos=None,
    )
    choice = choose.choose(found, {"users"})
    assert choice.partition is not None
    assert choice.partition.value == "gpu"
    assert choice.data_partition is not None
    assert choice.data_partition.value == "cpu"
    assert (choice.account, choice.qos, choice.constraint) == (None, None, None)
    assert choice.seconds == 8 * 3600
    assert "associations" not in found.unknown, "a cluster without accounting is not silent"
    rich = found.partition("rich")
    assert rich is not None
    assert "bosses" in choose.refusal(rich, found, {"users"})
    assert choose.refusal(rich, found, {"bosses"}) == ""


def test_what_does_not_answer_is_given_up_and_said() -> None:
    response = ask.ask(Gateway(), ["sleep", "600"], seconds=0.2)
    assert (response.text, response.problem) == (None, "sleep did not answer")
    assert ask.ask(Gateway(), ["no-such-command-here"]).problem == "there is no no-such-command-here on this machine"
    assert ask.ask(Gateway(), ["bash", "-c", "echo banner; echo no luck >&2; exit 3"]).problem == "no luck"
    found = site(partitions=None)
    assert found.unknown == {"partitions": "did not answer", "modules": "did not answer"}
    assert choose.choose(found, ()).partition is None


def test_no_slurm_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("OVERNIGHT_DEVCLUSTER", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main.main(["profile", "init", "here"]) == 2
    said = capsys.readouterr().err
    assert "scontrol show config: there is no scontrol on this machine" in said
    assert not list(tmp_path.rglob("*.yaml"))


def test_the_workspace_is_on_a_file_system_that_nodes_share() -> None:
    home = StorageArea("HOME", "/home/me", True, "nfs4", 10)
    scratch = StorageArea("SCRATCH", "/scratch/me", True, "lustre", 10**15)
    full = StorageArea("WORK", "/work/me", False, "gpfs", 10**15)
    local = StorageArea("DATA", "/data", True, "xfs", 10**15)
    assert storage.best([full, scratch, home]) is scratch
    assert storage.best([full, local, home]) is home
    assert storage.best([full, StorageArea("SCRATCH", "/tmp/me", True, "ext4"), local]) is local
    assert storage.best([full]) is None
    assert list(
        storage.named({"HOME": "/h", "SCRATCH": "/h", "WORK": "not a path", "DATA": "/d$x", "PROJECT": "/p"})
    ) == ["SCRATCH", "PROJECT"]


@pytest.mark.parametrize(
    ("kind", "text", "quota", "used"),
    [
        ("lustre", "/scratch/me 1048576 0 10737418240 - 12 0 0 -\n", 10 << 40, 1 << 30),
        ("lustre", "/scratch/me\n     10737418241* 10737418240 0 - 12 0 0 -\n", 10 << 40, (10 << 40) + 1024),
        ("lustre", "/scratch/me 1048576 0 0 - 12 0 0 -\n", None, 0),
        (
            "nfs4",
            "Disk quotas for user me (uid 7):\n Filesystem blocks quota limit grace files quota limit grace\nserver:/export 2048 0 4096 0 9 0 0 0\n",
            4 << 20,
            2 << 20,
        ),
        ("nfs4", "Disk quotas for user me (uid 7): none\n", None, 0),
    ],
)
def test_quotas(kind: str, text: str, quota: int | None, used: int) -> None:
    place = StorageArea("SCRATCH", "/scratch/me", True, kind, 10**15, source="server:/export")
    assert list(storage.quota_questions([place], "me")) == ["SCRATCH"]
    (found,) = storage.with_quotas([place], {"SCRATCH": Response("quota", text)})
    assert (found.quota, found.used) == (quota, used)
    (same,) = storage.with_quotas([place], {"SCRATCH": Response("quota", None, "there is no quota on this machine")})
    assert same == place


# -- the file

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
    max_time=st.sampled_from([None, "04:00:00", "2-00:00:00", "30"]),
    max_nodes=st.none() | st.integers(1, 100),
    exclusive=st.booleans(),
    preemptible=st.booleans(),
    default_memory=st.booleans(),
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


# -- amendments

PROFILE = """\
# mine
name: mine
executor: slurm
partition: gpu  # the fast one
partitions:
  gpu: {max_time: "4:00:00", gpus: 8}
  cpu:
    max_time: "1:00:00"  # short

    gpus: 0
  # the last remark
continuation: requeue  # guessed
resources: {}
"""


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (("continuation",), "chain", "continuation: chain  # why"),
        (("lead",), '"5:00"', 'lead: "5:00"  # why'),
        (("partitions", "gpu", "gpu_memory"), "80G", '  gpu: {max_time: "4:00:00", gpus: 8, gpu_memory: 80G}'),
        (("partitions", "gpu", "gpus"), "4", '  gpu: {max_time: "4:00:00", gpus: 4}'),
        (("partitions", "cpu", "cpus"), "64", "    cpus: 64  # why"),
        (("partitions", "new", "gpus"), "2", "  new: {gpus: 2}  # why"),
        (("resources", "default", "cpus"), "2", "resources: {default: {cpus: 2}}"),
        (("env", "NCCL_SOCKET_IFNAME"), "ib", "env: {NCCL_SOCKET_IFNAME: ib}  # why"),
    ],
)
def test_one_value_is_changed_and_all_else_stays(tmp_path: Path, path: tuple[str, ...], value: str, line: str) -> None:
    text = amend.amended(PROFILE, [ProfileChange(path, value, "why")], "today")
    assert line in text.splitlines()
    gone = set(PROFILE.splitlines()) - set(text.splitlines())
    assert len(gone) <= 1
    wanted = parse(PROFILE, "f").data
    inner = wanted
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    inner[path[-1]] = parse(f"x: {value}", "f").data["x"]
    assert parse(text, "f").data == wanted
    file = tmp_path / "mine.yaml"
    file.write_text(PROFILE)
    amend.write(file, text)
    assert read_profile(file).profile.partition == "gpu"
    assert amend.amended(text, [], "tomorrow").count(amend.MARK) == 1, "the note is replaced"


def test_two_values_below_one_new_key() -> None:
    changes = [
        ProfileChange(("env", "NCCL_SOCKET_IFNAME"), "ib", "why"),
        ProfileChange(("env", "GLOO_SOCKET_IFNAME"), "ib0", "why"),
    ]
    assert parse(amend.amended(PROFILE, changes, "today"), "f").data["env"] == {
        "NCCL_SOCKET_IFNAME": "ib",
        "GLOO_SOCKET_IFNAME": "ib0",
    }


def test_what_cannot_be_changed_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no single value"):
        amend.amended(
            "name: mine\nexecutor: slurm\nresources:\n  data: {cpus: 1}\n",
            [ProfileChange(("resources",), "1", "why")],
            "today",
        )
    file = tmp_path / "mine.yaml"
    file.write_text(PROFILE)
    with pytest.raises(InputError):
        amend.write(file, amend.amended(PROFILE, [ProfileChange(("continuation",), "sideways", "why")], "today"))
    assert file.read_text() == PROFILE


@pytest.mark.parametrize("extends", ["base.yaml", "[base.yaml, ./parts/fast.yaml]", "mine"])
def test_what_lies_over_another_is_changed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extends: str) -> None:
    """Beside the file, a list of them, and the site's profile of the same name."""
    for name in ("user", "site"):
        (tmp_path / name / "overnight" / "profiles").mkdir(parents=True)
    own, site = (tmp_path / name / "overnight" / "profiles" for name in ("user", "site"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("OVERNIGHT_PROFILES", str(site))
    (own / "parts").mkdir()
    for file in (own / "base.yaml", site / "mine.yaml"):
        file.write_text("executor: slurm\npartition: below\ncontinuation: requeue\n")
    (own / "parts" / "fast.yaml").write_text("qos: fast\n")
    file = own / "mine.yaml"
    file.write_text(f"extends: {extends}\n")
    amend.write(file, amend.amended(file.read_text(), [ProfileChange(("continuation",), "chain", "why")], "today"))
    profile = read_profile(file).profile
    assert (profile.partition, profile.continuation) == ("below", "chain")
    assert profile.qos == ("fast" if "fast" in extends else None)
    assert sorted(each.name for each in own.iterdir()) == ["base.yaml", "mine.yaml", "parts"]
    with pytest.raises(InputError, match=r"mine\.yaml:2:15: continuation: got 'sideways'"):
        amend.write(file, f"extends: {extends}\ncontinuation: sideways\n")


# -- verdicts

PLAN = ProbePlan(
    "submitit",
    "cpt",
    "probe",
    resources=replace(profile_of("university").resources_for("cpt"), nodes=1, gpus_per_node=None),
    minutes=1,
    lead=15,
    requeue=True,
)
NODE = {
    "number": 0,
    "host": "n1",
    "python": "3.11.2",
    "cpus": 64,
    "all_cpus": 64,
    "mounts": "mnt:[1]",
    "devices": None,
    "gpus": [],
    "interfaces": {"ib0": "10.0.0.1", "lo": "127.0.0.1"},
    "environment": ["OVERNIGHT_PROBE_MARK"],
    "nodes": ["n1"],
    "meet_seconds": 0.1,
    "ranks": [{"rank": rank, "world": 4} for rank in range(4)],
    "seen_seconds": 0.1,
    "swap": {"replaced": 9, "reads": 9, "missing": 0, "torn": 0, "errors": 0},
}
NOTES = {
    "start": ["7 0 1000 n1", "7 1 1010 n1"],
    "requeue": ["accepted"],
    "end": ["1070"],
    "mounts": ["mnt:[1]"],
    "core": ["{}"],
    "work": ["0 1020"],
    "signal": ["1050"],
    "left": ["1050"],
}


def judged(
    tmp_path: Path, notes: dict[str, list[str]] | None = None, **node: object
) -> tuple[dict[str, Level], dict[str, str]]:
    """What was found -> level, and the changes that follow."""
    file = tmp_path / "mine.yaml"
    file.write_text(PROFILE)
    one = Probe(
        PLAN, StagePaths(tmp_path), None, job="7", over=True, notes={**NOTES, **(notes or {})}, nodes=[{**NODE, **node}]
    )  # type: ignore[arg-type]
    result = results.judge(read_profile(file), one)
    return {finding.what: finding.level for finding in result.findings}, {
        ".".join(change.path): change.value for change in result.changes
    }


def test_all_is_well(tmp_path: Path) -> None:
    levels, changes = judged(tmp_path)
    assert set(levels.values()) == {Level.OK}
    assert {"requeue", "deadline", "signal", "nodes", "rendezvous", "rename", "environment", "python"} <= set(levels)
    assert changes == {"env.NCCL_SOCKET_IFNAME": "ib", "env.GLOO_SOCKET_IFNAME": "ib0"}


@pytest.mark.parametrize(
    ("notes", "node", "what", "level"),
    [
        (
            {"requeue": ["refused Requested operation is presently disabled"], "start": ["7 0 1000 n1"]},
            {},
            "requeue",
            Level.WARN,
        ),
        ({"start": ["7 0 1000 n1", "8 1 1010 n1"]}, {}, "requeue", Level.FAIL),
        ({"end": ["squeue: command not found"]}, {}, "deadline", Level.FAIL),
        ({"core": ["bash: /venv/bin/python: No such file or directory"]}, {}, "python", Level.FAIL),
        ({"signal": [""]}, {}, "signal", Level.WARN),
        ({"signal": ["1065"]}, {}, "signal", Level.WARN),
        ({}, {"ranks": []}, "rendezvous", Level.FAIL),
        ({}, {"swap": {"replaced": 9, "reads": 9, "missing": 1, "torn": 0, "errors": 0}}, "rename", Level.FAIL),
        ({}, {"swap": {"replaced": 9, "reads": 9, "missing": 0, "torn": 2, "errors": 0}}, "rename", Level.FAIL),
        ({}, {"environment": ["OVERNIGHT_PROBE_TOKEN"]}, "environment", Level.FAIL),
        ({}, {"environment": ["SLURM_OVERNIGHT_PROBE"]}, "environment", Level.FAIL),
        ({}, {"cpus": 2}, "cpus", Level.WARN),
    ],
)
def test_what_is_not_well_is_said(
    tmp_path: Path, notes: dict[str, list[str]], node: dict[str, object], what: str, level: Level
) -> None:
    levels, changes = judged(tmp_path, notes, **node)
    assert levels[what] is level
    assert (changes.get("continuation") == "chain") == (what == "requeue" and level is Level.WARN)


def test_what_a_gpu_has_goes_into_the_partition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = replace(PLAN.resources, gpus_per_node=2, partition="gpu")
    monkeypatch.setitem(globals(), "PLAN", replace(PLAN, resources=asked))
    gpu = {"name": "NVIDIA H100 80GB HBM3", "mib": 81559}
    levels, changes = judged(tmp_path, devices=2, gpus=[gpu, gpu])
    assert levels["gpus"] is Level.OK
    assert changes["partitions.gpu.gpu_memory"] == "79G"
    levels, _ = judged(tmp_path, devices=2, gpus=[gpu])
    assert levels["gpus"] is Level.FAIL, "the driver shows less than Slurm has given"
    levels, changes = judged(tmp_path, devices=2)
    assert (levels["gpus"], "partitions.gpu.gpu_memory" in changes) == (Level.OK, False)


def test_a_probe_that_never_ran(tmp_path: Path) -> None:
    levels, _ = judged(tmp_path, {"start": []})
    assert levels == {"start": Level.FAIL}


def test_one_probe_for_each_executor(tmp_path: Path) -> None:
    found = read_profile(Path(__file__).parents[2] / "sites" / "users" / "dgx-pyxis.yaml")
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


# -- show, list, check, shape


@pytest.mark.parametrize("name", PACKAGED)
def test_what_is_shown_reads_as_the_same_profile(name: str, tmp_path: Path) -> None:
    found = read_profile(available()[name])
    for origin in (False, True):
        file = tmp_path / "shown.yaml"
        file.write_text("\n".join(show.lines(found, origin)) + "\n")
        assert read_profile(file).profile == found.profile


def test_show_says_file_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(
        "extends: university\naccount: '01'\ngpu_request: gres\nresources:\n  default: {cpus: 2}\n"
    )
    assert main.main(["profile", "show", str(tmp_path / "mine.yaml"), "--json"]) == 0
    shown = {one["key"]: one for one in json.loads(capsys.readouterr().out)["values"]}
    assert shown["account"]["origin"] == f"{tmp_path}/mine.yaml:2:10"
    assert shown["gpu_request.form"]["origin"] == f"{tmp_path}/mine.yaml:3:14"
    assert shown["gpu_request.model"]["origin"] == "built in" if "gpu_request.model" in shown else True
    assert shown["resources.default.cpus"]["origin"] == f"{tmp_path}/mine.yaml:5:19"
    assert shown["resources.default.mem"]["origin"].startswith(str(available()["university"]))
    assert shown["poll_seconds"]["origin"] == "built in"
    assert main.main(["profile", "show", str(tmp_path / "mine.yaml"), "--origin"]) == 0
    assert f"# {tmp_path}/mine.yaml:5:19" in capsys.readouterr().out


def test_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "overnight" / "profiles").mkdir(parents=True)
    (tmp_path / "overnight" / "profiles" / "ours.yaml").write_text(
        "# Ours, of the lab. More: https://example.org/a.\nname: ours\nexecutor: local\n"
    )
    assert main.main(["profile", "list", "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert (found["ours"]["whose"], found["ours"]["description"], found["ours"]["link"]) == (
        "yours",
        "Ours, of the lab",
        "https://example.org/a",
    )
    assert all(found[name]["whose"] == "built in" and found[name]["description"] for name in PACKAGED)
    assert all(found[name]["link"] for name in SITES)
    assert main.main(["profile", "list"]) == 0
    assert "https://docs.nersc.gov" in capsys.readouterr().out


def test_check_of_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"name: mine\nexecutor: local\nworkspace: {tmp_path}/work\n")
    assert main.main(["profile", "check", str(file)]) == 0
    file.write_text(
        f"name: mine\nexecutor: local\nworkspace: {tmp_path}/work\nenvironments:\n  trl: {{venv: {tmp_path}/no}}\n  nemo: {{image: ./no.sif}}\n"
    )
    capsys.readouterr()
    assert main.main(["profile", "check", str(file), "--json"]) == 1
    findings = {one["what"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert (findings["python of trl"]["level"], findings["python of trl"]["where"]) == ("fail", f"{file}:5:8")
    assert findings["image of nemo"]["level"] == "fail"
    assert findings["workspace"]["level"] == "ok"


def test_check_looks_at_the_sources_of_mounts(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    file = tmp_path / "mine.yaml"
    mounts = f'["{tmp_path}/there:/data:ro", {tmp_path}/no]'
    file.write_text(f"executor: local\nworkspace: {tmp_path}\ncontainers:\n  mounts: {mounts}\n")
    there, missing = (one for one in check.check(read_profile(file), None) if one.what == "mount")
    assert (there.level, there.text) == (Level.OK, f"{tmp_path}/there is there")
    assert missing.level is Level.WARN
    assert missing.text == f"{tmp_path}/no is not on this login node; without it no container starts"
    line, column = map(int, missing.where.split(":")[-2:])
    assert file.read_text().splitlines()[line - 1][column - 1 :].startswith(f"{tmp_path}/no")


@pytest.mark.parametrize("name", SITES)
def test_the_dev_cluster_takes_the_shape_of_a_site(name: str) -> None:
    profile = profile_of(name)
    shaped = ClusterConfig(Path("/srv/dc"), 17000, 4, True, "me", "login", **shape_of(profile, 4))
    lines = config.slurm_conf(shaped).splitlines()
    for partition, limits in profile.partitions.items():
        (line,) = (line for line in lines if line.startswith(f"PartitionName={partition} "))
        assert not limits.max_time or f"MaxTime={limits.max_time}" in line
    assert not any(line.startswith("PartitionName=interactive ") for line in lines), "ours are not there"
    assert profile.account is None or profile.account.lower() in shaped.accounts
    training = profile.resources_for("cpt")
    assert shaped.gpus >= (training.gpus_per_node or 0)
    assert ClusterConfig.from_json(shaped.to_json()) == shaped


def test_nodes_without_gpus_where_a_site_has_such() -> None:
    shaped = ClusterConfig(Path("/srv/dc"), 17000, 4, False, "me", "login", **shape_of(profile_of("perlmutter"), 4))
    assert (shaped.cpu_nodes, shaped.features, shaped.cpu_features) == (1, ("gpu",), ("cpu",))
    conf = config.slurm_conf(shaped)
    assert conf.index("NodeName=node4") < conf.index("Gres=gpu:") < conf.index("NodeName=node1")
    assert "NodeName=node1,node2,node3 Name=gpu" in config.gres_conf(shaped)
