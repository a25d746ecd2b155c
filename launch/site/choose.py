"""From facts to the values of a profile. Every value says where it is from, or that it was guessed and from what."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from launch.base.text import duration
from launch.config.profile_fields import GpuForm, GpuRequest
from launch.site.cluster_info import Association, ClusterInfo, NodeGroup, PartitionFacts, Qos, seconds_of

DAY = 86400
_MANY_JOBS = 50
"""More than a chain has: a higher limit is none for it."""

_AVOIDED = re.compile(
    r"debug|test|dev|inter|preempt|scav|overrun|standby|flex|low|urgent|premium|high|express|shared", re.IGNORECASE
)
_USUAL = ("regular", "normal", "standard", "batch", "default")
_SLOW_NAMES = re.compile(r"(?:lo|docker|virbr|veth|br-|cni|tailscale|tun|tap|wl|usb)")
_FAST_NAMES = re.compile(r"(?:ib|hsn|hsi|opa)\d*")


@dataclass(frozen=True)
class Value:
    """A value and why it is this one."""

    value: str
    why: str


@dataclass(frozen=True)
class Choice:
    """What a profile is to say of the queue. None: say nothing. ``queued``: the most jobs that may be there at once."""

    partition: Value | None
    data_partition: Value | None
    account: Value | None
    qos: Value | None
    constraint: Value | None
    data_constraint: Value | None
    seconds: int
    time_why: str
    queued: Value | None
    node: NodeGroup | None

    @property
    def gpus(self) -> int:
        return self.node.gpus if self.node is not None else 0


def choose(facts: ClusterInfo, groups: Collection[str]) -> Choice:
    """Partition, account, QOS and constraint for training and for work without GPUs; ``groups`` are the user's."""
    account = _account(facts)
    usable = [each for each in facts.partitions if not refusal(each, facts, groups)]
    training = _training_partition(usable)
    association = _association(facts, account.value if account else None, training)
    qos = None if training is None else _qos(facts, training, association)
    seconds, why = _seconds(facts, training, association, qos)
    data = _data_partition(usable, training)
    constraint, data_constraint = _constraints(training, data)
    partition = None
    if training is not None:
        most = f"of those that you may use, the one with most {'GPUs' if training.gpu_groups else 'nodes'}"
        partition = Value(training.name, f"guessed: {'it is the default one' if training.is_default else most}")
    return Choice(
        partition=partition,
        data_partition=data if data is not None and (training is None or data.value != training.name) else None,
        account=account,
        qos=qos,
        constraint=constraint,
        data_constraint=data_constraint,
        seconds=seconds,
        time_why=why,
        queued=_queued(facts, association, qos),
        node=training.main if training is not None else None,
    )


def refusal(partition: PartitionFacts, facts: ClusterInfo, groups: Collection[str]) -> str:
    """Why the user cannot use a partition; empty where nothing forbids it."""
    accounts = {each.account for each in facts.associations}
    if not partition.is_up:
        return "is not up"
    if partition.is_hidden:
        return "is hidden by the site"
    if partition.root_only:
        return "is for root alone"
    if not partition.nodes:
        return "has no nodes"
    if partition.allow_groups is not None and groups and not set(partition.allow_groups) & set(groups):
        return f"is for the groups {', '.join(partition.allow_groups)}"
    if partition.allow_accounts is not None and accounts and not set(partition.allow_accounts) & accounts:
        return f"is for the accounts {', '.join(partition.allow_accounts)}"
    allowed = {name for each in facts.associations for name in each.qos}
    if partition.allow_qos is not None and allowed and not set(partition.allow_qos) & allowed:
        return f"is for the QOS {', '.join(partition.allow_qos)}"
    return ""


def _training_partition(usable: list[PartitionFacts]) -> PartitionFacts | None:
    def rank(each: PartitionFacts) -> tuple[object, ...]:
        gpus = sum(group.nodes * group.gpus for group in each.groups)
        return (
            bool(gpus),
            not each.preemptible,
            not _AVOIDED.search(each.name),
            each.is_default,
            gpus,
            each.nodes,
            min(seconds_of(each.max_time), 30 * DAY),
        )

    return max(usable, key=rank, default=None)


def _data_partition(usable: list[PartitionFacts], training: PartitionFacts | None) -> Value | None:
    """For work without GPUs: a partition that has none, so that no GPU waits for a text to be cleaned."""
    if training is None or not training.gpu_groups:
        return None
    found = [each for each in usable if not each.gpu_groups and not each.preemptible]
    chosen = max(found, key=lambda each: (not _AVOIDED.search(each.name), each.nodes), default=None)
    if chosen is not None:
        return Value(chosen.name, "guessed: of those without GPUs that you may use, the one with most nodes")
    return Value(training.name, "")


def _constraints(training: PartitionFacts | None, data: Value | None) -> tuple[Value | None, Value | None]:
    """Where nodes with and without GPUs share a partition their features tell them apart."""
    if training is None or len(training.gpu_groups) in (0, len(training.groups)):
        return None, None
    with_gpus = [set(group.features) for group in training.gpu_groups]
    without = [set(group.features) for group in training.groups if not group.gpus]
    mark = sorted(set.intersection(*with_gpus) - set[str]().union(*without))
    other = sorted(set.intersection(*without) - set[str]().union(*with_gpus))
    if not mark:
        return None, None
    name = "gpu" if "gpu" in mark else mark[0]
    constraint = Value(name, f"guessed: `sinfo` shows nodes with and without GPUs in {training.name}; these have it")
    if not other or data is None or data.value != training.name:
        return constraint, None
    name = "cpu" if "cpu" in other else other[0]
    return constraint, Value(name, "guessed: the feature of the nodes without GPUs")


def _account(facts: ClusterInfo) -> Value | None:
    accounts = sorted({each.account for each in facts.associations})
    if not accounts:
        return None
    others = [name for name in accounts if name != facts.default_account]
    also = f"; you also have: {', '.join(others[:8])}" + (", ..." if len(others) > 8 else "") if others else ""
    if facts.default_account in accounts:
        return Value(facts.default_account or "", f"`sacctmgr show user`: your default account{also}")
    return Value(accounts[0], f"guessed: the first of `sacctmgr show associations`{also}")


def _association(facts: ClusterInfo, account: str | None, partition: PartitionFacts | None) -> Association | None:
    found = [each for each in facts.associations if each.account == account]
    named = [each for each in found if partition is not None and each.partition == partition.name]
    return next(iter(named or [each for each in found if not each.partition] or found), None)


def _qos(facts: ClusterInfo, partition: PartitionFacts, association: Association | None) -> Value | None:
    """A QOS only where the one that Slurm would take forbids what the partition allows."""
    if association is None or not association.qos:
        return None
    allowed = [name for name in association.qos if partition.allow_qos is None or name in partition.allow_qos]
    default = association.default_qos or ("normal" if "normal" in association.qos else association.qos[0])
    longest = min(seconds_of(partition.max_time), DAY)
    if not allowed or (default in allowed and _wall(facts, default) >= longest):
        return None

    def rank(name: str) -> tuple[object, ...]:
        return (not _AVOIDED.search(name), min(_wall(facts, name), 30 * DAY), name in _USUAL)

    best = max(allowed, key=rank)
    if best == default:
        return None
    known = "; ".join(f"{name} {qos_words(facts.qos.get(name))}".strip() for name in allowed)
    return Value(best, f"guessed from `sacctmgr show qos`; the one without asking is {default}. You have: {known}")


def _wall(facts: ClusterInfo, name: str) -> float:
    return seconds_of(facts.qos[name].max_wall) if name in facts.qos else math.inf


def qos_words(qos: Qos | None) -> str:
    """Limits of a QOS in brackets; empty without any."""
    if qos is None:
        return ""
    parts = [f"at most {qos.max_wall}" if qos.max_wall else "", qos.max_tres]
    parts.append(f"{qos.max_submit} jobs" if qos.max_submit else "")
    known = ", ".join(part for part in parts if part)
    return f"({known})" if known else ""


def _seconds(
    facts: ClusterInfo, partition: PartitionFacts | None, association: Association | None, qos: Value | None
) -> tuple[int, str]:
    """The longest that a job may run, at most a day, and what says so."""
    limits: dict[str, float] = {}
    if partition is not None and partition.max_time:
        limits[f"the limit of {partition.name}"] = seconds_of(partition.max_time)
    if association is not None:
        limits["the limit of your account"] = seconds_of(association.max_wall)
        name = qos.value if qos is not None else association.default_qos or ""
        if name in facts.qos:
            limits[f"the limit of the QOS {name}"] = seconds_of(facts.qos[name].max_wall)
    limits["guessed: no limit is known"] = DAY
    why = min(limits, key=lambda key: limits[key])
    seconds = int(limits[why])
    if any(DAY < each < math.inf for each in limits.values()) and seconds == DAY:
        why = "guessed: a day, although more is allowed"
    return seconds, why


def _queued(facts: ClusterInfo, association: Association | None, qos: Value | None) -> Value | None:
    """Where a chain might not fit into the queue as a whole."""
    if association is None:
        return None
    limits = {"your account": association.max_submit}
    name = qos.value if qos is not None else association.default_qos or ""
    if name in facts.qos:
        limits[f"the QOS {name}"] = facts.qos[name].max_submit
    known = {who: limit for who, limit in limits.items() if limit is not None and limit <= _MANY_JOBS}
    if not known:
        return None
    who = min(known, key=lambda one: known[one])
    return Value(str(known[who]), f"`sacctmgr`: of {who} at most {known[who]} jobs may be queued at a time")


def gpu_requests(facts: ClusterInfo, model: str | None) -> list[GpuRequest]:
    """Forms of GPU requests in the order to try: ``gpus-per-node`` needs select/cons_tres; some sites need the
    model."""
    tres = "cons_tres" in facts.config.get("SelectType", "cons_tres")
    forms = [GpuForm.PER_NODE, GpuForm.GRES] if tres else [GpuForm.GRES, GpuForm.PER_NODE]
    models = [None, model] if model else [None]
    return [GpuRequest(form=form, model=each) for each in models for form in forms]


def profile_name(cluster: str) -> str:
    """A name that a profile can have."""
    name = re.sub(r"[^a-z0-9]+", "-", cluster.lower()).strip("-")[:32].strip("-")
    return name or "here"


def interfaces(root: Path = Path("/sys/class/net")) -> tuple[list[str], list[str]]:
    """(fast, other) network interfaces of this machine; without loop-back and those of containers."""
    names = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    names = [name for name in names if not _SLOW_NAMES.match(name)]
    found = fast(names)
    return found, [name for name in names if name not in found]


def fast(names: Iterable[str]) -> list[str]:
    """Interfaces whose names say InfiniBand, Slingshot or Omni-Path."""
    return sorted(name for name in names if _FAST_NAMES.fullmatch(name))


def time_text(seconds: float) -> str:
    """As Slurm and a profile take it."""
    return duration(max(60, seconds))
