"""What can be measured of generated answers (``measure:`` of a task): the keys of each, and its metrics.

Read where an evaluation is planned and where it runs; ``jobs.evaluate.measures`` holds the formulas by the same names.
The classes of keys, here and in ``jobs.core.tasks``, have no ``==`` and no ``repr``: nothing asks for them, and Python
compiles the methods of these two dozen classes again at each start of a command.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

from jobs.core import strict
from jobs.core.settings import rule_of, setting


@dataclass(frozen=True)
class MetricFacts:
    """``share``: the metric is a share of the examples."""

    higher_is_better: bool
    share: bool = False


LOWER, HIGHER, SHARE = MetricFacts(False), MetricFacts(True), MetricFacts(True, share=True)

NUMBERS = ("en", "ko", "es", "pt")
"""Languages whose way to write numbers is known."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class NoKeys:
    """Of a measure that can be told nothing."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BleuKeys:
    """``tokenize``: of sacrebleu; ``char`` where words are not set apart."""

    tokenize: str = setting("13a", choices=("13a", "intl", "char", "zh", "none"))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RougeKeys:
    """``stem``: endings of English words do not count."""

    stem: bool = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class NumericKeys:
    """Which number of the answer counts, how numbers are written in it and in the reference, and how far the two may
    be apart."""

    take: str = setting("last", choices=("first", "last"))
    language: str = setting("en", choices=NUMBERS)
    tolerance: float = setting(0.0, at_least=0)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ContainsKeys:
    """Texts of which one, all or none must be in the answer; ``case``: whether capital letters count."""

    any: tuple[str, ...] = ()
    all: tuple[str, ...] = ()
    none: tuple[str, ...] = ()
    case: bool = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RegexKeys:
    """``pattern``: a regular expression of Python that must be found in the answer; ``whole``: it must be all of it."""

    pattern: str
    whole: bool = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class JsonKeys:
    """``schema``: a JSON schema that the answer must fit."""

    schema: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class KlKeys:
    """``reference``: a stage that makes a model, or ``base``; None: the model that ``compare_to`` has measured."""

    reference: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CodeKeys:
    """``functions``: ``module:function`` of the work tree that ``code:`` of the pipeline names."""

    functions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measure:
    """One measure: its keys and its metrics."""

    keys: type[Any]
    metrics: Mapping[str, MetricFacts]


MEASURES: dict[str, Measure] = {
    "chrf": Measure(NoKeys, {"chrf": HIGHER}),
    "bleu": Measure(BleuKeys, {"bleu": HIGHER}),
    "ter": Measure(NoKeys, {"ter": LOWER}),
    "rouge": Measure(RougeKeys, {"rouge1": HIGHER, "rouge2": HIGHER, "rougeL": HIGHER}),
    "f1": Measure(NoKeys, {"f1": HIGHER}),
    "exact": Measure(NoKeys, {"exact_match": SHARE}),
    "numeric": Measure(NumericKeys, {"numeric_match": SHARE}),
    "contains": Measure(ContainsKeys, {"contains": SHARE}),
    "regex": Measure(RegexKeys, {"regex_match": SHARE}),
    "json": Measure(JsonKeys, {"json_valid": SHARE}),
    "length": Measure(NoKeys, {"length": LOWER, "cut": MetricFacts(False, share=True)}),
    "kl": Measure(KlKeys, {"kl": LOWER}),
    "code": Measure(CodeKeys, {}),
}

_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z", re.ASCII)


def keys_of(name: str, given: Any) -> Any:
    """The keys of a measure, checked. ``code: module:function`` says the same as ``code: {functions: [...]}``.

    Raises:
        ValueError: with the reason.
    """
    if name == "code" and isinstance(given, str):
        given = {"functions": [given]}
    cls = MEASURES[name].keys
    try:
        found = strict.build(cls, {} if given is None else given)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error
    for one in fields(cls):
        value = getattr(found, one.name)
        if value is not None and (problem := rule_of(one).problem(value)):
            raise ValueError(f"{one.name} of {name} {problem}")
    if (problem := _problem(found)) is not None:
        raise ValueError(problem)
    return found


def _problem(keys: Any) -> str | None:
    if isinstance(keys, ContainsKeys) and not (keys.any or keys.all or keys.none):
        return "contains: write {any: [TEXT]}, {all: [TEXT]} or {none: [TEXT]}"
    if isinstance(keys, RegexKeys):
        try:
            re.compile(keys.pattern)
        except re.error as error:
            return f"regex: {keys.pattern!r} is not a regular expression: {error}"
    if isinstance(keys, CodeKeys):
        wrong = next((one for one in keys.functions if not _FUNCTION.match(one)), None)
        if wrong is not None or not keys.functions:
            return f"code: write module:function, not {wrong or ''!r}"
        names = [one.partition(":")[2] for one in keys.functions]
        known = [metric for one in MEASURES.values() for metric in one.metrics]
        twice = next((one for one in names if (names + known).count(one) > 1), None)
        return None if twice is None else f"code: two metrics are called {twice}: give the function another name"
    return None


def problems(given: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Of a ``measure:`` as it was written: where something is wrong, and why; an empty reason: an unknown name."""
    if not isinstance(given, Mapping) or not given:
        yield (), f"write which of {', '.join(MEASURES)}, as {{NAME: {{}}}}"
        return
    for name, keys in given.items():
        if name not in MEASURES:
            yield (name,), ""
            continue
        try:
            keys_of(name, keys)
        except ValueError as error:
            yield (name,), str(error)


def metrics_of(given: Any) -> dict[str, MetricFacts]:
    """The metrics of a ``measure:``; of what is wrong in it none."""
    found: dict[str, MetricFacts] = {}
    for name, keys in given.items() if isinstance(given, Mapping) else ():
        if name not in MEASURES:
            continue
        found.update(MEASURES[name].metrics)
        if name == "code":
            try:
                functions = cast(CodeKeys, keys_of(name, keys)).functions
            except ValueError:
                continue
            found.update({one.partition(":")[2]: HIGHER for one in functions})
    return found
