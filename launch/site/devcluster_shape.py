"""The dev cluster in the shape of a site: the partitions, GPUs, features, accounts and QOS that a profile names.

Nodes declare what the site's nodes have; there are a few of them, and all are this machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from launch.config.fields import memory_bytes, words_of
from launch.config.profile import Profile, Resources
from launch.config.profile_fields import KINDS, Partition
from launch.slurm.devcluster.config import MEMORY_PER_CPU_MB

UNNAMED = "regular"
"""The partition of a site whose profile names none."""

_MEMORY_MB = 16000


def shape_of(profile: Profile, nodes: int) -> dict[str, Any]:
    """Fields of ``ClusterConfig`` for a cluster that can run jobs of this profile. A quarter of ``nodes`` has no GPUs
    if the profile sends work to such nodes, by partition or constraint."""
    asked = [profile.resources_for(kind) for kind in KINDS]
    partitions = dict(profile.partitions)
    for name in (each.partition for each in asked if each.partition is not None):
        partitions.setdefault(name, Partition())
    gpus = max([*(each.gpus or 0 for each in partitions.values()), *(each.gpus_per_node or 0 for each in asked)])
    with_gpus, without = _features(asked, profile)
    bare = any(each.gpus == 0 for each in partitions.values()) and gpus > 0
    cpu_nodes = max(1, nodes // 4) if nodes > 2 and (bare or without - with_gpus) else 0
    cpu_only = _names(range(nodes - cpu_nodes + 1, nodes + 1)) if cpu_nodes else ""
    cpus = max([8, *(each.cpus or 0 for each in partitions.values()), *(each.cpus or 0 for each in asked)])
    # Where no job says a partition the site chooses; here there is one more for all.
    chooses = not partitions or "partition" in profile.remove
    default = None if chooses else profile.partition
    lines = _lines(partitions, default, _names(range(1, nodes - cpu_nodes + 1)), cpu_only)
    unnamed = (f"PartitionName={UNNAMED} Default=YES",) if chooses else ()
    return {
        "cpus": cpus,
        # A job that gets all CPUs of a node and asks for no memory gets this much.
        "memory_mb": max([_MEMORY_MB, cpus * MEMORY_PER_CPU_MB, *_memory(partitions, asked)]),
        "gpus": gpus,
        "gpu_model": next((each.gpu_model for each in partitions.values() if each.gpu_model), "h100"),
        "features": tuple(sorted(with_gpus if cpu_nodes else with_gpus | without)),
        "cpu_nodes": cpu_nodes,
        "cpu_features": tuple(sorted(without)) if cpu_nodes else (),
        "partitions": (*lines, *unnamed),
        "accounts": tuple(sorted({each.account.lower() for each in asked if each.account})),
        "qos": tuple(sorted({each.qos for each in asked if each.qos})),
    }


def _names(numbers: range) -> str:
    return ",".join(f"node{number}" for number in numbers)


def _features(asked: list[Resources], profile: Profile) -> tuple[set[str], set[str]]:
    """Of nodes with GPUs, and those that work without GPUs asks for."""
    with_gpus = {name for each in profile.partitions.values() for name in each.features}
    others: set[str] = set()
    for each in asked:
        names = set(words_of(each.constraint or ""))
        if each.gpus_per_node:
            with_gpus |= names
        else:
            others |= names
    return with_gpus, others


def _memory(partitions: dict[str, Partition], asked: list[Resources]) -> Iterator[int]:
    texts = [each.memory for each in partitions.values()] + [each.mem for each in asked]
    return (memory_bytes(text) >> 20 for text in texts if text)


def _lines(partitions: dict[str, Partition], default: str | None, with_gpus: str, cpu_only: str) -> Iterator[str]:
    for name, each in partitions.items():
        parts = [f"PartitionName={name}"]
        parts += ["Default=YES"] if name == default else []
        if cpu_only and each.gpus is not None:
            parts.append(f"Nodes={with_gpus if each.gpus else cpu_only}")
        parts += [f"MaxTime={each.max_time}"] if each.max_time else []
        parts += [f"MaxNodes={each.max_nodes}"] if each.max_nodes else []
        parts += ["OverSubscribe=EXCLUSIVE"] if each.exclusive else []
        parts += ["PriorityTier=1 PreemptMode=REQUEUE"] if each.preemptible else ["PriorityTier=10"]
        yield " ".join(parts)
