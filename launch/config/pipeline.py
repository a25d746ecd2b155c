"""The pipeline file: what to make, in typed and frozen values. Where and how it runs is the profile's business."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from jobs.core.tasks import BenchmarkKeys, DataKeys, JudgedKeys, TaskKeys, TaskKind, kind_of
from launch.config.document.typed import StrictModel, key
from launch.config.export import ExportStage
from launch.config.fields import Amount, Line, ResourceKeys, Slug, not_empty
from launch.config.judges import JudgeKeys
from launch.config.kinds import FETCHED
from launch.config.measuring import ChooseStage, CurveStage, EvaluateStage, MeasuringStage
from launch.config.profile_fields import Group
from launch.config.secrets import SecretName
from launch.config.stages import (
    BenchmarkSource,
    CorpusStage,
    DataStage,
    GettextSource,
    ModelKeys,
    PathSource,
    SourceKeys,
    Stage,
    StageName,
    TrainingStage,
    WordProblemsSource,
)
from launch.config.sweeps import SweepKeys


class Pipeline(StrictModel):
    """One pipeline file. The stages stand in the order of the file."""

    name: Slug
    seed: Amount = 1
    model: ModelKeys
    sources: dict[Slug, SourceKeys] = key(default_factory=dict)
    judges: dict[Slug, JudgeKeys] = key(default_factory=dict)
    stages: Annotated[dict[StageName, Stage], not_empty]
    code: Line | None = None  # a work tree whose modules jobs can import
    secrets: tuple[SecretName, ...] = ()
    resources: dict[Group, ResourceKeys] = key(default_factory=dict)
    cluster: dict[Line, Any] = key(default_factory=dict)  # keys of a profile: see launch.config.document.layers
    sweep: SweepKeys | None = None
    ranges: Literal["on", "off"] = "on"  # see launch.config.ranges

    def seed_of(self, name: str) -> int:
        """Seed of a stage: its own, else the pipeline's."""
        own = self.stages[name].seed
        return self.seed if own is None else own

    def source_of(self, name: str) -> GettextSource | PathSource | WordProblemsSource:
        """Source of a data stage; a ``from`` that names none is a path."""
        stage = self.stages[name]
        assert isinstance(stage, DataStage)
        known = self.sources.get(stage.source)
        assert not isinstance(known, BenchmarkSource)
        return known or PathSource(type="path", path=stage.source)

    def task_data(self, name: str) -> dict[str, str]:
        """Task -> data stage, of the tasks that read one. Where a task names none it is the only one of its kind."""
        return {
            task: keys.get("data") or next(other for other, it in self.stages.items() if it.kind == kind.reads)
            for task, keys, kind in self._tasks(name, DataKeys)
        }

    def _tasks(self, name: str, those: type[TaskKeys]) -> Iterator[tuple[str, dict[str, Any], TaskKind]]:
        """The tasks of a measuring stage whose kind has the keys of ``those``, each with its kind."""
        stage = self.stages[name]
        assert isinstance(stage, MeasuringStage)
        for task, keys in stage.tasks.items():
            kind = kind_of(task, keys)
            if kind is not None and issubclass(kind.keys, those):
                yield task, keys, kind

    def reference(self, name: str) -> str | None:
        """The stage whose model an evaluation compares with token by token (measure ``kl``), or ``base``; None: there
        is none. Where no task names one it is the model that ``compare_to`` measures."""
        stage = self.stages[name]
        assert isinstance(stage, MeasuringStage)
        measures = [found for keys in stage.tasks.values() if isinstance(found := keys.get("measure"), dict)]
        wanted = [found["kl"] or {} for found in measures if "kl" in found]
        named = next((one["reference"] for one in wanted if one.get("reference")), None)
        earlier = self.stages.get(stage.compare_to or "")
        if named is None and wanted and isinstance(earlier, EvaluateStage):
            return earlier.checkpoint
        return named

    def curve_of(self, name: str) -> str:
        """The curve that a choice is made from: the one that it names, or the only one over the stage that it names."""
        stage = self.stages[name]
        assert isinstance(stage, ChooseStage)
        curves = {other: one.checkpoints for other, one in self.stages.items() if isinstance(one, CurveStage)}
        over = [other for other, trained in curves.items() if trained == stage.source]
        return over[0] if len(over) == 1 else stage.source

    def keep_every(self, name: str) -> int | None:
        """Steps between two saves of a training stage that stay: what it says itself, and what curves over it need."""
        stage = self.stages[name]
        assert isinstance(stage, TrainingStage)
        every = [one.every for one in self.stages.values() if isinstance(one, CurveStage) and one.checkpoints == name]
        wanted = [(stage.save_every or 1) * one for one in every]
        return math.gcd(*wanted, stage.keep_every or 0) or None

    def benchmarks(self, name: str) -> dict[str, tuple[str, str]]:
        """Task -> source and set (or path in the source) of the tasks of an evaluation that read a benchmark."""
        found = {}
        for task, keys, _ in self._tasks(name, BenchmarkKeys):
            source, _, part = str(keys.get("benchmark", "")).partition("/")
            found[task] = source, part
        return found

    def judged(self, name: str) -> dict[str, tuple[str, JudgeKeys]]:
        """Task -> name and keys of its judge, of the tasks of an evaluation that have one."""
        named = {task: str(keys.get("judge")) for task, keys, _ in self._tasks(name, JudgedKeys)}
        return {task: (judge, self.judges[judge]) for task, judge in named.items() if judge in self.judges}

    def parents(self, name: str) -> dict[str, str]:
        """Role (``checkpoint``, ``data``, ``compare_to``, ``data:<task>``, ``reference``, ``curve``, ``judge:<task>``,
        ``known:<task>``) -> stage that is read; the base model is none."""
        stage = self.stages[name]
        found: dict[str, str] = {}
        if isinstance(stage, TrainingStage | EvaluateStage) and stage.checkpoint not in (None, FETCHED):
            found["checkpoint"] = stage.checkpoint
        if isinstance(stage, CurveStage):
            found["checkpoint"] = stage.checkpoints
        if isinstance(stage, ChooseStage):
            found["curve"] = self.curve_of(name)
            if isinstance(curve := self.stages.get(found["curve"]), CurveStage):
                found["checkpoint"] = curve.checkpoints
                found |= self._read_by_tasks(found["curve"])
        if isinstance(stage, TrainingStage):
            found["data"] = stage.data
        if isinstance(stage, ExportStage):
            if stage.checkpoint != FETCHED:
                found["checkpoint"] = stage.checkpoint
            found |= {f"evaluation:{one}": one for one in self.evaluations_of(name)}
        if isinstance(stage, MeasuringStage):
            if stage.compare_to is not None:
                found["compare_to"] = stage.compare_to
            found |= self._read_by_tasks(name)
            if (reference := self.reference(name)) not in (None, FETCHED):
                found["reference"] = str(reference)
        return found

    def _read_by_tasks(self, name: str) -> dict[str, str]:
        """What the tasks of a measuring stage read, and their judges."""
        found = {f"data:{task}": data for task, data in self.task_data(name).items()}
        for task, (_, judge) in self.judged(name).items():
            if judge.model.checkpoint not in (None, FETCHED):
                found[f"judge:{task}"] = str(judge.model.checkpoint)
            if judge.calibrate_on is not None:
                found[f"known:{task}"] = judge.calibrate_on
        return found

    def evaluations_of(self, name: str) -> list[str]:
        """The evaluations that the card of an export shows: those it names, else all of its model."""
        stage = self.stages[name]
        assert isinstance(stage, ExportStage)
        of_model = (
            other
            for other, one in self.stages.items()
            if isinstance(one, EvaluateStage) and one.checkpoint == stage.checkpoint
        )
        return list(of_model if stage.evaluations is None else stage.evaluations)

    def order(self) -> tuple[str, ...]:
        """Stage names, parents first; of those that are free to run, the first in the file."""
        waiting = {name: set(self.parents(name).values()) for name in self.stages}
        done: list[str] = []
        while waiting:
            ready = next((name for name, parents in waiting.items() if parents.isdisjoint(waiting)), None)
            if ready is None:
                raise ValueError(f"the stages {', '.join(waiting)} wait for each other")
            done.append(ready)
            del waiting[ready]
        return tuple(done)

    def data_settings(self, name: str) -> dict[str, Any]:
        """Settings of a data stage in the shape that ``data_prep`` reads."""
        stage = self.stages[name]
        assert isinstance(stage, DataStage)
        source = self.source_of(name)
        split = {key: value for key, value in stage.split.plain().items() if value is not None}
        settings: dict[str, Any] = {
            "source": {"type": source.type},
            "split": {**split, "seed": self.seed_of(name)},
            "min_chars": stage.min_chars,
            "max_chars": stage.max_chars,
            "limit": stage.limit.plain(),
        }
        if isinstance(source, GettextSource):
            settings["source"] |= {
                "target": list(source.target),
                "contrast": list(source.contrast),
                "placeholders": stage.placeholders,
                "reject_words": list(stage.reject_words),
            }
        if isinstance(source, WordProblemsSource):
            settings["source"] = {**source.plain(), "languages": list(source.languages)}
        if stage.prepare is not None:
            settings["prepare"] = stage.prepare
        if isinstance(stage, CorpusStage):
            settings["document_chars"] = stage.document_chars
        else:
            settings["prompt"] = stage.prompt
        return settings
