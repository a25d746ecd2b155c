"""What the types of a pipeline cannot say: references between stages, kinds that fit, cycles, batches, tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from jobs.core.measures import MEASURES
from jobs.core.settings import EarlyStopping, validation_problem
from jobs.core.tasks import FOUND, KINDS, BenchmarkKeys, DataKeys, JudgedKeys, kind_of
from launch.base.text import suggest
from launch.config.document.positions import KeyPath, Problem
from launch.config.document.typed import StrictModel, fields_of
from launch.config.document.words import show
from launch.config.export import ExportStage
from launch.config.kinds import FETCHED, MODEL_KINDS, TRAINING_DATA, TRAINING_KINDS, by_metric, measured, own_metrics
from launch.config.lookups import of_kinds, reference
from launch.config.measuring import ChooseStage, CurveStage, EvaluateStage, MeasuringStage, ServerKeys
from launch.config.stages import BenchmarkSource, DataStage, TrainingStage
from launch.inputs.toolkit import package_directory

if TYPE_CHECKING:
    from launch.config.pipeline import Pipeline

OWN_BACKENDS = ("convert", "data")  # of the kinds that name none


def problems(pipeline: Pipeline) -> list[Problem]:
    """Every fault that shows only between the parts of a pipeline; empty where it is valid."""
    found = [*_judges(pipeline)]
    for name, stage in pipeline.stages.items():
        if isinstance(stage, DataStage):
            found += _data(pipeline, name, stage)
        elif isinstance(stage, TrainingStage):
            found += _training(pipeline, name, stage)
        elif isinstance(stage, EvaluateStage):
            found += _evaluation(pipeline, name, stage)
        elif isinstance(stage, CurveStage):
            found += _curve(pipeline, name, stage)
        elif isinstance(stage, ExportStage):
            found += _export(pipeline, name, stage)
        else:
            found += _choice(pipeline, name, stage)
    found = found or list(_cycles(pipeline))
    if found or pipeline.sweep is None:
        return found
    from launch.config import ranking  # most pipelines have no sweep

    return list(ranking.problems(pipeline))


def _judges(pipeline: Pipeline) -> Iterator[Problem]:
    stages = {name: stage for name, stage in pipeline.stages.items() if isinstance(stage, MeasuringStage)}
    tasks = [kind_of(task, keys) for stage in stages.values() for task, keys in stage.tasks.items()]
    if pipeline.judges or any(kind is not None and kind.keys is JudgedKeys for kind in tasks):
        from launch.config.judge_references import of_choice, of_judged, of_judges  # few pipelines have judges

        yield from of_judges(pipeline)
        for name, stage in stages.items():
            yield from of_judged(pipeline, name, stage)
        for name, choice in pipeline.stages.items():
            if isinstance(choice, ChooseStage) and isinstance(curve := stages.get(pipeline.curve_of(name)), CurveStage):
                yield from of_choice(pipeline, name, choice, curve)


def backends() -> list[str]:
    """Back ends that a pipeline may name: the modules and packages of ``jobs/backends``, which is not imported."""
    entries = package_directory("jobs").joinpath("backends").iterdir()
    names = {
        entry.name.removesuffix(".py")
        for entry in entries
        if entry.name.endswith(".py") or entry.joinpath("__init__.py").is_file()
    }
    return sorted(name for name in names if not name.startswith("_") and name not in OWN_BACKENDS)


def _backend(pipeline: Pipeline, name: str, stage: TrainingStage | MeasuringStage | ChooseStage) -> list[Problem]:
    known = backends()
    if stage.backend in known or pipeline.code is not None:  # a module of the user's: the probe finds it, or says so
        return []
    text = f"there is no back end {stage.backend!r}; {suggest(stage.backend, known)}"
    return [Problem(("stages", name, "backend"), text)]


def _options(path: KeyPath, options: dict[str, Any], keys: Iterable[str]) -> Iterator[Problem]:
    """Options stand beside the owner's own keys in the settings, so they must not share a name."""
    for option in options:
        if option in keys:
            yield Problem((*path, option), "is a key of its own: write it one level up", at_key=True)


def _data(pipeline: Pipeline, name: str, stage: DataStage) -> Iterator[Problem]:
    place: KeyPath = ("stages", name)
    known = stage.source in pipeline.sources
    if not known and not any(mark in stage.source for mark in "/.~"):
        near = suggest(stage.source, list(pipeline.sources))
        yield Problem((*place, "from"), f"there is no source {stage.source!r}, and a path has a / or a dot; {near}")
    if stage.max_chars is not None and stage.max_chars < stage.min_chars:
        yield Problem((*place, "max_chars"), f"{stage.max_chars} is less than min_chars ({stage.min_chars})")
    own_files = not known or pipeline.sources[stage.source].type == "path"
    made = known and pipeline.sources[stage.source].type == "word_problems"
    for name in sorted({"placeholders", "reject_words", "prompt"} & _chosen(stage)) if made else ():
        yield Problem((*place, name), "is not used here: word problems are whole as they are made", at_key=True)
    for key, why in _unused(stage, own_files):
        yield Problem((*place, *key), f"is not used here: {why}", at_key=True)
    if known and pipeline.sources[stage.source].type == "benchmark":
        text = "is of type benchmark: for tasks of an evaluation; nothing is trained on what it is tested with"
        yield Problem((*place, "from"), f"{stage.source!r} {text}")
    elif known and pipeline.sources[stage.source].type == "word_problems" and stage.kind != "instructions":
        yield Problem((*place, "from"), f"{stage.source!r} has word problems: they are for stages of kind instructions")
    elif known and stage.kind == "preferences":
        source = pipeline.sources[stage.source]
        if source.type == "gettext" and not source.contrast:
            yield Problem(("sources", stage.source, "contrast"), f"stage {name} (preferences) needs a locale to reject")


def _unused(stage: DataStage, own_files: bool) -> Iterator[tuple[KeyPath, str]]:
    """Keys of a data stage whose values would change nothing, and what to write instead."""
    written = _chosen(stage)
    if own_files:
        for key in sorted({"placeholders", "reject_words"} & written):
            yield (key,), "it is for translations of packages (a source of type gettext); remove it"
    else:
        for key in sorted({"existing", "config", "names", "group"} & _chosen(stage.split)):
            yield ("split", key), "it is for the user's own files (a source of type path); remove it"
    if own_files and stage.kind != "corpus" and stage.split.group is not None:
        yield (
            ("split", "group"),
            "it is for documents of a corpus; prepare: {group_by: FIELD} keeps rows that belong together in one split",
        )
    if stage.prepare is not None:
        for key, instead in (("document_chars", "document_chars: N"), ("prompt", "template: 'TEXT {input} {output}'")):
            if key in written:
                yield (key,), f"the stage has prepare; write prepare: {{{instead}}}"


def _chosen(model: StrictModel) -> set[str]:
    """Fields with another value than the default."""
    return {name for name, field in fields_of(type(model)).items() if getattr(model, name) != field.default}


def _training(pipeline: Pipeline, name: str, stage: TrainingStage) -> Iterator[Problem]:
    place: KeyPath = ("stages", name)
    yield from _backend(pipeline, name, stage)
    yield from reference(pipeline, (*place, "checkpoint"), stage.checkpoint, MODEL_KINDS, FETCHED)
    yield from reference(pipeline, (*place, "data"), stage.data, (TRAINING_DATA[stage.kind],))
    shared = stage.batch_problem(stage.nodes or 1, stage.processes_per_node or 1)
    if shared:
        yield Problem((*place, "batch_size"), shared)
    yield from _options((*place, "options"), stage.options, fields_of(type(stage)))
    if stage.steps is None and stage.epochs is None:
        yield Problem((*place, "steps"), "is missing: write steps, or epochs in its place")
    elif stage.steps is not None and stage.epochs is not None:
        yield Problem((*place, "epochs"), f"excludes steps ({stage.steps}): remove one of the two", at_key=True)
    yield from _validation(pipeline, name, stage)
    if stage.steps is not None and stage.warmup_steps > stage.steps:
        yield Problem((*place, "warmup_steps"), f"{stage.warmup_steps} is more than steps ({stage.steps})")


def _validation(pipeline: Pipeline, name: str, stage: TrainingStage) -> Iterator[Problem]:
    place: KeyPath = ("stages", name)
    early = None if stage.early_stopping is None else EarlyStopping(**stage.early_stopping.plain())
    problem = validation_problem(stage.steps, stage.validate_every, early, stage.select)
    if problem is not None:
        yield Problem((*place, problem[0]), problem[1], at_key=True)
    data = pipeline.stages.get(stage.data)
    if stage.validate_every is None or not isinstance(data, DataStage) or data.split.validation:
        return
    known = pipeline.sources.get(data.source)
    if data.split.existing == "pool" or (known is not None and known.type != "path"):  # else the files may have one
        text = f"stage {stage.data} has no validation split: write split: {{validation: 0.05}} there, or leave this out"
        yield Problem((*place, "validate_every"), text, at_key=True)


def _evaluation(pipeline: Pipeline, name: str, stage: EvaluateStage) -> Iterator[Problem]:
    place: KeyPath = ("stages", name)
    engine = stage.engine
    if stage.checkpoint is not None:
        yield from reference(pipeline, (*place, "checkpoint"), stage.checkpoint, MODEL_KINDS, FETCHED)
    elif engine.server is None or isinstance(engine.server, ServerKeys):
        yield Problem(
            (*place, "checkpoint"), "is missing: write what is measured, or engine: {server: URL, model: NAME}"
        )
    if isinstance(engine.server, ServerKeys):
        if engine.key is not None:
            text = "is for a server that is there: remove it, the stage makes a key for the one it starts"
            yield Problem((*place, "engine", "key"), text, at_key=True)
    elif engine.server is not None:
        yield from _server(pipeline, (*place, "engine"), stage)
    yield from _measuring(pipeline, name, stage)
    yield from _gate(pipeline, name, stage)


def _server(pipeline: Pipeline, place: KeyPath, stage: EvaluateStage) -> Iterator[Problem]:
    engine = stage.engine
    if stage.checkpoint is not None:
        yield Problem((*place, "server"), f"answers in place of a model: leave checkpoint ({stage.checkpoint}) out")
    if engine.model is None:
        yield Problem((*place, "server"), "needs model: NAME, too: what the model is called there")
    if engine.key is not None and engine.key not in pipeline.secrets:
        text = f"{engine.key} is not listed in secrets of the pipeline: write secrets: [{engine.key}] at its top"
        yield Problem((*place, "key"), text)


def _curve(pipeline: Pipeline, name: str, stage: CurveStage) -> Iterator[Problem]:
    place: KeyPath = ("stages", name)
    found = reference(pipeline, (*place, "checkpoints"), stage.checkpoints, TRAINING_KINDS)
    yield from found
    trained = pipeline.stages.get(stage.checkpoints)
    if not found and isinstance(trained, TrainingStage) and trained.save_every is None:
        text = f"stage {stage.checkpoints} saves by time: write save_every there, so that the saves are known"
        yield Problem((*place, "checkpoints"), text)
    if stage.engine.server is not None:
        text = "is for a stage of kind evaluate: a curve swaps the weights of a model of its own"
        yield Problem((*place, "engine", "server"), text, at_key=True)
    yield from _measuring(pipeline, name, stage)


def _choice(pipeline: Pipeline, name: str, stage: ChooseStage) -> Iterator[Problem]:
    place: KeyPath = ("stages", name)
    yield from _backend(pipeline, name, stage)
    yield from _options((*place, "options"), stage.options, fields_of(type(stage)))
    source = pipeline.curve_of(name)
    curve = pipeline.stages.get(source)
    if not isinstance(curve, CurveStage):
        yield from reference(pipeline, (*place, "from"), stage.source, ("curve",))
        return
    known, open_tasks = measured(curve.tasks), own_metrics(curve.tasks)
    for key, metrics in (("by", [*stage.by]), ("subject_to", [*stage.subject_to])):
        for metric in metrics:
            if metric not in known and not _is_open(
                metric, open_tasks
            ):  # of the open ones the planner asks the harness
                text = f"{source} measures no {metric!r}; {suggest(metric, list(known))}"
                yield Problem((*place, key, metric), text, at_key=True)


def _export(pipeline: Pipeline, name: str, stage: ExportStage) -> Iterator[Problem]:
    place: KeyPath = ("stages", name)
    yield from reference(pipeline, (*place, "checkpoint"), stage.checkpoint, MODEL_KINDS, FETCHED)
    for at, one in enumerate(stage.evaluations or ()):
        yield from reference(pipeline, (*place, "evaluations", at), one, ("evaluate",))


def _measuring(pipeline: Pipeline, name: str, stage: MeasuringStage) -> Iterator[Problem]:
    place: KeyPath = ("stages", name)
    yield from _backend(pipeline, name, stage)
    yield from _options((*place, "options"), stage.options, fields_of(type(stage)))
    for task, keys in stage.tasks.items():
        yield from _task(pipeline, (*place, "tasks", task), keys)
    if stage.compare_to is not None:
        yield from reference(pipeline, (*place, "compare_to"), stage.compare_to, ("evaluate",))
    yield from _measures(pipeline, name, stage)


def _measures(pipeline: Pipeline, name: str, stage: MeasuringStage) -> Iterator[Problem]:
    """What measures of generated answers need beside the task."""
    references: set[str] = set()
    for task, given in stage.tasks.items():
        measure = given.get("measure")
        if not isinstance(measure, dict):
            continue
        place: KeyPath = ("stages", name, "tasks", task, "measure")
        if "code" in measure and pipeline.code is None:
            yield Problem(
                (*place, "code"), "needs the key code of the pipeline: the directory of its module", at_key=True
            )
        if "kl" not in measure or not isinstance(measure["kl"] or {}, dict):
            continue
        wanted = (measure["kl"] or {}).get("reference")
        if isinstance(wanted, str):
            references.add(wanted)
            yield from reference(pipeline, (*place, "kl", "reference"), wanted, MODEL_KINDS, FETCHED)
        elif stage.compare_to is None:
            text = "needs a model to compare with: write {reference: NAME} of a stage, or compare_to"
            yield Problem((*place, "kl"), text, at_key=True)
        if len(references) > 1:
            text = f"another task compares with {min(references - {str(wanted)})!r}: one reference for all tasks"
            yield Problem((*place, "kl"), text, at_key=True)


def _task(pipeline: Pipeline, place: KeyPath, given: dict[str, Any]) -> Iterator[Problem]:
    yield from of_task(place, given)
    kind = kind_of(str(place[-1]), given)
    if kind is not None and issubclass(kind.keys, BenchmarkKeys) and isinstance(named := given.get("benchmark"), str):
        sources = [name for name, source in pipeline.sources.items() if isinstance(source, BenchmarkSource)]
        if (source := named.partition("/")[0]) not in sources:
            text = f"there is no source {source!r} of type benchmark; {suggest(source, sources)}"
            yield Problem((*place, "benchmark"), text)
    if kind is not None and issubclass(kind.keys, DataKeys):
        yield from _data_of_task(pipeline, place, given.get("data"), kind.reads)


def of_task(place: KeyPath, given: dict[str, Any]) -> Iterator[Problem]:
    """What is wrong with the keys of a task, beside what they refer to."""
    name = str(place[-1])
    kind = kind_of(name, given)
    if kind is None:
        key: str | None = next((key for key in ("task", "safety") if key in given), None)
        wrong = name if key is None else str(given[key])
        options = [one.name for one in KINDS.values() if key != "safety" or one.key == key]
        at: KeyPath = place if key is None else (*place, key)
        yield Problem(at, f"there is no task {wrong!r}; {suggest(wrong, options)}", at_key=key is None)
        return
    known = [key.name for key in fields(kind.keys) if key.name not in FOUND]
    options = given.get("options", {})
    if not isinstance(options, dict):
        yield Problem((*place, "options"), f"expected a mapping (key: value), got {options!r}")
    else:
        yield from _options((*place, "options"), options, known)
    own = {name: one for name, one in given.items() if name not in ("task", "options")}
    for path, text in kind.problems(own):
        near = suggest(path[-1], known if len(path) == 1 else list(MEASURES))
        value = given.get(path[0]) if len(path) == 1 else given[path[0]][path[1]]
        yield Problem((*place, *path), text or f"unknown key; {near} (value: {show(value)})", at_key=not text)


def _data_of_task(pipeline: Pipeline, place: KeyPath, data: Any, kind: str) -> Iterator[Problem]:
    options = of_kinds(pipeline, (kind,))
    if isinstance(data, str):
        yield from reference(pipeline, (*place, "data"), data, (kind,))
    elif data is not None:
        return  # no text, which is a problem already
    elif not options:
        yield Problem(place, f"needs a stage of kind {kind}; there is none", at_key=True)
    elif len(options) > 1:
        yield Problem(place, f"which data? write {place[-1]}: {{data: NAME}}, one of {', '.join(options)}", at_key=True)


def _gate(pipeline: Pipeline, name: str, stage: EvaluateStage) -> Iterator[Problem]:
    """A gate that cannot be judged would be found out at the end of the night."""
    place: KeyPath = ("stages", name, "gate")
    compared = [metric for metric, rule in stage.gate.items() if rule.compares]
    if compared and stage.compare_to is None:
        text = "needs compare_to: NAME of an evaluation to compare with"
        yield Problem((*place, compared[0]) if len(compared) < len(stage.gate) else place, text, at_key=True)
    earlier = pipeline.stages.get(stage.compare_to or "")
    known = measured(stage.tasks)
    open_tasks = own_metrics(stage.tasks)
    for gate, text in _one_sided(stage):
        yield Problem((*place, gate), text, at_key=True)
    for metric in stage.gate:
        if len(several := by_metric(stage.tasks).get(metric, ())) > 1:
            names = " or ".join(f"{one}.{metric}" for one in several)
            yield Problem((*place, metric), f"several tasks measure {metric!r}: write {names}", at_key=True)
            continue
        if metric not in known and _is_open(metric, open_tasks):
            continue  # the planner asks the harness what these tasks measure
        if metric not in known:
            near = suggest(metric, list(known))
            yield Problem((*place, metric), f"no task of this evaluation measures {metric!r}; {near}", at_key=True)
        elif metric in compared and isinstance(earlier, EvaluateStage) and known[metric][0] not in earlier.tasks:
            text = f"{stage.compare_to} does not run the task {known[metric][0]!r}"
            yield Problem((*place, metric), text, at_key=True)


def _is_open(metric: str, open_tasks: set[str]) -> bool:
    """Whether a metric may be one of these tasks."""
    task = metric.rpartition(".")[0]
    return bool(open_tasks) and (not task or task in open_tasks)


def _one_sided(stage: EvaluateStage) -> Iterator[tuple[str, str]]:
    """Gates on refusals of one kind of prompt: a model that refuses everything, or nothing, passes them."""
    known = measured(stage.tasks)
    gated = {known[gate] for gate in stage.gate if gate in known}
    for gate in stage.gate:
        task, metric = known.get(gate, ("", ""))
        kind = kind_of(task, stage.tasks.get(task, {})) if task else None
        if kind is None or kind.name != "refusal":
            continue
        other = next(name for name in kind.metrics if name != metric)
        if (task, other) not in gated:
            all_or_none = "everything" if metric == "harmful" else "nothing"
            yield gate, f"a model that refuses {all_or_none} passes it: write a gate on {task}.{other}, too"


def _cycles(pipeline: Pipeline) -> Iterator[Problem]:
    """A cycle, shown whole at the reference that closes it."""
    parents = {name: pipeline.parents(name) for name in pipeline.stages}
    try:
        TopologicalSorter({name: list(roles.values()) for name, roles in parents.items()}).prepare()
    except CycleError as error:
        ring: list[str] = error.args[1]
        parent, name = ring[-2], ring[-1]
        role = next(role for role, stage in parents[name].items() if stage == parent)
        text = f"the stages wait for each other: {' -> '.join(ring)}"
        yield Problem(("stages", name, role.partition(":")[0]), text)
