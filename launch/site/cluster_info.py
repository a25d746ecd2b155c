"""What a login node says of its site, as typed values. What it did not say is None or empty, and in ``unknown``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from launch.config.fields import Duration
from launch.slurm.ask import FIELD, Response

_PAIR = re.compile(r"(?:^|\s)([\w/:.\[\]]+)=((?:(?!\s[\w/:.\[\]]+=).)*)")
_GPU = re.compile(r"gpu(?::(?P<model>[A-Za-z][\w.-]*))?(?::(?P<count>\d+))?(?:\([^)]*\))?\Z")
_NOTHING = ("", "(null)", "N/A", "none", "NONE")


@dataclass(frozen=True)
class NodeGroup:
    """Nodes of one partition that are equal."""

    nodes: int
    cpus: int
    memory_mb: int
    gpus: int
    gpu_model: str | None
    features: tuple[str, ...]
    threads_per_core: int


@dataclass(frozen=True)
class PartitionFacts:
    """A partition as the controller has it. ``max_time``: None without limit. ``allow_*``: None is all."""

    name: str
    is_default: bool
    is_up: bool
    is_hidden: bool
    max_time: Duration | None
    max_nodes: int | None
    exclusive: bool
    preemptible: bool
    max_memory_mb: int | None
    allow_accounts: tuple[str, ...] | None
    allow_qos: tuple[str, ...] | None
    allow_groups: tuple[str, ...] | None
    root_only: bool
    groups: tuple[NodeGroup, ...] = ()

    @property
    def nodes(self) -> int:
        return sum(group.nodes for group in self.groups)

    @property
    def gpu_groups(self) -> tuple[NodeGroup, ...]:
        return tuple(group for group in self.groups if group.gpus)

    @property
    def main(self) -> NodeGroup | None:
        """The kind of node that there is most of; of nodes with GPUs where there are any."""
        return max(self.gpu_groups or self.groups, key=lambda group: (group.nodes, group.gpus), default=None)


@dataclass(frozen=True)
class Association:
    """An account that the user may charge. ``max_wall``: None without limit."""

    account: str
    partition: str
    qos: tuple[str, ...]
    default_qos: str | None
    max_submit: int | None
    max_wall: Duration | None


@dataclass(frozen=True)
class Qos:
    """A quality of service. ``max_tres``: as Slurm writes it, ``gres/gpu=8,node=4``."""

    name: str
    max_wall: Duration | None
    max_tres: str
    max_submit: int | None


@dataclass(frozen=True)
class ClusterInfo:
    """All answers. ``unknown``: command -> why it gave none."""

    user: str
    config: Mapping[str, str]
    partitions: tuple[PartitionFacts, ...]
    associations: tuple[Association, ...]
    default_account: str | None
    qos: Mapping[str, Qos]
    srun_options: frozenset[str]
    module_system: str | None
    modules: tuple[str, ...]
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def cluster(self) -> str:
        return self.config.get("ClusterName", "")

    @property
    def has_accounting(self) -> bool:
        kind = self.config.get("AccountingStorageType", "")
        return bool(kind) and not kind.endswith("/none")

    @property
    def memory_counts(self) -> bool:
        """Whether Slurm gives out memory, so that a job that asks for none may get little."""
        return "MEMORY" in self.config.get("SelectTypeParameters", "").upper()

    def partition(self, name: str) -> PartitionFacts | None:
        return next((each for each in self.partitions if each.name == name), None)


def read(user: str, response: Mapping[str, Response]) -> ClusterInfo:
    """What the answers say together."""

    def text(name: str) -> str:
        return (response[name].text or "") if name in response else ""

    config = _config(text("config"))
    groups = _node_groups(text("nodes"))
    accounting = not config.get("AccountingStorageType", "").endswith("/none")
    unknown = {
        one.command: one.problem
        for name, one in response.items()
        if one.text is None
        and not name.startswith("df ")
        and (accounting or name not in ("associations", "user", "qos"))
    }
    module_lines = text("modules").splitlines()
    said = (line.removeprefix("overnight:").strip() for line in module_lines if line.startswith("overnight:"))
    system = next(said, "")
    partitions = [fields for fields in map(_fields, text("partitions").splitlines()) if "PartitionName" in fields]
    return ClusterInfo(
        user=user,
        config=config,
        partitions=tuple(_partition(fields, groups) for fields in partitions),
        associations=_associations(text("associations"), config.get("ClusterName", "")),
        default_account=next((row[1] or None for row in _rows(text("user"), 2) if row[0] == user), None),
        qos={one.name: one for one in map(_qos, _rows(text("qos"), 7))},
        srun_options=frozenset(re.findall(r"--([a-z][a-z0-9-]+)", text("srun"))),
        module_system=(system or "Environment Modules") if module_lines else None,
        modules=_modules(module_lines),
        unknown=unknown,
    )


def _config(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _fields(line: str) -> dict[str, str]:
    """``Key=value`` of one line of ``scontrol --oneliner``; a value may hold spaces."""
    return {key: value.strip() for key, value in _PAIR.findall(line)}


def _number(text: str) -> int | None:
    found = re.match(r"\d+", text)
    return int(found[0]) if found else None


def limit(text: str) -> Duration | None:
    """A time limit as Slurm prints it; None where there is none (UNLIMITED) or it cannot be read."""
    try:
        return Duration(text.strip())
    except ValueError:
        return None


def seconds_of(limit: Duration | None) -> float:
    """A limit in seconds; infinite where there is none."""
    return math.inf if limit is None else limit.seconds


def _names(text: str) -> tuple[str, ...] | None:
    return None if text in ("", "ALL") else tuple(text.split(","))


def _partition(fields: dict[str, str], groups: Mapping[str, list[NodeGroup]]) -> PartitionFacts:
    name = fields["PartitionName"]
    memory = fields.get("MaxMemPerNode", "")
    return PartitionFacts(
        name=name,
        is_default=fields.get("Default") == "YES",
        is_up=fields.get("State", "UP") == "UP",
        is_hidden=fields.get("Hidden") == "YES",
        max_time=limit(fields.get("MaxTime", "")),
        max_nodes=_number(fields.get("MaxNodes", "")),
        exclusive=fields.get("OverSubscribe") == "EXCLUSIVE",
        preemptible=fields.get("PreemptMode", "OFF") not in ("OFF", "GANG", ""),
        max_memory_mb=_number(memory),
        allow_accounts=_names(fields.get("AllowAccounts", "")),
        allow_qos=_names(fields.get("AllowQos", "")),
        allow_groups=_names(fields.get("AllowGroups", "")),
        root_only=fields.get("RootOnly") == "YES",
        groups=tuple(groups.get(name, ())),
    )


def gpus_of(gres: str) -> tuple[int, str | None]:
    """(GPUs, model) in a node's generic resources: ``gpu:h100:8(S:0-1),nvme:1``. Of several models the first."""
    total, model = 0, None
    for entry in re.split(r",(?![^(]*\))", gres):
        found = _GPU.match(entry)
        if found:
            total += int(found["count"] or 1)
            model = model or found["model"]
    return total, model


def _node_groups(text: str) -> dict[str, list[NodeGroup]]:
    found: dict[str, list[NodeGroup]] = {}
    for line in text.splitlines():
        fields = line.split(FIELD)
        if len(fields) != 7:
            continue
        name, nodes, cpus, memory, gres, features, threads = fields
        gpus, model = gpus_of(gres)
        known = () if features in _NOTHING else tuple(sorted(features.split(",")))
        group = NodeGroup(
            _number(nodes) or 0, _number(cpus) or 0, _number(memory) or 0, gpus, model, known, _number(threads) or 1
        )
        found.setdefault(name.rstrip("*"), []).append(group)
    return found


def _rows(text: str, columns: int) -> list[list[str]]:
    rows = (line.split("|") for line in text.splitlines())
    return [row for row in rows if len(row) >= columns]


def _associations(text: str, cluster: str) -> tuple[Association, ...]:
    found = []
    for row in _rows(text, 8):
        if cluster and row[0] != cluster:
            continue
        qos = tuple(name for name in row[3].split(",") if name)
        found.append(Association(row[1], row[2], qos, row[4] or None, _number(row[6]), limit(row[7])))
    return tuple(found)


def _qos(row: Sequence[str]) -> Qos:
    tres = ",".join(part for part in (row[2], row[3]) if part)
    return Qos(row[0], limit(row[1]), tres, _number(row[5]))


def _modules(lines: Sequence[str]) -> tuple[str, ...]:
    names = (re.sub(r"\s*[(<].*", "", line).strip() for line in lines if not line.startswith("overnight:"))
    return tuple(dict.fromkeys(name for name in names if name and not name.endswith((":", "/")) and " " not in name))
