"""From a pipeline and a profile to the jobs of a chain: pure, no file and no clock is read here.

What the plan must know of the world (digests of source files, versions of back ends, what was fetched) is gathered
before, in ``gather.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from jobs.core.capabilities import Capabilities
from jobs.core.settings import decides
from jobs.core.spec import Source
from launch.base.errors import InputError
from launch.config.kinds import FETCHED, JUDGE
from launch.config.profile import Continuation, Profile, Resources
from launch.plan.model import BackEndFacts, Facts, Plan, PlannedInput, PlannedStage, fingerprint

if TYPE_CHECKING:  # status and the like read plans, and no pipeline: its models are built only where one is planned
    from launch.config.export import ExportStage
    from launch.config.judges import JudgeKeys
    from launch.config.measuring import ChooseStage, CurveStage, EvaluateStage, MeasuringStage
    from launch.config.pipeline import Pipeline
    from launch.config.stages import DataStage, TrainingStage


NOT_IN_RESULT = frozenset(
    {"save_every", "keep_saves", "threads", "micro_batch_size", "at_once", "save_beside", "ready"}
)
"""Settings that change how a stage gets to its result, not the result (up to rounding). ``validate_every`` is one where
nothing follows from validations."""


ADAPTER = "adapter"
"""Format of adapters alone, without the weights that they stand beside; no stage reads it."""


@dataclass
class _Builder:
    pipeline: Pipeline
    profile: Profile
    facts: Facts
    done: dict[str, PlannedStage] = field(default_factory=dict)

    def build(self) -> tuple[PlannedStage, ...]:
        from launch.config.export import ExportStage
        from launch.config.measuring import ChooseStage, CurveStage
        from launch.config.stages import DataStage, TrainingStage

        for name in self.pipeline.order():
            stage = self.pipeline.stages[name]
            if isinstance(stage, DataStage):
                self.add_data(name, stage)
            elif isinstance(stage, TrainingStage):
                self.add_training(name, stage)
            elif isinstance(stage, CurveStage):
                self.add_curve(name, stage)
            elif isinstance(stage, ChooseStage):
                self.add_choice(name, stage)
            elif isinstance(stage, ExportStage):
                self.add_export(name, stage)
            else:
                self.add_evaluation(name, stage)
        awaited = {parent for stage in self.done.values() for parent in stage.parents}
        return tuple(replace(stage, is_last=stage.name not in awaited) for stage in self.done.values())

    def back_end(self, name: str, kind: str, stage: str) -> BackEndFacts:
        found = self.facts.back_ends[name]
        kinds = found.capabilities.kinds
        if kind not in kinds:
            known = ", ".join(sorted(kinds))
            raise InputError(f"stage {stage!r}: back end {name!r} does no {kind!r}; it does {known}")
        return found

    def of_stage(self, name: str) -> PlannedInput:
        stage = self.done[name]
        return PlannedInput(name, stage.produces_kind, stage.produces_format, stage.fingerprint, is_job=True)

    def of_fetched(self, name: str) -> PlannedInput:
        item = self.facts.fetched[name]
        # Not resolved yet: the plan can be shown, not submitted; the request stands in for the revision.
        known = item.fingerprint or fingerprint(unresolved=item.request)
        return PlannedInput(name, "download", item.format, known, is_job=False)

    def add(
        self,
        name: str,
        kind: str,
        backend: str,
        produces: tuple[str, str],
        settings: dict[str, Any],
        inputs: dict[str, PlannedInput],
        stage: DataStage | TrainingStage | MeasuringStage | ChooseStage | ExportStage | None,
        sources: tuple[Source, ...] = (),
        target_step: int | None = None,
    ) -> None:
        from launch.config.stages import TrainingStage

        facts = self.back_end(backend, kind, name)
        able = facts.capabilities
        resources = self.profile.resources_for(kind, stage)
        executor = self.profile.executor_for(kind, stage.executor if stage else None)
        if executor == "local":  # one process after the other; the batch is the global one all the same
            resources = resources.changed(nodes=1, processes_per_node=1)
        without = NOT_IN_RESULT if decides(settings) else {*NOT_IN_RESULT, "validate_every"}
        result = {key: value for key, value in settings.items() if key not in without}
        versions = dict(facts.versions)
        is_unseen = bool(resources.image) or not versions.keys().isdisjoint(("image", "modules"))
        if resources.image:  # what is in it decides, and the user's code, which is not in it
            versions = {"image": resources.image} | {key: it for key, it in versions.items() if key == "code"}
        if able.revision > 1:
            versions["overnight"] = str(able.revision)
        if uses_code(settings) and self.facts.code is not None:
            versions["code"] = self.facts.code
        # An evaluation goes on at the next example. Where the next link has to do that, each would be several jobs.
        measures = kind == "evaluate" and self.profile.continuation is Continuation.REQUEUE
        resumable = isinstance(stage, TrainingStage) or measures
        if resumable and executor != "local":
            resources = self.profile.segment(resources)
        self.done[name] = PlannedStage(
            name=name,
            kind=kind,
            backend=backend,
            produces_kind=produces[0],
            produces_format=produces[1],
            fingerprint=fingerprint(
                kind=kind,
                backend=backend,
                versions=versions,
                settings=result,
                produces=produces,
                inputs={role: parent.fingerprint for role, parent in inputs.items()},
                sources=[source.sha256 for source in sources],
            ),
            inputs=inputs,
            settings=settings,
            resources=resources,
            executor=executor,
            continuation=self.profile.continuation.value if resumable and executor != "local" else "none",
            python=facts.python,
            launcher=_launcher(able, kind, executor, resources),
            sources=sources,
            target_step=target_step,
            inserted=stage is None,
            memory=able.memory and able.memory.installed(None if is_unseen else facts.versions),
            experimental=able.experimental,
        )
        if resources.processes > 1 and not able.distributed:
            raise InputError(f"stage {name!r}: back end {backend!r} runs as one process, not as {resources.processes}")

    def add_data(self, name: str, stage: DataStage) -> None:
        source = stage.source
        inputs = {"source": self.of_fetched(source)} if source in self.facts.fetched else {}
        if stage.prepare is not None and stage.prepare.get("tokenizer") == FETCHED:
            # A model of one file (GGUF) has its tokenizer inside: the conversion writes it as the files that are read.
            inputs["tokenizer"] = self.in_format(FETCHED, ("hf",), "a data stage with prepare.tokenizer")
        self.add(
            name,
            stage.kind,
            "data",
            ("dataset", stage.kind),
            self.pipeline.data_settings(name),
            inputs,
            stage,
            sources=self.facts.sources.get(name, ()),
        )

    def checkpoint(self, wanted: str, backend: str) -> PlannedInput:
        """The checkpoint that a stage names, in a format that its back end reads; a conversion is inserted if not."""
        return self.in_format(wanted, self.facts.back_ends[backend].capabilities.formats_in, f"back end {backend!r}")

    def in_format(self, wanted: str, formats: Collection[str], who: str) -> PlannedInput:
        """A checkpoint in one of these formats; ``who`` reads it."""
        is_fetched = wanted == FETCHED or wanted.startswith(JUDGE)
        found = self.of_fetched(wanted) if is_fetched else self.of_stage(wanted)
        way = conversions(self.facts.back_ends, found.format, formats)
        if way is None:
            raise InputError(
                f"{who} reads {', '.join(sorted(formats))}; "
                f"nothing converts {found.format!r} of {wanted!r} to that"
                + (": leave options.output of that stage out for whole weights" if found.format == ADAPTER else "")
            )
        for converter, target in way:
            name = f"{wanted.replace(':', '-')}-{target}"
            if name in self.pipeline.stages:
                raise InputError(
                    f"stage {name!r} has the name of the conversion of {wanted!r} to {target!r}, which is needed",
                    hint=f"call stage {name!r} something else",
                )
            if name not in self.done:
                settings = {"from": found.format, "to": target}
                self.add(name, "convert", converter, ("checkpoint", target), settings, {"source": found}, None)
            found = self.of_stage(name)
        return found

    def add_training(self, name: str, stage: TrainingStage) -> None:
        resources = self.profile.resources_for(stage.kind, stage)
        problem = stage.batch_problem(resources.nodes, resources.processes_per_node)
        if problem:
            raise InputError(f"stage {name!r}: {problem}")
        settings = stage.settings()
        for reference in ("kind", "backend", "checkpoint", "data"):
            settings.pop(reference)
        settings["seed"] = self.pipeline.seed_of(name)
        if (every := self.pipeline.keep_every(name)) is not None:
            settings["keep_every"] = every
        inputs = {"checkpoint": self.checkpoint(stage.checkpoint, stage.backend), "data": self.of_stage(stage.data)}
        able = self.facts.back_ends[stage.backend].capabilities.formats_out - {"metrics"}
        alone = settings.get("output") == ADAPTER
        form = ADAPTER if alone and ADAPTER in able else min(able - {ADAPTER})
        self.add(
            name, stage.kind, stage.backend, ("checkpoint", form), settings, inputs, stage, target_step=stage.steps
        )

    def add_evaluation(self, name: str, stage: EvaluateStage) -> None:
        settings, inputs = self.measuring(name, stage)
        settings.pop("checkpoint")
        if stage.checkpoint is not None:
            inputs["checkpoint"] = self.checkpoint(stage.checkpoint, stage.backend)
        self.add(name, "evaluate", stage.backend, ("evaluation", "metrics"), settings, inputs, stage)

    def add_curve(self, name: str, stage: CurveStage) -> None:
        settings, inputs = self.measuring(name, stage)
        trained = self.done[stage.checkpoints]
        able = self.facts.back_ends[trained.backend].capabilities
        if able.saves not in self.facts.back_ends[stage.backend].capabilities.formats_in or not able.saves:
            raise InputError(
                f"stage {name!r}: back end {stage.backend!r} reads no saves of {trained.backend!r}",
                hint="measure its finished model by an evaluation",
            )
        every = settings.pop("every") * (trained.settings["save_every"] or 1)
        settings["curve"] = {"every": every, "backend": trained.backend}
        del settings["checkpoints"]
        inputs |= {"checkpoint": self.of_stage(stage.checkpoints), "source": trained.inputs["checkpoint"]}
        self.add(name, "evaluate", stage.backend, ("evaluation", "metrics"), settings, inputs, stage)

    def add_choice(self, name: str, stage: ChooseStage) -> None:
        """What it measures again is what its curve measures, on the test split."""
        curve = self.done[self.pipeline.curve_of(name)]
        trained = curve.inputs["checkpoint"]
        settings = stage.settings()
        for reference in ("kind", "backend", "from", "by", "subject_to"):
            settings.pop(reference)
        rules = {metric: rule.settings() for metric, rule in stage.subject_to.items()}
        settings |= {
            "seed": self.pipeline.seed_of(name),
            "curve": curve.settings["curve"],
            "choose": {"by": dict(stage.by), "subject_to": rules},
            "tasks": curve.settings["tasks"],
        }
        inputs = {**curve.inputs, "curve": self.of_stage(curve.name)}
        form = self.facts.back_ends[self.done[trained.stage].backend].capabilities.saves
        self.add(name, "evaluate", stage.backend, ("checkpoint", form), settings, inputs, stage)

    def add_export(self, name: str, stage: ExportStage) -> None:
        """Planned as the conversion that it is."""
        from launch.plan import export

        inputs = {"checkpoint": self.in_format(stage.checkpoint, ("hf",), "an export")}
        for other in self.pipeline.evaluations_of(name):
            inputs[f"evaluation:{other}"] = self.of_stage(other)
        for trained in export.lineage(self.pipeline, stage.checkpoint):
            data = getattr(self.pipeline.stages[trained], "data", "")
            inputs[f"data:{data}"] = self.of_stage(data)
        if FETCHED in self.facts.fetched:
            inputs["base"] = self.of_fetched(FETCHED)
        settings = export.settings_of(self.pipeline, name)
        self.add(name, "convert", stage.backend, ("checkpoint", "hf"), settings, inputs, stage)

    def measuring(self, name: str, stage: MeasuringStage) -> tuple[dict[str, Any], dict[str, PlannedInput]]:
        """The settings of a stage that measures, and what it reads beside the models that are measured."""
        settings = stage.settings()
        for reference in ("kind", "backend", "compare_to"):
            settings.pop(reference)
        settings["seed"] = self.pipeline.seed_of(name)
        inputs: dict[str, PlannedInput] = {}
        for task, (source, _) in self.pipeline.benchmarks(name).items():
            settings["tasks"][task] |= self.facts.tasks.get(name, {}).get(task, {})
            inputs[f"benchmark:{source}"] = self.of_fetched(source)
        for task, source in self.pipeline.task_data(name).items():
            settings["tasks"][task]["data"] = source
            inputs[source] = self.of_stage(source)
        for task, (judge, keys) in self.pipeline.judged(name).items():
            settings["tasks"][task]["judged_by"] = self.judged_by(judge, keys, stage.measured)
            if keys.model.server is None:
                wanted = keys.model.checkpoint or f"{JUDGE}{judge}"
                inputs[f"{JUDGE}{judge}"] = self.checkpoint(wanted, stage.backend)
            if keys.calibrate_on is not None:
                inputs[keys.calibrate_on] = self.of_stage(keys.calibrate_on)
        if stage.compare_to:
            inputs["compare_to"] = self.of_stage(stage.compare_to)
        if other := self.pipeline.reference(name):
            inputs["reference"] = self.checkpoint(other, stage.backend)
        return settings, inputs

    def judged_by(self, name: str, judge: JudgeKeys, checkpoint: str | None) -> dict[str, Any]:
        """What the job knows about a judge of the model ``checkpoint``."""
        found = judge.settings()
        if name in self.facts.rubrics:
            found["rubric"] = self.facts.rubrics[name]
        own = judge.model.checkpoint is not None or judge.model.base == self.pipeline.model.base
        return {**found, "same_base": True} if own and checkpoint is not None else found


def uses_code(settings: Mapping[str, Any]) -> bool:
    """Whether a task of an evaluation with these settings measures by a function of the user's code."""
    return any("code" in (task.get("measure") or ()) for task in settings.get("tasks", {}).values())


def _launcher(able: Capabilities, kind: str, executor: str, resources: Resources) -> str:
    """How the processes start: a single one plainly, except where the program needs a Ray cluster around it."""
    if able.launcher == "ray":
        return "ray" if kind != "convert" and executor != "local" else "python"
    return able.launcher if resources.processes > 1 else "python"


def conversions(
    back_ends: Mapping[str, BackEndFacts], given: str, wanted: Collection[str]
) -> list[tuple[str, str]] | None:
    """The shortest way from one format to one of ``wanted``: steps (back end, format it makes); None: there is none."""
    ways: dict[str, list[tuple[str, str]]] = {given: []}
    waiting = [given]
    while waiting:
        form = waiting.pop(0)
        if form in wanted:
            return ways[form]
        for name, facts in sorted(back_ends.items()):
            for source, target in sorted(facts.capabilities.converts):
                if source == form and target not in ways:
                    ways[target] = [*ways[form], (name, target)]
                    waiting.append(target)
    return None


def build(pipeline: Pipeline, profile: Profile, facts: Facts) -> Plan:
    """Plan the chain. Raises InputError: a back end cannot do what a stage asks of it."""
    stages = _Builder(pipeline, profile, facts).build()
    return Plan(pipeline.name, stages, tuple(facts.fetched.values()), facts.core_python, facts.code)


def back_ends_of(pipeline: Pipeline) -> tuple[str, ...]:
    """Names of the back ends that planning has to ask about."""
    from launch.config.references import OWN_BACKENDS
    from launch.config.stages import DataStage

    named = {stage.backend for stage in pipeline.stages.values() if not isinstance(stage, DataStage)}
    return tuple(sorted(named.union(OWN_BACKENDS)))
