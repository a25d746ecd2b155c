"""Kinds of evaluation tasks: what each can be told, reads and measures; one dataclass of keys a kind.

Read where an evaluation is planned (``launch.config``) and where it runs (``jobs.evaluate.kinds``, which holds how each
is measured). A new kind is a dataclass and an entry of ``KINDS`` here, and an entry there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, cast

from jobs.core import measures, strict
from jobs.core.measures import HIGHER, LOWER, SHARE, MetricFacts
from jobs.core.settings import rule_of, setting

AGAINST = ("compare_to", "references")
"""What a judge holds answers against."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TaskKeys:
    """What every task can be told: ``limit``, the most examples of it."""

    limit: int | None = setting(None, at_least=1)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DataKeys(TaskKeys):
    """Of a task on a data stage. ``data``: None means the only one of its kind; ``cluster`` names a field of their
    ``meta``: examples that share it count as one for the intervals."""

    data: str | None = None
    split: str = setting("test", choices=("validation", "test"))
    cluster: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TranslationKeys(DataKeys):
    """``max_new_tokens`` bounds a generated answer."""

    max_new_tokens: int = setting(64, at_least=1)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MeasureKeys(TranslationKeys):
    """``measure``: what is measured of the answers, by the names of ``jobs.core.measures``."""

    measure: dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BenchmarkKeys(TaskKeys):
    """Of a task on rows that ``overnight fetch`` brings. ``benchmark``: ``SOURCE`` or ``SOURCE/SET``; ``by``: a field
    of the rows, of whose values each gets numbers of its own, or ``subject``: the part of the data set. ``rows``: where
    they lie in what was fetched, which the planner says."""

    benchmark: str
    by: str | None = None
    rows: str = ""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class HarnessKeys(BenchmarkKeys):
    """``harness``: name of a task of lm-evaluation-harness; ``shots``: examples before each question, None: as many as
    the task says; ``chat``: whether prompts go through the chat template, ``auto``: where the checkpoint has one;
    ``system``: said before them. ``max_new_tokens`` bounds a generated answer, None: as the task says.

    What the planner found: ``version`` of the harness, the ``files`` of its tasks, the ``data_set`` that they read, and
    what they measure (``measures``: whether more is better).
    """

    harness: str
    shots: int | None = setting(None, at_least=0)
    chat: str = setting("auto", choices=("auto", "true", "false"))
    system: str | None = None
    max_new_tokens: int | None = setting(None, at_least=1)
    version: str = ""
    files: dict[str, str] = field(default_factory=dict)
    data_set: str = ""
    measures: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SafetyKeys(BenchmarkKeys):
    """``safety``: the kind of the task, where its name is another."""

    safety: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RefusalKeys(SafetyKeys):
    """``language``: of the prompts that do not say theirs, and of the harmless ones that are added to rows without any;
    ``chat``: whether prompts go through the chat template; ``system``: said before them."""

    language: tuple[str, ...] = ("en",)
    chat: str = setting("auto", choices=("auto", "true", "false"))
    system: str | None = None
    max_new_tokens: int = setting(64, at_least=1)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class JudgedKeys(TranslationKeys):
    """``judge``: its name in ``judges`` of the pipeline. ``against``: whose answers the model's are compared with,
    those of the evaluation in ``compare_to`` or the references of the rows; None: the first where there is one.
    ``answers``: the task of ``compare_to`` that has them, None: the one of this name. ``judged_by``: what the planner
    knows of the judge, see ``jobs.evaluate.judging.settings``."""

    judge: str
    against: str | None = setting(None, choices=AGAINST)
    answers: str | None = None
    judged_by: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TransferKeys(TranslationKeys):
    """``languages`` of the rows, which say theirs and their ``twin`` (the problem that they state) in ``meta``;
    ``trained``: the one of them that the model learned in. ``limit`` counts twins."""

    languages: tuple[str, ...]
    trained: str


FOUND = ("rows", "version", "files", "data_set", "measures", "judged_by")
"""Keys that the planner fills in."""


@dataclass(frozen=True)
class TaskKind:
    """One kind. ``reads``: the kind of the data stage, or BENCHMARK. ``metrics``: those that every task of it has.
    ``key``: a task that has this key is of the kind, with ``value`` where it says one; every kind is that of a task of
    its name, too, and of ``task: NAME``."""

    name: str
    keys: type[TaskKeys]
    reads: str
    metrics: Mapping[str, MetricFacts]
    key: str = ""
    value: str = ""

    def metrics_of(self, given: Mapping[str, Any]) -> Mapping[str, MetricFacts]:
        """The metrics of a task of this kind with these keys."""
        found = {name: MetricFacts(higher) for name, higher in (given.get("measures") or {}).items()}
        if self.keys is TransferKeys:
            return {str(one): SHARE for one in given.get("languages") or ()}
        if form := (given.get("judged_by") or {}).get("form"):
            return JUDGED[form]
        return {**self.metrics, **found, **measures.metrics_of(given.get("measure"))}

    def plain(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The keys as their types say: ``true`` and ``false`` are words where texts stand (``chat: false``)."""
        kinds, _ = strict.shape(cast(Any, self.keys))
        return {
            name: str(value).lower() if isinstance(value, bool) and kinds.get(name) is str else value
            for name, value in given.items()
        }

    def problems(self, given: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
        """Where keys of a task of this kind are unknown (an empty reason) or have a wrong value, and why; ``task`` is
        none of them."""
        kinds, required = strict.shape(cast(Any, self.keys))
        rules = {one.name: rule_of(one) for one in fields(self.keys)}
        for name, value in self.plain(given).items():
            if name not in kinds or name in FOUND:
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
        if self.keys is TransferKeys:
            yield from _of_languages(given)
        for name in required:
            if given.get(name) is None:
                yield (name,), "this key is required"


def _of_languages(given: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    languages, trained = given.get("languages"), given.get("trained")
    if not isinstance(languages, list | tuple) or not all(isinstance(one, str) for one in languages):
        return
    if len(set(languages)) != len(languages) or len(languages) < 2:
        yield ("languages",), "write two or more languages, each once"
    elif other := [one for one in languages if one not in measures.NUMBERS]:
        yield ("languages",), f"how numbers are written is known in {', '.join(measures.NUMBERS)}, not in {other[0]}"
    elif isinstance(trained, str) and trained not in languages:
        yield ("trained",), f"{trained} is none of the languages: {', '.join(languages)}"


HARMLESS = {"en": 20, "ko": 8, "es": 8, "pt": 8}
"""Language -> how many harmless prompts of ours there are (``jobs/evaluate/safety/harmless.jsonl``)."""

BENCHMARK = "benchmark"
"""What a task ``reads`` that has no data stage."""

_LOWER_SHARE = MetricFacts(False, share=True)
_BBQ = {"ambiguous": SHARE, "clear": SHARE, "bias_ambiguous": LOWER, "bias_clear": LOWER}
_REFUSALS = {"harmful": SHARE, "harmless": _LOWER_SHARE}
_KNOWN_PAIRS = {"judge_accuracy": SHARE, "ruler_accuracy": SHARE, "judge_over_ruler": HIGHER}

JUDGED: dict[str, dict[str, MetricFacts]] = {
    "pairwise": {
        "win_rate": SHARE, "win_flips": _LOWER_SHARE,
        **_KNOWN_PAIRS, "judge_first": _LOWER_SHARE, "judge_flips": _LOWER_SHARE,
    },
    "score": {"score": HIGHER, **_KNOWN_PAIRS},
}  # fmt: skip
"""Form of a judge -> what a task that it judges measures: first of the answers, then of the judge itself."""

KINDS: dict[str, TaskKind] = {
    kind.name: kind
    for kind in (
        TaskKind("perplexity", DataKeys, "corpus", {"perplexity": LOWER, "bits_per_byte": LOWER}),
        TaskKind("answers", DataKeys, "instructions", {"answer_loss": LOWER}),
        TaskKind("translation", TranslationKeys, "instructions", {"chrf": HIGHER, "exact_match": SHARE}),
        TaskKind("measure", MeasureKeys, "instructions", {}, key="measure"),
        TaskKind("harness", HarnessKeys, BENCHMARK, {}, key="harness"),
        TaskKind("judge", JudgedKeys, "instructions", JUDGED["pairwise"] | JUDGED["score"], key="judge"),
        TaskKind("transfer", TransferKeys, "instructions", {}, key="languages"),
        TaskKind("preferences", DataKeys, "preferences", {"accuracy": SHARE, "margin": HIGHER}),
        TaskKind("refusal", RefusalKeys, BENCHMARK, _REFUSALS, key="safety", value="refusal"),
        TaskKind("pairs", SafetyKeys, BENCHMARK, {"stereotyped": _LOWER_SHARE}, key="safety", value="pairs"),
        TaskKind("bbq", SafetyKeys, BENCHMARK, _BBQ, key="safety", value="bbq"),
        TaskKind("facts", SafetyKeys, BENCHMARK, {"mc1": SHARE, "mc2": HIGHER}, key="safety", value="facts"),
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
