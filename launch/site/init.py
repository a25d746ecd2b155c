"""Ask a login node and write the profile of its cluster."""

from __future__ import annotations

import grp
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launch.config.profile_fields import GpuRequest
from launch.site import choose, storage, write
from launch.site import cluster_info as facts
from launch.site.choose import Choice
from launch.site.cluster_info import ClusterInfo
from launch.slurm import ask
from launch.slurm.ask import Response
from launch.slurm.client import Gateway

_EXECUTABLES = ("apptainer", "singularity", "enroot")


@dataclass(frozen=True)
class InitResult:
    """The text of a profile, and what was asked for it."""

    name: str
    text: str
    response: Mapping[str, Response]
    facts: ClusterInfo


def make(
    gateway: Gateway,
    name: str | None,
    environment: Mapping[str, str],
    devcluster: Path | None,
    seconds: float = ask.SECONDS,
) -> InitResult:
    """The profile that the answers of the cluster give, each question asked once.

    Default ``name``: the cluster's; ``seconds``: the time limit of each query; ``devcluster``: slurm.conf of the
    throw-away cluster, if there is one, which its profile mentions.
    """
    user = ask.user_name()
    directories = storage.named(environment)
    response = ask.ask_all(gateway, ask.questions(user, list(directories.values())), seconds)
    found = facts.read(user, response)
    places = storage.places(directories, response)
    quotas = ask.ask_all(gateway, storage.quota_questions(places, user), seconds)
    places = storage.with_quotas(places, quotas)
    groups = _groups()
    choice = choose.choose(found, groups)
    request, why, trials = _gpu_request(gateway, found, choice, seconds)
    fast, others = choose.interfaces()
    tools = write.Tools(
        executables={name: path for name in _EXECUTABLES if (path := shutil.which(name))},
        fast_interfaces=tuple(fast),
        interfaces=tuple(others),
        gpu_request=request,
        gpu_why=why,
    )
    chosen = name or choose.profile_name(found.cluster)
    text = write.render(
        write.NewProfile(
            name=chosen,
            facts=found,
            choice=choice,
            places=places,
            groups=groups,
            tools=tools,
            where=socket.gethostname().partition(".")[0],
            python=sys.executable,
            devcluster=devcluster is not None and found.config.get("SLURM_CONF") == str(devcluster),
        )
    )
    quotas = {f"quota of {variable}": one for variable, one in quotas.items()}
    return InitResult(chosen, text, {**response, **quotas, **trials}, found)


def _groups() -> set[str]:
    names = set()
    for number in os.getgroups():
        try:
            names.add(grp.getgrgid(number).gr_name)
        except KeyError:  # a group without a name: no partition can mean it
            continue
    return names


def _gpu_request(
    gateway: Gateway, found: ClusterInfo, choice: Choice, seconds: float
) -> tuple[GpuRequest | None, str, dict[str, Response]]:
    """The first form of asking for GPUs that ``sbatch --test-only`` accepts; no job is made."""
    if not choice.gpus or choice.partition is None:
        return None, "", {}
    known = {
        "partition": choice.partition, "account": choice.account, "qos": choice.qos, "constraint": choice.constraint,
    }  # fmt: skip
    options = [f"--{key}={value.value}" for key, value in known.items() if value is not None]
    trials: dict[str, Response] = {}
    for request in choose.gpu_requests(found, choice.node.gpu_model if choice.node is not None else None):
        asked = [f"--{key}={value}" for key, value in request.options(1, 1).items()]
        command = ["sbatch", "--test-only", "--time=1", "--nodes=1", *options, *asked, "--wrap=true"]
        response = ask.ask(gateway, command, seconds)
        trials[f"sbatch {' '.join(asked)}"] = response
        if response.text is not None:
            return request, f"`sbatch --test-only {' '.join(asked)}` is accepted", trials
    last = next(reversed(trials.values()), None)
    said = f"; {last.problem}" if last is not None else ""
    return None, f"guessed: `sbatch --test-only` accepts no form{said}", trials
