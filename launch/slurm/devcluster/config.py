"""The dev cluster's configuration as text: pure functions of one frozen value, nothing here touches the disk."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CLUSTER_NAME = "overnight"
ACCOUNT = "research"
DATABASE = "slurm_acct"
MAX_NODES = 64
MEMORY_PER_CPU_MB = 512
"""What a job has that asks for no memory: without it, it is given its whole node."""

#: Ports of one cluster lie in one block: controller, database daemon, then the nodes from ``_NODE_PORT`` on.
BLOCK = 100
_NODE_PORT = 10


@dataclass(frozen=True)
class ClusterConfig:
    """Everything that the rendered files depend on.

    ``cpus``, ``memory_mb``, ``gpus`` and ``features`` are what each node *declares*: Slurm schedules by them, whatever
    the machine has. The last ``cpu_nodes`` nodes have no GPUs, and ``cpu_features``. ``partitions``: lines in the place
    of ours. ``lines`` come last in slurm.conf. ``accounts`` and ``qos`` are made where there is accounting; the
    user's default account is the first.
    """

    directory: Path
    port: int
    nodes: int
    accounting: bool
    user: str
    host: str
    cpus: int = 8
    memory_mb: int = 16000
    gpus: int = 8
    gpu_model: str = "h100"
    features: tuple[str, ...] = ()
    cpu_nodes: int = 0
    cpu_features: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    qos: tuple[str, ...] = ()

    @property
    def node_names(self) -> tuple[str, ...]:
        return tuple(f"node{number}" for number in range(1, self.nodes + 1))

    @property
    def gpu_nodes(self) -> tuple[str, ...]:
        return self.node_names[: self.nodes - self.cpu_nodes]

    @property
    def slurm_conf(self) -> Path:
        return self.directory / "etc" / "slurm.conf"

    @property
    def hosts(self) -> Path:
        return self.directory / "etc" / "hosts"

    @property
    def munge_socket(self) -> Path:
        return self.directory / "munge" / "socket"

    @property
    def database_socket(self) -> Path:
        return self.directory / "mysql" / "socket"

    @property
    def logs(self) -> Path:
        return self.directory / "log"

    @property
    def ports(self) -> tuple[int, ...]:
        """Every port that the cluster listens on."""
        database = (self.port + 1,) if self.accounting else ()
        return (self.port, *database, *(_node_port(self, number) for number in range(1, self.nodes + 1)))

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "directory": str(self.directory)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ClusterConfig:
        values: dict[str, Any] = json.loads(text)
        names = ("features", "cpu_features", "partitions", "lines", "accounts", "qos")
        lists = {name: tuple(values.get(name, ())) for name in names}
        return cls(**{**values, **lists, "directory": Path(values["directory"])})


def _node_port(config: ClusterConfig, number: int) -> int:
    return config.port + _NODE_PORT + number


def _node_address(number: int) -> str:
    # All of 127/8 is this machine; an address per node lets MASTER_ADDR name a node as on a real cluster.
    return f"127.0.1.{10 + number}"


def slurm_conf(config: ClusterConfig) -> str:
    """Text of ``slurm.conf``: real scheduling and authentication, time constants short enough to watch."""
    root = config.directory
    lines = [
        f"ClusterName={CLUSTER_NAME}",
        f"SlurmctldHost={config.host}(127.0.0.1)",
        f"SlurmctldPort={config.port}",
        f"SlurmUser={config.user}",
        f"SlurmdUser={config.user}",
        "AuthType=auth/munge",
        "CredType=cred/munge",
        # A requeued job may start cred_expire + 1 s later: 6 s here instead of the default 121 s.
        f"AuthInfo=socket={config.munge_socket},cred_expire=5",
        f"StateSaveLocation={root}/state",
        f"SlurmdSpoolDir={root}/spool/%n",
        f"SlurmctldPidFile={root}/run/slurmctld.pid",
        f"SlurmdPidFile={root}/run/slurmd-%n.pid",
        f"SlurmctldLogFile={config.logs}/slurmctld.log",
        f"SlurmdLogFile={config.logs}/%n.log",
        "SlurmctldDebug=verbose",
        "SlurmdDebug=verbose",
        # Otherwise preemption with a grace time sends TERM first and no job gets its --signal.
        "SlurmctldParameters=preempt_send_user_signal",
        # Believe the declared CPUs and memory, not what slurmd counts on this machine.
        "SlurmdParameters=config_overrides",
        # SPANK plugins (a container shim, say) may be dropped into this directory.
        f"PlugStackConfig={root}/etc/plugstack.conf",
        *_process_tracking(),
        "JobAcctGatherType=jobacct_gather/linux",
        "JobAcctGatherFrequency=task=5",
        "MpiDefault=none",
        "SwitchType=switch/none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        "SchedulerType=sched/backfill",
        "SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0",
        "PriorityType=priority/multifactor",
        "PriorityWeightPartition=1000",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "JobRequeue=1",
        "EnforcePartLimits=ALL",
        "OverTimeLimit=0",
        "MaxArraySize=1001",
        "MinJobAge=3600",
        "ReturnToService=2",
        "SlurmctldTimeout=15",
        "SlurmdTimeout=15",
        "KillWait=5",
        "InactiveLimit=0",
        "UnkillableStepTimeout=30",
        "GresTypes=gpu",
        *_accounting(config),
        *_nodes(config),
        *_partitions(config),
        *config.lines,
    ]
    return "\n".join(lines) + "\n"


def _process_tracking() -> list[str]:
    # By /proc and without cgroups: needs no privilege. Memory limits are therefore scheduled, not enforced.
    return ["ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none"]


def _accounting(config: ClusterConfig) -> list[str]:
    if not config.accounting:
        return ["AccountingStorageType=accounting_storage/none"]
    return [
        "AccountingStorageType=accounting_storage/slurmdbd",
        "AccountingStorageHost=127.0.0.1",
        f"AccountingStoragePort={config.port + 1}",
        # The connection to slurmdbd takes the munge socket from here and ignores AuthInfo.
        f"AccountingStoragePass={config.munge_socket}",
        "AccountingStorageEnforce=associations,limits,qos",
        "AccountingStorageTRES=gres/gpu",
        "AccountingStoreFlags=job_comment,job_script,job_env",
        "PriorityWeightAge=100",
        "PriorityWeightQOS=10000",
    ]


def _nodes(config: ClusterConfig) -> list[str]:
    gres = f" Gres=gpu:{config.gpu_model}:{config.gpus}" if config.gpus else ""
    default = (
        f"NodeName=DEFAULT CPUs={config.cpus} Sockets=1 CoresPerSocket={config.cpus} ThreadsPerCore=1"
        f" RealMemory={config.memory_mb}"
    )
    lines = [
        f"NodeName={name} NodeHostname={config.host} NodeAddr={_node_address(number)} Port={_node_port(config, number)}"
        for number, name in enumerate(config.node_names, start=1)
    ]
    many = len(config.gpu_nodes)
    # A later DEFAULT adds to an earlier one, so the nodes that have less come first.
    bare = [f"{default}{_features(config.cpu_features)} State=UNKNOWN", *lines[many:]] if config.cpu_nodes else []
    return [*bare, f"{default}{gres}{_features(config.features)} State=UNKNOWN", *lines[:many]]


def _features(names: tuple[str, ...]) -> str:
    return f" Feature={','.join(names)}" if names else ""


def _partitions(config: ClusterConfig) -> list[str]:
    return [
        f"PartitionName=DEFAULT Nodes={','.join(config.node_names)} DefMemPerCPU={MEMORY_PER_CPU_MB} State=UP"
        " PreemptMode=OFF",
        *(config.partitions or _OUR_PARTITIONS),
    ]


_OUR_PARTITIONS = (
    "PartitionName=batch Default=YES PriorityTier=10 MaxTime=04:00:00 DefaultTime=00:10:00",
    "PartitionName=interactive PriorityTier=20 MaxTime=00:30:00 DefaultTime=00:05:00 MaxNodes=1",
    "PartitionName=preempt PriorityTier=1 MaxTime=1-00:00:00 DefaultTime=00:10:00 PreemptMode=REQUEUE GraceTime=0",
    # One minute, for trying what a time limit does to a stage.
    "PartitionName=short PriorityTier=10 MaxTime=00:01:00 DefaultTime=00:01:00",
)


def slurmdbd_conf(config: ClusterConfig) -> str:
    """Text of ``slurmdbd.conf``. No database password: the server listens on a socket in a private directory only."""
    root = config.directory
    lines = [
        f"DbdHost={config.host}",
        "DbdAddr=127.0.0.1",
        f"DbdPort={config.port + 1}",
        f"SlurmUser={config.user}",
        "AuthType=auth/munge",
        f"AuthInfo=socket={config.munge_socket}",
        f"PidFile={root}/run/slurmdbd.pid",
        f"LogFile={config.logs}/slurmdbd.log",
        "DebugLevel=verbose",
        "StorageType=accounting_storage/mysql",
        "StorageHost=localhost",
        "StorageUser=root",
        f"StorageLoc={DATABASE}",
    ]
    return "\n".join(lines) + "\n"


def gres_conf(config: ClusterConfig) -> str:
    """Text of ``gres.conf``: make-believe GPUs, so that requests are scheduled and CUDA_VISIBLE_DEVICES is set."""
    if not config.gpus:
        return "AutoDetect=off\n"
    devices = f"{config.directory}/dev/gpu[0-{config.gpus - 1}]"
    nodes = f"NodeName={','.join(config.gpu_nodes)} " if config.cpu_nodes else ""
    return f"AutoDetect=off\n{nodes}Name=gpu Type={config.gpu_model} File={devices} Flags=nvidia_gpu_env\n"


def plugstack_conf(config: ClusterConfig) -> str:
    """Text of ``plugstack.conf``."""
    return f"include {config.directory}/etc/plugstack.conf.d/*\n"


def hosts(config: ClusterConfig) -> str:
    """Text of the ``/etc/hosts`` that the nodes see; the machine's own file is not touched."""
    lines = [f"127.0.0.1 localhost {config.host}"]
    lines += [f"{_node_address(number)} {name}" for number, name in enumerate(config.node_names, start=1)]
    return "\n".join(lines) + "\n"


def rendered(config: ClusterConfig) -> dict[str, str]:
    """File name below ``etc/`` -> text, for all files of this cluster."""
    files = {
        "slurm.conf": slurm_conf(config),
        "gres.conf": gres_conf(config),
        "plugstack.conf": plugstack_conf(config),
        "hosts": hosts(config),
    }
    if config.accounting:
        files["slurmdbd.conf"] = slurmdbd_conf(config)
    return files
