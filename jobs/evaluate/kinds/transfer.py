"""Transfer between languages: the same problems in each, whose answers are numbers, and what a change in the language
that was trained brought to the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jobs.core.measures import NumericKeys
from jobs.core.spec import Input
from jobs.evaluate import intervals
from jobs.evaluate.intervals import Array
from jobs.evaluate.judging.judges import Judge
from jobs.evaluate.kinds import generated
from jobs.evaluate.kinds.kind import GroupsOf, Kind, Loaded, More, PreparedTask, Sample, Task, first_by_hash
from jobs.evaluate.measures import number_of
from jobs.evaluate.metrics import Metric, part
from jobs.evaluate.observed import Observed
from jobs.evaluate.server import Answering
from jobs.training import examples
from jobs.training.examples import ExamplesError, Row

FAR = 1e6
"""A ratio beyond this is one whose divisor may be 0."""


def _meta(row: Row, name: str) -> str:
    meta = row.value.get("meta")
    if not isinstance(meta, dict) or meta.get(name) is None:
        raise ExamplesError(f"{row.place}: {name} is not a field of its meta: write carry: [language, twin] in prepare")
    return str(meta[name])


def _choose(task: Task, inputs: Mapping[str, Input]) -> list[Row]:
    """The rows in the languages of the task: of all twins, or of the ``limit`` whose hashed names come first.

    Raises:
        DataError: a row does not say its language or twin, or whose answer is no number; a language without rows.
    """
    keys = task.keys
    path = inputs[keys.data].output / f"{keys.split}.jsonl"
    by_twin: dict[str, dict[str, Row]] = {}
    for row in examples.rows_between(path, "instructions"):
        language, twin = _meta(row, "language"), _meta(row, "twin")
        if language not in keys.languages:
            continue
        if number_of(row.texts["completion"], NumericKeys(language=language)) is None:
            raise ExamplesError(f"{row.place}: there is no number in {row.texts['completion']!r}")
        if by_twin.setdefault(twin, {}).setdefault(language, row) is not row:
            raise ExamplesError(f"{row.place}: the twin {twin!r} has two rows in {language}")
    found = [row for twin in first_by_hash(by_twin, keys.limit, str) for row in by_twin[twin].values()]
    for language in keys.languages:
        if all(_meta(row, "language") != language for row in found):
            raise ExamplesError(f"{path}:1: no row in {language} for the task {task.name}")
    return found


def _prepare(task: Task, rows: list[Row], loaded: Loaded) -> PreparedTask:
    return _with_twins(generated.prepare(task, rows, loaded))


def _ask(task: Task, rows: list[Row], server: Answering, judges: Mapping[str, Judge]) -> PreparedTask:
    return _with_twins(generated.ask(task, rows, server, judges))


def _with_twins(answering: PreparedTask) -> PreparedTask:
    made: Callable[..., Sample] = answering.sample

    def sample(row: Row, parts: Sequence[Any], results: Sequence[Any]) -> Sample:
        return {**made(row, parts, results), "group": _meta(row, "twin"), "language": _meta(row, "language")}

    return replace(answering, sample=sample)


def _is_right(sample: Mapping[str, Any]) -> bool:
    keys = NumericKeys(language=sample["language"])
    return number_of(sample["hypothesis"], keys) == number_of(sample["reference"], keys)


def _statistics(keys: Any, sample: Mapping[str, Any]) -> list[float]:
    """Of each language whether the answer is right, and whether it is in that language."""
    own = [float(sample["language"] == language) for language in keys.languages]
    right = float(_is_right(sample))
    return [*(one * right for one in own), *own]


def _metrics(keys: Any) -> dict[str, Metric]:
    count = len(keys.languages)
    return {
        language: Metric(part(at, count + at), True, share=at, among=count + at)
        for at, language in enumerate(keys.languages)
    }


def _transfer(
    task: Task, samples: Sequence[Sample], pairs: Sequence[tuple[Sample, Sample]], groups_of: GroupsOf
) -> More:
    """Of each other language how much it gained for each gain in the trained one."""
    trained, metrics, notes = task.keys.trained, {}, []
    steps: dict[str, dict[str, float]] = {}
    for before, now in pairs:
        steps.setdefault(now["language"], {})[now["group"]] = float(_is_right(now)) - float(_is_right(before))
    twins = {now["group"]: now for _, now in pairs}
    for language in task.keys.languages if pairs else ():
        if language == trained:
            continue
        common = sorted(steps.get(trained, {}).keys() & steps.get(language, {}).keys())
        values = np.array([[steps[one][twin] for one in (trained, language)] for twin in common])
        found = ratio(values, groups_of([twins[twin] for twin in common])) if common else "no twins in both"
        if isinstance(found, str):
            notes.append(f"transfer from {trained} to {language} is not defined: {found.format(trained=trained)}")
        else:
            metrics[f"{language}_per_{trained}"] = (found, True)
    return More(metrics, tuple(notes))


def ratio(steps: Array, groups: intervals.Clusters) -> Observed | str:
    """The second column's mean over the first one's, with its interval, or why there is none. ``steps``: of each twin
    how far its answers moved in the trained language (1, 0 or -1) and in the other one."""
    moved = steps[:, 0]
    trained = intervals.of_changed_share(int((moved > 0).sum()), int((moved < 0).sum()), len(moved)).estimate
    if trained.low is None or trained.high is None:
        return f"{len(moved)} twins are too few"
    if trained.low <= 0 <= trained.high:
        return f"the change in {{trained}} may be none [{trained.low:+.3f}, {trained.high:+.3f}]"
    sums, drawn = steps.sum(axis=0), groups.sums(steps)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.nan_to_num(drawn[:, 1] / drawn[:, 0], nan=10 * FAR, posinf=10 * FAR, neginf=-10 * FAR)
    found = intervals.of_draws(float(sums[1] / sums[0]), ratios, len(steps), groups.count)
    one = found.estimate
    if one.low is None or one.high is None or max(abs(one.low), abs(one.high)) > FAR:
        return "the change in {trained} is too small"
    return found


KINDS = (Kind("transfer", _statistics, _metrics, _choose, _prepare, generated.check, _ask, more=_transfer),)
