"""Many variants of one pipeline: every combination of some values, planned in one go.

Stages that come out the same in several variants are one job in all of them, so what counts is how many different ones
there are. The files are read once, and the world is looked at once for all variants that see the same of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jobs.core.paths import Workspace
from launch.base.errors import InputError
from launch.config.document.layers import Override, apply_overrides, with_values
from launch.config.document.positions import Document, Problem, failure
from launch.config.document.reader import read
from launch.config.pipeline_file import PipelineFile, of_document
from launch.config.profile_file import ProfileFile
from launch.config.ranking import Ranking, ranking_of
from launch.config.stages import DataStage
from launch.config.sweeps import KEY, OVER, Axis, SweepKeys, axes_of, combinations, of_options, read_sweep
from launch.plan import builder, epochs, estimates, gather
from launch.plan.model import Facts, Plan, Planned


@dataclass(frozen=True)
class Variant:
    """One combination: its values by the keys that are swept, and the plan. The pipeline of it has no sweep."""

    values: dict[str, Any]
    planned: Planned

    @property
    def plan(self) -> Plan:
        return self.planned.plan

    @property
    def options(self) -> tuple[str, ...]:
        """As texts of ``--set``."""
        return tuple(f"{key}={said(value)}" for key, value in self.values.items())


def said(value: Any) -> str:
    """A value as an option of the command line has it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Sweep:
    """A pipeline file with what is swept in it. ``keys``: its ``sweep``; None: only options say what is swept.
    ``chosen``: what each variant sets."""

    path: Path
    document: Document
    keys: SweepKeys | None
    axes: tuple[Axis, ...]
    chosen: tuple[tuple[Override, ...], ...]

    @classmethod
    def read(cls, path: Path, options: Sequence[str] = (), axes: Sequence[str] = ()) -> Sweep:
        """A pipeline file under ``options`` (texts of ``--set``). What ``axes`` (of ``--sweep``) say stands above what
        the file says of the same key, and then every combination is a variant. Raises InputError: it cannot be read, or
        its sweep is none; with lines."""
        document = apply_overrides(read(path), options)
        keys = read_sweep(document.data, document.positions)
        found = [] if keys is None else axes_of(keys, document.positions)
        added = of_options(axes)
        known = {axis.key: axis for axis in [*found, *added]}
        how = "grid" if keys is None or added else keys.how
        return cls(path, document, keys, tuple(known.values()), tuple(combinations(tuple(known.values()), how)))

    def variants(
        self,
        profile: ProfileFile,
        workspace: Workspace,
        checked: Callable[[PipelineFile], PipelineFile] = lambda pipeline: pipeline,
    ) -> Iterator[Variant]:
        """Plan every combination. ``checked`` checks what this package cannot, see ``launch.config.data_settings``.
        Raises InputError: a variant is no pipeline; with the line of the value that makes it none."""
        known: dict[str, Facts] = {}
        for chosen in self.chosen:
            pipeline = _alone(checked(of_document(self.path, with_values(self.document, chosen))))
            under = profile.with_pipeline(pipeline.data, pipeline.positions)
            seen = _seen(pipeline)
            if seen not in known:
                known[seen] = gather.gather(pipeline, under.profile, workspace)
            plan = builder.build(pipeline.pipeline, under.profile, known[seen])
            values = {axis.key: override.value for axis, override in zip(self.axes, chosen, strict=True)}
            yield Variant(values, Planned(pipeline, under, workspace, plan))

    def ranking(self) -> Ranking | None:
        """What ranks the variants; it was checked with them."""
        first = with_values(self.document, self.chosen[0])
        return ranking_of(of_document(self.path, first).pipeline)

    def refuse(self, key: str, text: str) -> InputError:
        """An error about a key of the sweep."""
        return failure([Problem((KEY, *key.split(".")), text)], self.document.positions)


def _alone(pipeline: PipelineFile) -> PipelineFile:
    data = {key: value for key, value in pipeline.data.items() if key != KEY}
    return replace(pipeline, data=data, pipeline=pipeline.pipeline.changed(sweep=None))


def distinct(sweep: Sweep, variants: Iterable[Variant]) -> Iterator[Variant]:
    """``variants``. Raises InputError: two of them make the same, so one of them shows nothing."""
    seen: dict[frozenset[str], tuple[str, ...]] = {}
    for variant in variants:
        made = frozenset(stage.fingerprint for stage in variant.plan.stages)
        if made in seen:
            both = f"{' '.join(seen[made])} and {' '.join(variant.options)}"
            raise sweep.refuse(OVER, f"{both} make the same: leave out what decides no result")
        seen[made] = variant.options
        yield variant


@dataclass
class SweepCost:
    """What the stages that are not sealed take by the estimate, each once: ``least`` and ``most`` GPU-hours;
    ``unknown``: names of stages with GPUs that have no estimate."""

    least: float = 0.0
    most: float = 0.0
    unknown: dict[str, None] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    def add(self, variant: Variant) -> None:
        """Count a variant, too."""
        planned = variant.planned
        new = [one for one in planned.plan.stages if one.fingerprint not in self._seen]
        self._seen.update(one.fingerprint for one in new)
        open_stages = [one for one in new if not one.store(planned.workspace).seal.exists()]
        with_gpus = [one.name for one in open_stages if one.resources.gpus_per_node]
        counted = epochs.with_steps(planned.plan, planned.workspace) if with_gpus else planned.plan
        found = estimates.estimates(counted, planned.profile.profile, planned.workspace) if with_gpus else []
        hours = {one.stage: one.gpu_hours for one in found if one.gpu_hours is not None}
        for name in with_gpus:
            least, most = hours.get(name, (0.0, 0.0))
            self.least, self.most = self.least + least, self.most + most
            if name not in hours:
                self.unknown[name] = None

    def notes(self, sweep: Sweep) -> list[str]:
        """What of ``budget`` could not be looked at."""
        if sweep.keys is None or sweep.keys.budget.gpu_hours is None or not self.unknown:
            return []
        return [f"not in the estimate, and so not compared with budget.gpu_hours: {', '.join(self.unknown)}"]

    def refuse(self, sweep: Sweep) -> None:
        """Raises InputError: it may be more than ``budget: {gpu_hours}``."""
        limit = None if sweep.keys is None else sweep.keys.budget.gpu_hours
        if limit is not None and self.most > limit:
            text = f"{len(sweep.chosen)} chains take {self} by the estimate, more than {limit:g}"
            raise sweep.refuse("budget.gpu_hours", f"{text}: try fewer values, train fewer steps, or allow more")

    def __str__(self) -> str:
        same = f"{self.least:.3g}" == f"{self.most:.3g}"
        return f"{self.most:.3g} GPU-hours" if same else f"{self.least:.3g} to {self.most:.3g} GPU-hours"


def _seen(pipeline: PipelineFile) -> str:
    """All of a pipeline that ``facts.gather`` looks at: variants that agree in it see the same world."""
    stages = {
        name: written
        if isinstance(pipeline.pipeline.stages[name], DataStage)
        else {key: written.get(key) for key in ("kind", "backend", "checkpoint", "tasks")}
        for name, written in pipeline.data["stages"].items()
    }
    rest = {key: value for key, value in pipeline.data.items() if key != "stages"}
    return json.dumps([stages, rest], sort_keys=True, default=str)
