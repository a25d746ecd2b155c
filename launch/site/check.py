"""A profile against its cluster, without a job: paths, environments, partitions, accounts, ``sbatch --test-only``."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from jobs.core.paths import Workspace
from launch.base.errors import OvernightError
from launch.config import secrets
from launch.config.document.positions import KeyPath, MarkedFile
from launch.config.fields import Duration, words_of
from launch.config.kinds import TRAINING_KINDS
from launch.config.mounts import Mount, Runtime
from launch.config.profile import Resources, partitions_of
from launch.config.profile_fields import KINDS, Environment, Partition
from launch.config.profile_file import ProfileFile
from launch.plan.model import PlannedStage
from launch.render import provenance
from launch.runs.rundir import Run, workspace_for
from launch.site import cluster_info, storage, test_only
from launch.site.cluster_info import ClusterInfo, PartitionFacts
from launch.site.finding import Finding, Level, existing
from launch.slurm import ask
from launch.slurm.ask import Response
from launch.slurm.client import Gateway

_PYTHON_SECONDS = 20.0
_ANSWER_SECONDS = 20.0
"""Longer than for a new profile: here a missing answer hides a fault."""

_SMALL_TIME = Duration("10")

_VERSION = "import sys; print('%d.%d' % sys.version_info[:2]); sys.exit(sys.version_info < (3, 10))"


def check(
    found: ProfileFile, gateway: Gateway | None, workspace: Path | None = None, requests: bool = True
) -> list[Finding]:
    """What is found of all that is visible from here. ``gateway``: None without Slurm; ``workspace``: in place of the
    profile's; ``requests``: also test a job of every kind."""
    checker = _Checker(found, gateway, workspace)
    parts = [checker.files(), checker.environments(), checker.secrets()]
    if gateway is not None:
        parts += [checker.containers(), checker.partitions(), checker.accounts()]
        parts += [checker.removed(), checker.requests()] if requests else []
    return [Finding(Level.OK, "profile", f"{found.path} is a profile"), *(one for part in parts for one in part)]


class _Checker:
    """One profile and what the login node said, asked once."""

    def __init__(self, found: ProfileFile, gateway: Gateway | None, workspace: Path | None = None) -> None:
        self._found = found
        self._profile = found.profile
        self._gateway = gateway or Gateway()
        self._workspace = workspace_for(found.profile, workspace).root
        self._directory = existing(self._workspace)
        questions = ask.questions(ask.user_name(), [str(self._directory)])
        if not any(each.modules for each in self._profile.environments.values()):
            questions.pop("modules")
        if gateway is None:
            questions = {name: command for name, command in questions.items() if name.startswith("df ")}
        self._responses: Mapping[str, Response] = ask.ask_all(self._gateway, questions, _ANSWER_SECONDS)
        self._facts: ClusterInfo = cluster_info.read(ask.user_name(), self._responses)

    def _where(self, *path: str | int) -> str:
        return self._found.where(*path)

    # -- this machine ----------------------------------------------------------------------------------------------

    def files(self) -> Iterator[Finding]:
        """The workspace and the sources of mounts."""
        where = self._where("workspace") if self._profile.workspace is not None else str(self._found.path)
        place = storage.places({"": str(self._directory)}, self._responses)[0]
        made = "" if self._directory == self._workspace else f", to be made in {self._directory}"
        if place.problem:
            yield Finding(Level.FAIL, "workspace", f"{self._directory} does not answer: {place.problem}", where)
        elif not place.writable:
            yield Finding(Level.FAIL, "workspace", f"{self._directory} cannot be written by you{made}", where)
        else:
            kind = f"{place.kind}, {place.free / 1e9:,.0f} GB free"
            shared = place.is_shared or self._profile.executor == "local"
            words = "" if shared else "; not of a kind that nodes usually share: `overnight profile test` tries it"
            level = Level.OK if shared or self._profile.devcluster else Level.WARN
            yield Finding(level, "workspace", f"{self._workspace}: {kind}{made}{words}", where)
        for number, text in enumerate(self._profile.containers.mounts):
            source = Mount.parse(text).source
            level = Level.OK if source.exists() else Level.WARN
            words = "is there" if source.exists() else "is not on this login node; without it no container starts"
            yield Finding(level, "mount", f"{source} {words}", self._where("containers", "mounts", number))

    def environments(self) -> Iterator[Finding]:
        """Every interpreter that can be run here, images that are files, modules."""
        known = dict(self._profile.environments)
        if "core" not in known:
            yield self._python("core", sys.executable, "")
        for name, environment in known.items():
            where = self._where("environments", name)
            if environment.image is not None:
                yield self._image(f"image of {name}", environment.image, where)
            elif environment.modules:
                yield self._modules(name, environment, where)
            elif environment.nodes_only:
                words = f"{environment.interpreter} is on the nodes only: overnight profile test tries it"
                yield Finding(Level.OK, f"python of {name}", words, where)
            else:
                yield self._python(name, environment.interpreter, where)

    def _python(self, name: str, python: str, where: str) -> Finding:
        response = ask.ask(self._gateway, [python, "-c", _VERSION], _PYTHON_SECONDS)
        if response.text is None:
            return Finding(Level.FAIL, f"python of {name}", f"{python}: {response.problem}", where)
        return Finding(Level.OK, f"python of {name}", f"{python} is Python {response.text.strip()}", where)

    def _image(self, what: str, name: str, where: str) -> Finding:
        if self._profile.containers.runtime is Runtime.NONE:
            return Finding(Level.FAIL, what, "there is no containers: {runtime: ...} to start it with", where)
        return image(what, name, where)

    def _modules(self, name: str, environment: Environment, where: str) -> Finding:
        what = f"modules of {name}"
        if self._facts.module_system is None:
            response = self._responses.get("modules")
            return Finding(
                Level.WARN, what, f"not looked at: {response.problem if response else 'nobody to ask'}", where
            )
        missing = [
            each
            for each in environment.modules
            if not any(known == each or known.startswith(f"{each}/") for known in self._facts.modules)
        ]
        if missing:
            text = f"`module avail` does not list {', '.join(missing)} (it may do so after another module is loaded)"
            return Finding(Level.WARN, what, text, where)
        return Finding(Level.OK, what, f"{self._facts.module_system} has {', '.join(environment.modules)}", where)

    def secrets(self) -> Iterator[Finding]:
        """Names without a value: a pipeline that needs one may give it."""
        return secrets_of(self._found, self._profile.secrets, Level.WARN)

    # -- the cluster -----------------------------------------------------------------------------------------------

    def containers(self) -> Iterator[Finding]:
        """Whether the runtime is there."""
        runtime = self._profile.containers.runtime
        where = self._where("containers", "runtime")
        option = {Runtime.PYXIS: "container-image", Runtime.ENGINE: "environment"}.get(runtime)
        if option is not None:
            there = option in self._facts.srun_options
            words = f"`srun --help` has {'' if there else 'no '}--{option}"
            yield Finding(Level.OK if there else Level.FAIL, f"containers by {runtime}", words, where)
        elif runtime is Runtime.APPTAINER:
            executable = self._profile.containers.executable
            path = shutil.which(executable)
            words = f"it is {path}" if path else f"no {executable} on PATH here; nodes may have it"
            yield Finding(Level.OK if path else Level.WARN, "containers by apptainer", words, where)

    def partitions(self) -> Iterator[Finding]:
        """What the profile says of partitions against what the controller says."""
        for command, problem in self._facts.unknown.items():
            yield Finding(Level.WARN, "question", f"no answer: {command}: {problem}")
        if not self._facts.partitions:
            return
        asked = self._profile.gpu_request.model
        there = {group.gpu_model for one in self._facts.partitions for group in one.groups if group.gpu_model}
        if asked and there and asked not in there:
            text = f"model {asked} is not among the GPUs of the nodes: {', '.join(sorted(there))} (capitals count)"
            yield Finding(Level.FAIL, "gpu_request", text, self._where("gpu_request", "model"))
        for name, says in self._profile.partitions.items():
            real = self._facts.partition(name)
            where = self._where("partitions", name)
            if real is None:
                known = ", ".join(each.name for each in self._facts.partitions)
                yield Finding(Level.FAIL, f"partition {name}", f"there is none; there are: {known}", where)
                continue
            found = list(self._partition(name, says, real))
            yield from found or [Finding(Level.OK, f"partition {name}", "as the controller has it", where)]

    def _partition(self, name: str, says: Partition, real: PartitionFacts) -> Iterator[Finding]:
        what, node = f"partition {name}", real.main
        if not real.is_up:
            yield Finding(Level.WARN, what, "is not up", self._where("partitions", name))
        limit = cluster_info.seconds_of(real.max_time)
        if says.max_time is not None and says.max_time.seconds > limit:
            text = f"max_time {says.max_time} is more than its limit, {real.max_time}"
            yield Finding(Level.FAIL, what, text, self._where("partitions", name, "max_time"))
        most = {"max_nodes": real.max_nodes or real.nodes or None}
        if node is not None:
            most |= {"gpus": node.gpus, "cpus": node.cpus}
        for key, value in most.items():
            said = getattr(says, key)
            if said is not None and value is not None and said > value:
                yield Finding(Level.FAIL, what, f"{key} {said}: it has {value}", self._where("partitions", name, key))
        model = node.gpu_model if node is not None else None
        if says.gpu_model and model and says.gpu_model.lower() not in model.lower():
            text = f"gpu_model {says.gpu_model}: GRES reports {model}"
            yield Finding(Level.WARN, what, text, self._where("partitions", name, "gpu_model"))

    def accounts(self) -> Iterator[Finding]:
        """Accounts, QOS and constraints that anything names."""
        associations = self._facts.associations
        accounts = {each.account.lower() for each in associations}
        qos = {name for each in associations for name in each.qos}
        features = {name for each in self._facts.partitions for group in each.groups for name in group.features}
        known = {"account": accounts, "qos": qos, "constraint": features}
        for (key, value), path in self._named().items():
            if not known[key]:
                continue
            words = [value.lower()] if key == "account" else words_of(value) if key == "constraint" else [value]
            missing = [word for word in words if word not in known[key]]
            if missing:
                text = f"{', '.join(missing)} is not among yours: {', '.join(sorted(known[key]))}"
                yield Finding(Level.FAIL, key, text, self._where(*path))
            else:
                yield Finding(Level.OK, key, f"{value} is there", self._where(*path))

    def _named(self) -> dict[tuple[str, str], KeyPath]:
        found: dict[tuple[str, str], KeyPath] = {}
        for kind in KINDS:
            values = self._profile.resources_for(kind)
            paths = self._profile.resource_paths(kind, "", None)
            for key in ("account", "qos", "constraint"):
                value = getattr(values, key)
                if value is not None:
                    found.setdefault((key, value), paths[key])
        return found

    def removed(self) -> Iterator[Finding]:
        """Entries of ``remove`` that change nothing for any kind of job with any back end."""
        run = Run(Workspace(self._workspace), test_only.NAME)
        backends = [name for name in self._profile.environments if name != "core"] or [test_only.NAME]
        stages = [
            test_only.stage_of(
                self._profile, kind, self._profile.resources_for(kind), self._profile.executor_for(kind), backend, ""
            )
            for kind in KINDS
            for backend in backends
        ]
        # As training and as the end of a pipeline: only those get a signal and a mail.
        stages = [replace(stage, target_step=1, is_last=True) for stage in stages]
        yield from without_effect(self._found, run, stages, "of any kind")

    def requests(self) -> Iterator[Finding]:
        """Every different request that a kind of job makes, as a script that sbatch looks at without making a job; then
        a small one for each partition that none of them goes to."""
        kinds: dict[tuple[Resources, str], list[str]] = {}
        for kind in KINDS:
            resources = self._profile.resources_for(kind)
            if kind in TRAINING_KINDS:  # goes on after the limit of its partition, so it asks for no more
                resources = self._profile.segment(resources)
            kinds.setdefault((resources, self._profile.executor_for(kind)), []).append(kind)
        for (resources, executor), names in kinds.items():
            paths = self._profile.resource_paths(names[0], "", None)
            where = self._where(*paths.get("partition", ("resources",)))
            yield self._request(f"sbatch: {', '.join(names)}", resources, executor, names[0], where)
        tried = {partitions_of(resources) for resources, _ in kinds}
        for name, says in self._profile.partitions.items():
            if (name,) not in tried and (not self._facts.partitions or self._facts.partition(name) is not None):
                yield self._small_request(name, says)

    def _small_request(self, name: str, says: Partition) -> Finding:
        """One node of a partition, with all of its GPUs, for some minutes."""
        kind = "cpt" if says.gpus else "corpus"
        resources = self._profile.resources_for(kind).changed(
            partition=name,
            nodes=1,
            processes_per_node=1,
            cpus=None,
            mem=None,
            gpus_per_node=says.gpus,
            time=min(_SMALL_TIME, says.max_time or _SMALL_TIME, key=lambda one: one.seconds),
        )
        what, where = f"sbatch: one node of {name}", self._where("partitions", name)
        found = self._request(what, resources, self._profile.executor_for(kind), kind, where)
        # No kind of job goes there by itself, and a user who sends one there may name another account, too.
        return found if found.level is Level.OK else replace(found, level=Level.WARN, where=where)

    def _request(self, what: str, resources: Resources, executor: str, kind: str, where: str) -> Finding:
        run = Run(Workspace(self._workspace), test_only.NAME)
        stage = test_only.stage_of(self._profile, kind, resources, executor, test_only.NAME, sys.executable)
        return test_only.finding(what, run, stage, self._found, self._gateway, where=where)


def image(what: str, name: str, where: str = "") -> Finding:
    """Whether an image is there, where it is a file."""
    if not name.startswith(("/", "./", "~")):
        return Finding(Level.OK, what, f"{name}: from a registry, which nodes ask; not looked at", where)
    if Path(name).exists():
        return Finding(Level.OK, what, f"{name} is there", where)
    return Finding(Level.FAIL, what, f"there is no {name}", where)


def secrets_of(file: MarkedFile, names: Sequence[str], missing: Level) -> Iterator[Finding]:
    """Whether each of the ``secrets`` of a file has a value."""
    for index, name in enumerate(names):
        where = file.where("secrets", index)
        try:
            secrets.collect({name: where}, os.environ, secrets.user_file())
        except OvernightError as error:
            yield Finding(missing, "secret", error.message, where)
        else:
            yield Finding(Level.OK, "secret", f"{name} has a value", where)


def without_effect(found: ProfileFile, run: Run, stages: Sequence[PlannedStage], which: str) -> Iterator[Finding]:
    """Entries of the profile's ``remove`` that change nothing for these stages."""
    for number, name in provenance.without_effect(run, stages, found):
        text = f"no job {which} gets --{name}: this entry has no effect"
        yield Finding(Level.WARN, "remove", text, found.where("remove", number))
