"""Tasks on answers that another model judges.

A sample is a prompt with the model's answer and what the judge says of it, or a pair of answers of which the better one
is known: by those the judge is measured, beside a ruler that prefers the longer answer.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs.core.spec import Input
from jobs.core.tasks import AGAINST, JUDGED
from jobs.evaluate.intervals import Array
from jobs.evaluate.judging import length
from jobs.evaluate.judging.judges import Judge
from jobs.evaluate.judging.questions import PAIRWISE, JudgeQuestion
from jobs.evaluate.judging.settings import JudgeSettings
from jobs.evaluate.kept import SAMPLES, read_samples
from jobs.evaluate.kinds import generated
from jobs.evaluate.kinds.kind import GroupsOf, Kind, Loaded, More, PreparedTask, Sample, Task
from jobs.evaluate.kinds.texts import choose as choose_rows
from jobs.evaluate.kinds.texts import rows_of
from jobs.evaluate.metrics import Metric, part
from jobs.evaluate.observed import MetricEstimate
from jobs.evaluate.server import Answering
from jobs.training.examples import ExamplesError, Row

FEWEST_KNOWN = 20
"""Pairs with a known answer, below which a judge is not believed."""

TOGETHER = 16
"""Pairs with a known answer that a judge is asked about at once."""


@dataclass(frozen=True)
class JudgedRow:
    """A row that is judged. ``other``: what the model's answer is compared with, None: nothing; ``missing``: why there
    is none. ``known``: the row is a pair whose better answer is known."""

    row: Row
    other: str | None = None
    missing: str | None = None
    known: bool = False

    @property
    def id(self) -> str:
        """Its id in samples.jsonl."""
        return f"known:{self.row.id}" if self.known else self.row.id


@dataclass(frozen=True)
class JudgedPart:
    """What is answered and judged at once: a row, and of one that is not known what goes through the model."""

    judged: JudgedRow
    shown: Any = None

    def __len__(self) -> int:
        return len(self.shown) if self.shown is not None else sum(map(len, self.judged.row.texts.values())) // 4


@dataclass(frozen=True)
class JudgedSample:
    """The line of a row, without what all lines have."""

    facts: Sample


def _judge_of(keys: Any) -> JudgeSettings:
    return JudgeSettings.read(keys.judge, keys.judged_by)


def held_against(keys: Any, inputs: Mapping[str, Any]) -> str | None:
    """What the answers of a task with these keys are held against; None: nothing (the form ``score``)."""
    if _judge_of(keys).form != PAIRWISE:
        return None
    return str(keys.against or AGAINST["compare_to" not in inputs])


def _choose(task: Task, inputs: Mapping[str, Input]) -> list[JudgedRow]:
    """The rows with what they are compared with, and behind them the pairs that the judge is measured on.

    Raises:
        DataError: no row, or one that ``compare_to`` was asked in other words.
    """
    rows, against = choose_rows(task, inputs), held_against(task.keys, inputs)
    if against == "compare_to":
        found = _with_earlier(task, rows, inputs["compare_to"])
    else:
        references = against == "references"
        found = [JudgedRow(row, row.texts["completion"].strip() if references else None) for row in rows]
    settings = _judge_of(task.keys)
    if settings.calibrate_on is not None:
        path = inputs[settings.calibrate_on].output / "test.jsonl"
        found += [JudgedRow(row, known=True) for row in rows_of(path, "preferences", settings.calibrate_limit)]
    return found


def _with_earlier(task: Task, rows: list[Row], earlier: Input) -> list[JudgedRow]:
    name, path = task.keys.answers or task.name, earlier.output / SAMPLES
    answers = {one["id"]: one for one in read_samples(path).get(name, ()) if "hypothesis" in one}
    if not answers.keys() & {row.id for row in rows}:
        raise ExamplesError(
            f"{path}:1: no answer of the task {name!r} to a row of {task.name}: name it by answers: TASK"
        )
    found = []
    for row in rows:
        there = answers.get(row.id)
        if there is None:
            found.append(JudgedRow(row, missing=f"{earlier.stage} has no answer to it"))
        elif there.get("asked") != row.texts["prompt"]:
            raise ExamplesError(f"{row.place}: {earlier.stage} was asked in other words: they cannot be compared")
        else:
            found.append(JudgedRow(row, str(there["hypothesis"])))
    return found


def _prepare(task: Task, rows: list[JudgedRow], loaded: Loaded) -> PreparedTask:
    own = [one.row for one in rows if not one.known]
    return _judged(task, rows, generated.prepare(task, own, loaded), loaded.judges[task.keys.judge], loaded.family)


def _ask(task: Task, rows: list[JudgedRow], server: Answering, judges: Mapping[str, Judge]) -> PreparedTask:
    own = [one.row for one in rows if not one.known]
    return _judged(task, rows, generated.ask(task, own, server, judges), judges[task.keys.judge], server.model)


def _judged(task: Task, rows: list[JudgedRow], answering: PreparedTask, judge: Judge, model: str) -> PreparedTask:
    """The task ``answering`` with a judge behind it. ``model``: family or name of the model that answers."""
    shown = iter(answering.parts)
    parts = [[JudgedPart(one)] if one.known else [JudgedPart(one, part) for part in next(shown)] for one in rows]

    def groups(parts: Sequence[JudgedPart]) -> list[list[int]]:
        mine = [at for at, one in enumerate(parts) if not one.judged.known]
        known = [at for at, one in enumerate(parts) if one.judged.known]
        made = [[mine[at] for at in group] for group in answering.groups([parts[at].shown for at in mine])]
        return made + [known[at : at + TOGETHER] for at in range(0, len(known), TOGETHER)]

    def answer(some: Sequence[JudgedPart]) -> list[JudgedSample]:
        if some[0].judged.known:
            return [JudgedSample(facts) for facts in _of_known(judge, [one.judged.row for one in some])]
        results = answering.answer([one.shown for one in some])
        lines = [
            answering.sample(one.judged.row, [one.shown], [result]) for one, result in zip(some, results, strict=True)
        ]
        return [JudgedSample(facts) for facts in _of_answers(judge, [one.judged for one in some], lines)]

    def sample(row: JudgedRow, parts: Sequence[JudgedPart], results: Sequence[JudgedSample]) -> Sample:
        return results[0].facts

    how = {**answering.how, "judge": task.keys.judge, "judge_identity": judge.identity}
    if warning := _self_preference(task, judge, model):
        how["notes"] = [warning]
    digest = functools.partial(_digest, answering.digest, judge.identity)
    return PreparedTask(
        task.name, rows, parts, groups, answer, sample, how, digest, answering.after, id_of=lambda row: str(row.id)
    )


def _digest(of_shown: Callable[[Sequence[Any]], str], identity: str, parts: Sequence[JudgedPart]) -> str:
    """Of what the model and the judge are shown."""
    first = parts[0].judged
    shown = "" if first.known else of_shown([one.shown for one in parts])
    texts = sorted(first.row.texts.items()) if first.known else [first.row.texts["prompt"], first.other]
    return hashlib.sha256(json.dumps([identity, shown, texts]).encode()).hexdigest()[:16]


def _self_preference(task: Task, judge: Judge, model: str) -> str | None:
    """Why the judge may prefer the model for what it is itself; None: nothing says so."""
    why = None
    one, other = _family(judge.family), _family(model)
    if judge.settings.same_base:
        why = "the model that it judges was trained from it"
    elif one and one == other:
        why = f"it is of the family of the model ({one})"
    return None if why is None else f"judge {task.keys.judge}: {why}, and judges prefer answers like their own"


def _family(name: str) -> str:
    """The family that a model's name begins with (``qwen`` of Qwen/Qwen3-32B); empty: too short to say one."""
    found = re.match(r"[a-z]{3,}", name.lower().rpartition("/")[2])
    return found[0] if found else ""


def _of_answers(judge: Judge, rows: Sequence[JudgedRow], lines: Sequence[Sample]) -> list[Sample]:
    """The lines of answers with what the judge says of them."""
    lines = [{**line, "problem": row.missing} if row.missing else line for row, line in zip(rows, lines, strict=True)]
    able = [at for at, line in enumerate(lines) if "problem" not in line]
    asked = [(rows[at].row.texts["prompt"], lines[at]["hypothesis"]) for at in able]
    found: list[Sample] = list(lines)
    verdict: Sample
    if judge.settings.form == PAIRWISE:
        others = [str(rows[at].other) for at in able]
        ruled = judge.pairs([(*one, other) for one, other in zip(asked, others, strict=True)])
        for at, other, one in zip(able, others, ruled, strict=True):
            verdict = {"win": one.win, "flip": one.flip} if one.problem is None else {"problem": one.problem}
            found[at] = {**lines[at], "other": other, **verdict}
    else:
        said = judge.replies([JudgeQuestion(prompt, (answer,)) for prompt, answer in asked])
        for at, reply in zip(able, said, strict=True):
            verdict = {"score": reply.value} if reply.problem is None else {"problem": f"judge: {reply.problem}"}
            found[at] = {**lines[at], **verdict}
    return found


def _of_known(judge: Judge, rows: Sequence[Row]) -> list[Sample]:
    """How the judge does on pairs whose better answer is known, and how a ruler does."""
    texts = [(row.texts["prompt"], row.texts["chosen"].strip(), row.texts["rejected"].strip()) for row in rows]
    if judge.settings.form == PAIRWISE:
        ruled = judge.pairs(texts)
        right = [(one.win, one.first, one.flip, one.problem) for one in ruled]
    else:
        said = judge.replies([JudgeQuestion(text[0], (answer,)) for text in texts for answer in text[1:]])
        both = [(said[2 * at], said[2 * at + 1]) for at in range(len(texts))]
        right = [(_more(a.value, b.value), 0.5, False, a.problem or b.problem) for a, b in both]
    found: list[Sample] = []
    for row, text, (correct, first, flip, problem) in zip(rows, texts, right, strict=True):
        facts: Sample = {"known": True, "ruler": _more(len(text[1]), len(text[2]))}
        said_of_it = {"correct": correct, "first": first, "flip": flip} if problem is None else {"problem": problem}
        found.append({"id": f"known:{row.id}", **facts, **said_of_it})
    return found


def _more(one: float, other: float) -> float:
    return 0.5 if one == other else float(one > other)


def _statistics(keys: Any, sample: Mapping[str, Any]) -> list[float]:
    """Of an answer: win, flip, score; of a known pair: correct, ruler, first, flip; and which it is."""
    if sample.get("known"):
        correct, ruler = sample["correct"], sample["ruler"]
        return [0.0, 0.0, 0.0, correct, ruler, sample["first"], float(sample["flip"]), 0.0, 1.0]
    return [sample.get("win", 0.0), float(sample.get("flip", False)), sample.get("score", 0.0), *[0.0] * 4, 1.0, 0.0]


_COLUMNS = {
    "win_rate": 0, "win_flips": 1, "score": 2,
    "judge_accuracy": 3, "ruler_accuracy": 4, "judge_first": 5, "judge_flips": 6,
}  # fmt: skip
_ANSWERED, _KNOWN = 7, 8
_HALVES = ("win_rate", "judge_accuracy", "ruler_accuracy", "judge_first")


def _over_ruler(sums: Array) -> Array:
    """How much more often the judge is right than a ruler, whichever of longer and shorter is the better one here."""
    longer = sums[..., _COLUMNS["ruler_accuracy"]] / sums[..., _KNOWN]
    return np.asarray(sums[..., _COLUMNS["judge_accuracy"]] / sums[..., _KNOWN] - np.maximum(longer, 1 - longer))


def _metrics(keys: Any) -> dict[str, Metric]:
    found = {}
    for name, facts in JUDGED[_judge_of(keys).form].items():
        if name == "judge_over_ruler":
            found[name] = Metric(_over_ruler, facts.higher_is_better, among=_KNOWN)
            continue
        column = _COLUMNS[name]
        among = _KNOWN if column >= _COLUMNS["judge_accuracy"] else _ANSWERED
        share = column if facts.share else None
        found[name] = Metric(part(column, among), facts.higher_is_better, share, among, halves=name in _HALVES)
    return found


def _compares(keys: Any, sample: Mapping[str, Any]) -> bool:
    """Whether a sample says the same in two evaluations: not where it is compared with one of them."""
    of_task = "score" in sample if _judge_of(keys).form != PAIRWISE else "win" in sample
    return of_task and (keys.against == "references" or "score" in sample)


def _more_of(
    task: Task, samples: Sequence[Sample], pairs: Sequence[tuple[Sample, Sample]], groups_of: GroupsOf
) -> More:
    """The win rate at equal length."""
    won = [one for one in samples if "win" in one]
    if not won:
        return More()
    lengths = [[len(one[name].strip()) for one in won] for name in ("hypothesis", "other")]
    found = length.controlled([one["win"] for one in won], lengths[0], lengths[1], groups_of(won).index.tolist())
    if isinstance(found, str):
        return More(notes=(f"no win rate at equal length: {found}",))
    return More({"win_rate_equal_length": (found, True)})


def _doubt(task: Task, measured: Mapping[str, MetricEstimate]) -> str | None:
    """Why the judge is not believed; None: it is."""
    found, accuracy = measured.get("judge_over_ruler"), measured.get("judge_accuracy")
    name = f"judge {task.keys.judge}"
    if found is None or accuracy is None:
        return f"{name} was not measured: name pairs whose answer is known by calibrate_on"
    if found.n < FEWEST_KNOWN:
        return f"{name} was measured on {found.n} pairs, it needs {FEWEST_KNOWN}"
    if accuracy.low is None or accuracy.low <= 0.5:
        return f"{name} is not shown to be better than a coin"
    if found.low is None or found.low <= 0:
        return f"{name} is not shown to be better than a ruler (the longer, or the shorter answer wins)"
    return None


KINDS = (
    Kind(
        "judge",
        _statistics,
        _metrics,
        _choose,
        _prepare,
        ask=_ask,
        compares=_compares,
        more=_more_of,
        doubt=_doubt,
    ),
)
