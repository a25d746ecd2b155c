"""Tasks of lm-evaluation-harness: its prompts, filters and scores, our rows, forward passes and statistics."""

from __future__ import annotations

import functools
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.core.spec import Input
from jobs.core.verdict import FailureClass
from jobs.evaluate.benchmarks import Benchmark, id_of
from jobs.evaluate.harness import index
from jobs.evaluate.kinds.kind import Kind, Loaded, PreparedTask, Sample, Task, first_by_hash, template_of
from jobs.evaluate.metrics import Metric, mean
from jobs.training.examples import ExamplesError
from jobs.training.interface import versions
from jobs.training.settings import BadSettings

SHOTS_SEED = 1234
"""By which the harness draws its examples where it is told nothing."""

CLOSE = 1e-9


class HarnessDisagrees(RuntimeError):
    """The harness puts its scores together to another number than we do: we misread it."""

    failure = FailureClass.VERSIONS


@dataclass
class Part:
    """One task of the harness, of which a group has several; ``scored``: what its documents scored, by metric and
    filter, as the harness collects it."""

    name: str
    subject: str
    task: Any
    scored: dict[tuple[str, str], list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchmarkRow:
    """A row as its task sees it, ``number`` in its split."""

    part: Part
    number: int
    value: dict[str, Any]
    id: str


@dataclass(frozen=True)
class Chosen:
    """The tasks and the rows that are taken of them. ``unclear``: rows of a package that are no rows of the data set;
    ``undivided``: the rows do not say of which task of the group they are, and all went to one. ``scratch``: where
    ``datasets`` keeps copies of the rows; it goes when this does."""

    parts: list[Part]
    documents: list[BenchmarkRow]
    unclear: int
    undivided: bool
    scratch: tempfile.TemporaryDirectory[str]


def choose(task: Task, inputs: Mapping[str, Input]) -> Chosen:
    """The rows of a task: all, or the ``limit`` whose hashed ids come first.

    Raises:
        BadSettings: the harness that the planner saw is not the one here.
        DataError: the rows lack a split, or cannot be read.
    """
    keys = task.keys
    _offline()
    here = versions(index.PACKAGE).get(index.PACKAGE, "none")
    if here != keys.version:
        raise BadSettings(f"task {task.name!r} was planned with lm_eval {keys.version}, and here is {here}")
    given = inputs[f"benchmark:{keys.benchmark.partition('/')[0]}"]
    place = given.output / keys.rows if keys.rows else given.output
    scratch = tempfile.TemporaryDirectory(prefix="overnight-rows-")
    rows = Benchmark(place, keys.data_set, Path(scratch.name))
    parts: list[Part] = []
    undivided = False
    for name, file in keys.files.items():
        config = _config(index.directory() / file)
        splits = rows.part(config.get("dataset_name"))
        if splits is None:  # the rows do not say of which part they are
            splits, undivided = rows.part(None) or {}, len(keys.files) > 1
        if undivided:
            config["description"] = None  # which names the part
        if splits:
            subject = "" if undivided else str(config.get("dataset_name") or name)
            parts.append(Part(name, subject, _task(config, splits, keys, place)))
        if undivided:
            break
    documents = [one for part in parts for one in _documents(part)]
    chosen = first_by_hash(documents, keys.limit, lambda one: one.id)
    if not chosen:
        raise ExamplesError(f"{place}:1: no row for the task {task.name}")
    return Chosen(parts, chosen, rows.unclear, undivided, scratch)


def _offline() -> None:
    """Before anything of the hub is imported: a job asks nobody."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_EVALUATE_OFFLINE="1", GIT_DIR="/nonexistent")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    import datasets

    datasets.disable_progress_bars()


def _config(path: Path) -> dict[str, Any]:
    """The settings of a task with its functions."""
    from lm_eval.tasks._yaml_loader import load_yaml

    found: dict[str, Any] = load_yaml(path, resolve_func=True)
    return {key: value for key, value in found.items() if key not in ("tag", "group", "task_list")}


def _task(config: dict[str, Any], splits: Mapping[str, Any], keys: Any, place: Path) -> Any:
    from lm_eval.api.task import ConfigurableTask

    wanted = config.get("test_split") or config.get("validation_split")
    if wanted not in splits:
        if len(splits) > 1:
            raise ExamplesError(f"{place}:1: no split {wanted!r}, only {', '.join(splits)}")
        wanted = next(iter(splits))
        config["test_split" if config.get("test_split") else "validation_split"] = wanted
    shots = config.get("num_fewshot") if keys.shots is None else keys.shots
    config["num_fewshot"] = shots = shots or 0
    own = config.get("fewshot_config") or {}
    if "samples" not in own:
        before = own.get("split") or config.get("fewshot_split") or config.get("training_split") or wanted
        if before not in splits:
            if shots:
                raise ExamplesError(
                    f"{place}:1: shots: {shots} needs the split {before!r}, here is only {', '.join(splits)}: "
                    "write shots: 0"
                )
            before = wanted
        config["fewshot_split"] = before
        if "split" in own:
            config["fewshot_config"] = {**own, "split": before}
    config["custom_dataset"] = lambda **_: dict(splits)
    config["dataset_kwargs"] = config["metadata"] = None
    if keys.max_new_tokens is not None and "generation_kwargs" in config:
        config["generation_kwargs"] = {**config["generation_kwargs"], "max_gen_toks": keys.max_new_tokens}
    task = ConfigurableTask(config=config)
    task.set_fewshot_seed(SHOTS_SEED)
    return task


def _documents(part: Part) -> list[BenchmarkRow]:
    found, seen = [], dict[str, int]()
    for number, value in enumerate(part.task.task_docs):
        own = f"{part.name}-{id_of(value)}"
        seen[own] = seen.get(own, 0) + 1
        found.append(BenchmarkRow(part, number, value, own if seen[own] == 1 else f"{own}#{seen[own]}"))
    return found


def prepare(task: Task, chosen: Chosen, loaded: Loaded) -> PreparedTask:
    """Write the prompts, tokenise them and group them into batches."""
    from jobs.evaluate.engine import Engine

    engine = Engine(loaded.model, loaded.tokenizer, loaded.batch_tokens, loaded.batch_prompts)
    template = template_of(task, loaded)
    requests = _requests(task, chosen, engine, template is not None)
    parts = [engine.parts(own) for own in requests]
    too_long = [max((found for one in own if (found := engine.too_long(one))), default=None) for own in parts]
    parts = [[] if long else own for own, long in zip(parts, too_long, strict=True)]
    rows = list(zip(chosen.documents, requests, too_long, strict=True))
    how: dict[str, Any] = {
        "precision": str(loaded.model.dtype).removeprefix("torch."),
        "harness": {"task": task.keys.harness, "version": task.keys.version, "data_set": task.keys.data_set},
        "shots": sorted({part.task.config.num_fewshot for part in chosen.parts}),
        "template": template,
    }
    how |= {"unclear_rows": chosen.unclear} if chosen.unclear else {}
    how |= {"undivided": True} if chosen.undivided else {}
    return PreparedTask(
        task.name,
        rows,
        parts,
        engine.groups,
        engine.answer,
        functools.partial(_sample, task, engine),
        how,
        after=functools.partial(_reported, chosen.parts),
        id_of=lambda row: str(row[0].id),
    )


def _requests(task: Task, chosen: Chosen, engine: Any, chat: bool) -> list[list[Any]]:
    """The requests of each document. The examples before a question are drawn for every row of a split, in its order,
    also for those that are not taken: so a row has the same prompt whatever the limit."""
    taken: dict[tuple[str, int], list[Any]] = {(one.part.name, one.number): [] for one in chosen.documents}
    how: dict[str, Any] = {
        "system_instruction": task.keys.system,
        "apply_chat_template": chat,
        "fewshot_as_multiturn": chat,
        "chat_template": engine.apply_chat_template if chat else None,
    }
    for part in chosen.parts:
        own = part.task
        last = max((number for name, number in taken if name == part.name), default=-1)
        shots = own.config.num_fewshot
        for number, doc in enumerate(own.task_docs):
            if number > last:
                break
            if (part.name, number) in taken:
                prompt = own.fewshot_context(doc, shots, gen_prefix=own.doc_to_prefix(doc), **how)
                made = own.construct_requests(
                    doc=doc,
                    ctx=prompt,
                    metadata=(part.name, number, 1),
                    apply_chat_template=chat,
                    chat_template=how["chat_template"],
                )
                taken[part.name, number] = made if isinstance(made, list) else [made]
            elif shots:
                of_same = own.fewshot_cfg.split == own.config.test_split
                own.sampler.sample(n=shots, eval_doc=doc if of_same else None)
    return [taken[one.part.name, one.number] for one in chosen.documents]


def _sample(
    task: Task,
    engine: Any,
    row: tuple[BenchmarkRow, list[Any], int | None],
    parts: Sequence[Any],
    results: Sequence[Any],
) -> Sample:
    document, requests, too_long = row
    part = document.part
    found: Sample = {"id": document.id}
    if task.keys.by is not None:
        said = part.subject if task.keys.by == "subject" else document.value.get(task.keys.by)
        found["tags"] = {task.keys.by: str(said)}
    if too_long:
        return {**found, "problem": f"too long: {too_long} tokens"}
    answers = engine.results(requests, results)
    for request, answer in zip(requests, answers, strict=True):
        request.resps = [answer]
    part.task._instances = requests
    part.task.apply_filters()
    scores: dict[str, float] = {}
    for kept in requests[0].filtered_resps:
        scored = part.task.process_results(document.value, [request.filtered_resps[kept] for request in requests])
        for metric, value in scored.items():
            part.scored.setdefault((metric, kept), []).append(value)
            if (name := index.metric_name(metric, kept)) in task.keys.measures:
                scores[name] = float(value)
    if requests[0].request_type == "generate_until":
        return {**found, "scores": scores, "answer": answers[0]}
    return {**found, "scores": scores, "log_likelihoods": [a[0] if isinstance(a, tuple) else a for a in answers]}


def _reported(parts: list[Part], samples: list[Sample]) -> dict[str, Any]:
    """What the harness makes of its scores, beside our numbers.

    Raises:
        HarnessDisagrees: of a mean, it makes another number than we do.
    """
    from lm_eval.api.metrics import aggregate_subtask_metrics

    found: dict[str, float] = {}
    names = {key for part in parts for key in part.scored}
    for metric, kept in sorted(names):
        values, sizes = [], []
        for part in parts:
            scored = part.scored.get((metric, kept))
            if scored:
                values.append(float(part.task.aggregation()[metric](scored)))
                sizes.append(len(scored))
        name = index.metric_name(metric, kept)
        found[name] = float(aggregate_subtask_metrics(values, sizes, weight_by_size=True))
        ours = [sample["scores"][name] for sample in samples if name in sample.get("scores", ())]
        if ours and abs(sum(ours) / len(ours) - found[name]) > CLOSE:
            raise HarnessDisagrees(
                f"{name}: the harness says {found[name]!r}, the mean of its {len(ours)} scores is "
                f"{sum(ours) / len(ours)!r}: this version of lm_eval puts them together otherwise"
            )
    return {"reported": found}


def _metrics(keys: Any) -> dict[str, Metric]:
    return {
        name: Metric(mean(column), better, share=column) for column, (name, better) in enumerate(keys.measures.items())
    }


def _statistics(keys: Any, sample: Mapping[str, Any]) -> list[float]:
    return [*(sample["scores"][name] for name in keys.measures), 1.0]


KINDS = (Kind("harness", _statistics, _metrics, choose, prepare),)
