"""Every option of sbatch and srun that a job of a stage gets, and the line of profile or pipeline that it comes from.

Made while the files with their places are at hand, and kept in the run: a refusal by the site, perhaps days later by
``overnight resume``, can then name the line and the entry that ends it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from jobs.core import files
from jobs.core.files import FileState
from launch.base.errors import InputError
from launch.config.document.positions import KeyPath, dotted
from launch.config.pipeline_file import PipelineFile
from launch.config.profile_file import ProfileFile
from launch.plan.model import Plan, PlannedStage
from launch.render import containers, scripts
from launch.render import request as base
from launch.runs.rundir import Run
from launch.slurm.options import OPTIONS, flag_name


@dataclass(frozen=True)
class JobOption:
    """One option of a job.

    Attributes:
        command: ``sbatch`` or ``srun``.
        option: its name without dashes.
        value: True for one without a value.
        key: of profile or pipeline that it follows from, such as ``resources.training.gpus_per_node``; empty: ours.
        where: ``file:line:column`` of that key's value; None: built in.
        file: the file in which to write ``change``; empty where nothing can be.
        change: an entry that sets it otherwise.
        remove: an entry of the profile that takes it out; empty for what has to stay.
    """

    command: str
    option: str
    value: str | bool
    key: str
    where: str | None
    file: str
    change: str
    remove: str

    @property
    def text(self) -> str:
        """As sbatch or srun gets it."""
        return f"--{self.option}" if self.value is True else f"--{self.option}={self.value}"


def of_stage(
    run: Run, stage: PlannedStage, profile: ProfileFile, pipeline: PipelineFile | None = None
) -> list[JobOption]:
    """What the job of one stage gets; ``pipeline``: whose stage it is, where it has one."""
    request = scripts.request(run, stage, profile.profile, "attempt", 0, None)
    finder = _Finder(stage, profile, pipeline)
    header = {key.replace("_", "-"): value for key, value in base.header(request).items()}
    removed = {flag_name(flag) for flag in request.remove}
    found = [finder.emitted("sbatch", option, value) for option, value in header.items() if option not in removed]
    step = [argument for argument in (*base.srun_arguments(request), *request.step) if argument.startswith("--")]
    found += [finder.emitted("srun", *_split(one)) for one in step if flag_name(one) not in removed]
    raw = [(number, one) for number, one in enumerate(request.srun) if one.startswith("--")]
    return found + [finder.raw(number, *_split(one)) for number, one in raw]


def without_effect(run: Run, stages: Iterable[PlannedStage], profile: ProfileFile) -> list[tuple[int, str]]:
    """Entries of ``remove`` that none of the stages would get anyway: (which one of the list, option)."""
    seen: set[str] = set()
    for stage in stages:
        try:
            request = scripts.request(run, stage, profile.profile, "attempt", 0, None)
        except InputError:  # has no script either
            continue
        container = scripts.container_of(run, stage, profile.profile)
        inside = () if container is None else containers.command(replace(container, remove=()))
        words = (*base.srun_arguments(request), *request.step, *inside)
        seen |= {flag_name(one) for one in (*base.header(request), *(word for word in words if word[:2] == "--"))}
    return [(number, name) for number, name in enumerate(profile.profile.remove) if name not in seen]


def _split(argument: str) -> tuple[str, str | bool]:
    name, mark, value = argument.removeprefix("--").partition("=")
    return name, value if mark else True


@dataclass(frozen=True)
class _Finder:
    stage: PlannedStage
    profile: ProfileFile
    pipeline: PipelineFile | None

    @cached_property
    def _resources(self) -> dict[str, KeyPath]:
        stage = None if self.pipeline is None else self.pipeline.pipeline.stages.get(self.stage.name)
        return self.profile.profile.resource_paths(self.stage.kind, self.stage.name, stage)

    def emitted(self, command: str, option: str, value: str | bool) -> JobOption:
        path, example = self._source(option)
        where, change = (self._where(path), _entry(path, example)) if path else (None, "")
        remove = "" if option in OPTIONS and OPTIONS[option].needed else f"remove: [{option}]"
        return JobOption(command, option, value, dotted(path), where, self._file(path), change, remove)

    def raw(self, number: int, option: str, value: str | bool) -> JobOption:
        key, where, change = f"srun[{number}]", self.profile.origin(("srun", number)), f'srun: ["--{option}=VALUE"]'
        return JobOption("srun", option, value, key, where, str(self.profile.path), change, "srun: without it")

    def _source(self, option: str) -> tuple[KeyPath, str]:
        """The key that an option comes from, empty for one of ours, and an example of a value."""
        for name in (option, f"--{option}"):
            if self.profile.origin(("sbatch", name)) is not None:
                return ("sbatch", name), "VALUE"
        row = OPTIONS.get(option)
        if row is None:  # one that the profile adds for its containers
            return ("containers", "options"), "[--OPTION]"
        if row.resource in self._resources:
            return self._resources[row.resource], row.example
        keys: dict[KeyPath, str] = {tuple(key.split(".")): example for key, example in row.keys.items()}
        for path, example in keys.items():
            if self._where(path) is not None:
                return path, example
        return next(iter(keys.items()), ((row.resource,) if row.resource else (), row.example))

    def _where(self, path: KeyPath) -> str | None:
        file = self.pipeline if path[0] == "stages" else self.profile
        return None if file is None else file.origin(path)

    def _file(self, path: KeyPath) -> str:
        """Where to write a change: the pipeline if it sets the value, else the named profile, which is above all it
        extends."""
        if not path:
            return ""
        pipeline = None if self.pipeline is None else self.pipeline.positions.file
        if pipeline and (path[0] == "stages" or (self._where(path) or "").startswith(f"{pipeline}:")):
            return pipeline
        return str(self.profile.path)


def _entry(path: KeyPath, value: str) -> str:
    inner = path[2:] if path[0] == "stages" else path
    text = f"{inner[-1]}: {value}"
    for part in reversed(inner[:-1]):
        text = f"{part}: {{{text}}}"
    return text


def save(run: Run, plan: Plan, profile: ProfileFile, pipeline: PipelineFile) -> None:
    """Keep what every stage's job gets, and from where."""
    files.write_record(
        run.paths.emitted,
        {
            stage.name: of_stage(run, stage, profile, pipeline)
            for stage in plan.stages
            if stage.executor != "local" and stage.resources.time is not None
        },
    )


def load(path: Path, stage: str) -> list[JobOption]:
    """What was kept of a stage; empty in a run that has none."""
    try:
        return [JobOption(**one) for one in _kept(path, files.state(path)).get(stage, ())]
    except (OSError, ValueError, TypeError, AttributeError):
        return []


@lru_cache(maxsize=1)
def _kept(path: Path, state: FileState | None) -> Any:
    """Read once for all stages of a run."""
    return files.read_json(path)
