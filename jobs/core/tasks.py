"""Kinds of evaluation tasks: what each can be told, reads and measures; one dataclass of keys a kind.

Read where an evaluation is planned (``launch.config``) and where it runs (``jobs.evaluate.kinds``, which holds how each
is measured). A new kind is a dataclass and an entry of ``KINDS`` here, and an entry there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

from jobs.core import measures, strict
from jobs.core.measures import HIGHER, LOWER, SHARE, MetricFacts
from jobs.core.settings import rule_of, setting


@dataclass(frozen=True, kw_only=True)
class TaskKeys:
    """What every task can be told: ``limit``, the most examples of it."""

    limit: int | None = setting(None, at_least=1)


@dataclass(frozen=True, kw_only=True)
class DataKeys(TaskKeys):
    """Of a task on a data stage. ``data``: None means the only one of its kind; ``cluster`` names a field of their
    ``meta``: examples that share it count as one for the intervals."""

    data: str | None = None
    split: str = setting("test", choices=("validation", "test"))
    cluster: str | None = None


@dataclass(frozen=True, kw_only=True)
class TranslationKeys(DataKeys):
    """``max_new_tokens`` bounds a generated answer."""

    max_new_tokens: int = setting(64, at_least=1)


@dataclass(frozen=True, kw_only=True)
class MeasureKeys(TranslationKeys):
    """``measure``: what is measured of the answers, by the names of ``jobs.core.measures``."""

    measure: dict[str, Any]


@dataclass(frozen=True)
class TaskKind:
    """One kind. ``reads``: the kind of the data stage. ``key``: a task that has this key is of the kind, with ``value``
    where it says one; every kind is that of a task of its name, too, and of ``task: NAME``."""

    name: str
    keys: type[TaskKeys]
    reads: str
    metrics: Mapping[str, MetricFacts]
    key: str = ""
    value: str = ""

    def metrics_of(self, given: Mapping[str, Any]) -> Mapping[str, MetricFacts]:
        """The metrics of a task of this kind with these keys."""
        return {**self.metrics, **measures.metrics_of(given.get("measure"))}

    def problems(self, given: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
        """Where keys of a task of this kind are unknown (an empty reason) or have a wrong value, and why; ``task`` is
        none of them."""
        kinds, required = strict.shape(cast(Any, self.keys))
        rules = {one.name: rule_of(one) for one in fields(self.keys)}
        for name, value in given.items():
            if name not in kinds:
                yield (name,), ""
                continue
            if name == "measure":
                for place, text in measures.problems(value):
                    yield (name, *place), text
                continue
            try:
                found = strict.convert(kinds[name], value, "this")
            except ValueError as error:
                yield (name,), str(error).removeprefix("this ")
                continue
            problem = None if value is None else rules[name].problem(found)
            if problem is not None:
                yield (name,), problem
        for name in required:
            if given.get(name) is None:
                yield (name,), "this key is required"


KINDS: dict[str, TaskKind] = {
    kind.name: kind
    for kind in (
        TaskKind("perplexity", DataKeys, "corpus", {"perplexity": LOWER, "bits_per_byte": LOWER}),
        TaskKind("answers", DataKeys, "instructions", {"answer_loss": LOWER}),
        TaskKind("translation", TranslationKeys, "instructions", {"chrf": HIGHER, "exact_match": SHARE}),
        TaskKind("measure", MeasureKeys, "instructions", {}, key="measure"),
        TaskKind("preferences", DataKeys, "preferences", {"accuracy": SHARE, "margin": HIGHER}),
    )
}


def kind_of(name: str, given: Mapping[str, Any]) -> TaskKind | None:
    """The kind of the task ``name`` with these settings; None: there is no such kind."""
    if "task" in given:
        return KINDS.get(str(given["task"]))
    for kind in KINDS.values():
        if kind.key and kind.key in given and kind.value in ("", given[kind.key]):
            return kind
    return KINDS.get(name)
