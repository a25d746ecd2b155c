"""What a site answers, and a profile written from it, for the tests of ``launch.site``."""

from __future__ import annotations

from launch.site import cluster_info
from launch.site.cluster_info import ClusterInfo
from launch.slurm.ask import FIELD, Response

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
    heard = {name: Response(name, text, "" if text is not None else "did not answer") for name, text in texts.items()}
    return cluster_info.read("me", heard)


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
