"""What is measured of generated answers: the formulas of ``jobs.core.measures``, by the same names.

An answer is a line of samples.jsonl with ``hypothesis`` and ``reference``; each measure makes a few numbers of it, and
its metrics are functions of their sums. What only the model or the user's code can say is in the line already.
"""

from __future__ import annotations

import functools
import importlib
import json
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from jobs.core import measures
from jobs.core.measures import (
    BleuKeys,
    CodeKeys,
    ContainsKeys,
    JsonKeys,
    MetricFacts,
    NumericKeys,
    RegexKeys,
    RougeKeys,
)
from jobs.evaluate.intervals import Array
from jobs.evaluate.metrics import Metric, mean
from jobs.evaluate.numbers import numbers
from jobs.training.interface import needs
from jobs.training.settings import BadSettings

AnswerSample = Mapping[str, Any]


@dataclass(frozen=True)
class Formula:
    """``columns`` numbers of a sample by ``statistics``; without ``of`` each of them is 0 or more, and its mean is a
    metric. ``of``: the metric of sums of all the columns. ``package`` is what it is computed with."""

    columns: int
    statistics: Callable[[Any, AnswerSample], Sequence[float]]
    of: Callable[[Any, Array], Array] | None = None
    package: str = ""


def _sacrebleu(make: Callable[[Any], Any], columns: int) -> Formula:
    """Of a metric of sacrebleu: its statistics of a sentence, and its formula on their sums."""
    made = functools.cache(make)

    def statistics(keys: Any, sample: AnswerSample) -> Sequence[float]:
        found = made(keys)._extract_corpus_statistics([sample["hypothesis"]], [[sample["reference"]]])
        return [float(one) for one in found[0]]

    def of(keys: Any, sums: Array) -> Array:
        compute = made(keys)._compute_score_from_stats
        rows = sums.reshape(-1, sums.shape[-1]).tolist()
        return np.array([compute(row).score for row in rows]).reshape(sums.shape[:-1])

    return Formula(columns, statistics, of, "sacrebleu")


def _chrf(keys: Any) -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()


def _bleu(keys: BleuKeys) -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=keys.tokenize)


def _ter(keys: Any) -> Any:
    from sacrebleu.metrics import TER

    return TER()


def composed(text: str) -> str:
    """The text with each letter in one form (NFC): macOS and some data have é and 한 in several signs."""
    return unicodedata.normalize("NFC", text)


class _Words:
    """Words of any script in small letters, as ``rouge_score`` asks for them; its own tokenizer knows a to z only."""

    def __init__(self, stem: bool) -> None:
        self._stem = None
        if stem:
            from nltk.stem.porter import PorterStemmer

            self._stem = PorterStemmer().stem

    def tokenize(self, text: str) -> list[str]:
        words = re.findall(r"[^\W_]+", composed(text).lower())
        if self._stem is None:
            return words
        return [self._stem(word) if len(word) > 3 else word for word in words]


@functools.cache
def _rouge_scorer(keys: RougeKeys) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_Words(keys.stem))


def _rouge(keys: RougeKeys, sample: AnswerSample) -> Sequence[float]:
    found = _rouge_scorer(keys).score(sample["reference"], sample["hypothesis"])
    return [float(found[name].fmeasure) for name in ("rouge1", "rouge2", "rougeL")]


def words_of(text: str) -> list[str]:
    """Words as SQuAD compares them: small letters, no punctuation, no English articles."""
    kept = "".join(
        one
        for one in composed(text).lower()
        if one not in string.punctuation and not unicodedata.category(one).startswith("P")
    )
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def _f1(keys: Any, sample: AnswerSample) -> Sequence[float]:
    found, wanted = words_of(sample["hypothesis"]), words_of(sample["reference"])
    if not found or not wanted:
        return [float(found == wanted)]
    both = (Counter(found) & Counter(wanted)).total()
    return [2 * both / (len(found) + len(wanted))]


def number_of(text: str, keys: NumericKeys) -> Decimal | None:
    """The number of a text that counts; None: there is none."""
    found = numbers(text, keys.language)
    return None if not found else found[0 if keys.take == "first" else -1]


def _numeric(keys: NumericKeys, sample: AnswerSample) -> Sequence[float]:
    found, wanted = (number_of(sample[name], keys) for name in ("hypothesis", "reference"))
    return [float(found is not None and wanted is not None and abs(found - wanted) <= Decimal(repr(keys.tolerance)))]


def _contains(keys: ContainsKeys, sample: AnswerSample) -> Sequence[float]:
    def plain(text: str) -> str:
        text = composed(text)
        return text if keys.case else text.casefold()

    answer = plain(sample["hypothesis"])
    is_in = {name: [plain(one) in answer for one in getattr(keys, name)] for name in ("any", "all", "none")}
    return [float((any(is_in["any"]) or not keys.any) and all(is_in["all"]) and not any(is_in["none"]))]


def _regex(keys: RegexKeys, sample: AnswerSample) -> Sequence[float]:
    match = re.fullmatch if keys.whole else re.search
    return [float(match(keys.pattern, sample["hypothesis"]) is not None)]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _json(keys: JsonKeys, sample: AnswerSample) -> Sequence[float]:
    try:
        found = json.loads(sample["hypothesis"], parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return [0.0]
    return [float(keys.schema is None or _validator(keys.schema).is_valid(found))]


def _validator(schema: dict[str, Any]) -> Any:
    from jsonschema import validators

    return validators.validator_for(schema)(schema)


FORMULAS: dict[str, Formula] = {
    "chrf": _sacrebleu(_chrf, 18),
    "bleu": _sacrebleu(_bleu, 10),
    "ter": _sacrebleu(_ter, 2),
    "rouge": Formula(3, _rouge, package="rouge-score"),
    "f1": Formula(1, _f1),
    "exact": Formula(1, lambda keys, sample: [float(composed(sample["hypothesis"]) == composed(sample["reference"]))]),
    "numeric": Formula(1, _numeric),
    "contains": Formula(1, _contains),
    "regex": Formula(1, _regex),
    "json": Formula(1, _json),
    "length": Formula(2, lambda keys, sample: [sample["answer_tokens"], float(sample["finish"] == "length")]),
    "kl": Formula(2, lambda keys, sample: sample["kl"], lambda keys, sums: np.asarray(sums[..., 0] / sums[..., 1])),
}


@dataclass(frozen=True)
class AnswerMeasures:
    """The measures of a task with their keys, in the order of their columns; behind them stands a 1."""

    keys: Mapping[str, Any]

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> AnswerMeasures:
        """From the ``measure:`` of a task.

        Raises:
            BadSettings: naming the measure.
            Missing: a package is not in this environment.
        """
        found = {}
        for name, keys in given.items():
            if name not in measures.MEASURES:
                raise BadSettings(f"unknown measure {name!r}; known: {', '.join(measures.MEASURES)}")
            try:
                found[name] = measures.keys_of(name, keys)
            except ValueError as error:
                raise BadSettings(str(error)) from error
        return cls(found)

    def check(self) -> None:
        """Look for what the formulas are computed with, before the model runs.

        Raises:
            BadSettings, Missing: naming the measure.
        """
        for name, keys in self.keys.items():
            if name in FORMULAS and FORMULAS[name].package:
                needs(FORMULAS[name].package, f"the measure {name}")
            if isinstance(keys, JsonKeys) and keys.schema is not None:
                needs("jsonschema", "schema of the measure json")
                _check_schema(keys.schema)
        self.functions()

    def functions(self) -> dict[str, Callable[..., Any]]:
        """The user's own functions, by their names.

        Raises:
            BadSettings: there is no such function in the code of the pipeline.
        """
        code = self.keys.get("code", CodeKeys())
        return {one.partition(":")[2]: _function(one) for one in code.functions}

    def statistics(self, sample: AnswerSample) -> Sequence[float]:
        """The columns of a sample."""
        found: list[float] = []
        for name, keys in self.keys.items():
            if name == "code":
                found += [float(sample["values"][metric]) for metric in _names(keys)]
            else:
                found += FORMULAS[name].statistics(keys, sample)
        return [*found, 1.0]

    def metrics(self) -> dict[str, Metric]:
        """The metrics of the columns."""
        found: dict[str, Metric] = {}
        at = 0
        for name, keys in self.keys.items():
            facts: Mapping[str, MetricFacts] = measures.metrics_of({name: vars(keys)})
            formula = FORMULAS.get(name)
            columns = formula.columns if formula is not None else len(facts)
            if formula is not None and formula.of is not None:
                [(metric, fact)] = facts.items()
                found[metric] = Metric(_part(formula.of, keys, at, columns), fact.higher_is_better)
            else:
                for column, (metric, fact) in enumerate(facts.items(), start=at):
                    found[metric] = Metric(mean(column), fact.higher_is_better, share=column if fact.share else None)
            at += columns
        return found


def _part(of: Callable[[Any, Array], Array], keys: Any, at: int, columns: int) -> Callable[[Array], Array]:
    return lambda sums: of(keys, sums[..., at : at + columns])


def _names(keys: CodeKeys) -> list[str]:
    return [one.partition(":")[2] for one in keys.functions]


def _function(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise BadSettings(f"measure code: {place}: {error}: is it in the work tree that code: names?") from error
    if not callable(found):
        raise BadSettings(f"measure code: {place} is not a function")
    function: Callable[..., Any] = found
    return function


def _check_schema(schema: dict[str, Any]) -> None:
    import jsonschema

    try:
        jsonschema.validators.validator_for(schema).check_schema(schema)
    except jsonschema.SchemaError as error:
        raise BadSettings(f"schema of the measure json: {error.message}") from error
