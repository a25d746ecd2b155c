"""Tasks on the answers that a model writes: translation, and whatever ``measure:`` names."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.core.measures import NumericKeys
from jobs.encoding.rows import RowEncoder
from jobs.encoding.tokens import Tokens
from jobs.evaluate import measures
from jobs.evaluate.judging.judges import Judge
from jobs.evaluate.kinds.kind import Kind, Loaded, PreparedTask, Sample, Task
from jobs.evaluate.kinds.texts import choose, identity, refuse_longer
from jobs.evaluate.measures import AnswerMeasures
from jobs.evaluate.metrics import Metric
from jobs.evaluate.server import Answering, Reply, Request
from jobs.training import examples
from jobs.training.examples import ExamplesError, Row
from jobs.training.settings import BadSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from jobs.evaluate.measure import ModelAnswer

TRANSLATION: dict[str, Any] = {"chrf": {}, "exact": {}}
"""What the task ``translation`` measures."""


@dataclass(frozen=True)
class GeneratedAnswer:
    """What the model wrote for a row. ``divergence``: from the reference model, and over how many tokens."""

    answer: ModelAnswer
    divergence: tuple[float, int] | None = None


def measured(keys: Any) -> AnswerMeasures:
    """The measures of a task.

    Raises:
        BadSettings: naming what is wrong.
    """
    return AnswerMeasures.of(getattr(keys, "measure", TRANSLATION))


def check(keys: Any) -> None:
    """Look for packages and for the user's functions, before the model is loaded.

    Raises:
        BadSettings, Missing: naming the measure.
    """
    measured(keys).check()


def choose_answered(task: Task, inputs: Mapping[str, Any]) -> list[Row]:
    """The rows of a task.

    Raises:
        DataError: no row is left, or a reference that must be a number is none.
    """
    rows = choose(task, inputs)
    numeric = measured(task.keys).keys.get("numeric")
    if isinstance(numeric, NumericKeys):
        for row in rows:
            if measures.number_of(row.texts["completion"], numeric) is None:
                raise ExamplesError(f"{row.place}: measure numeric: there is no number in {row.texts['completion']!r}")
    return rows


def prepare(task: Task, rows: list[Row], loaded: Loaded) -> PreparedTask:
    """Tokenise the prompts of a task and group them into batches."""
    from jobs.evaluate import measure  # it loads torch

    model, longest = loaded.model, task.keys.max_new_tokens
    encoder = examples.encoder_of(loaded.tokenizer, rows[0].path)
    prompts = [examples.encode_prompt(encoder, row) for row in rows]
    refuse_longer(rows, [len(prompt) + longest for prompt in prompts], model)
    groups = measure.grouped(loaded.batch_tokens * 4, loaded.batch_prompts)
    given = measured(task.keys)
    reference = loaded.reference if "kl" in given.keys else None
    if "kl" in given.keys and reference is None:
        raise BadSettings("measure kl needs a model to compare with: compare_to, or kl: {reference: STAGE}")
    write = functools.partial(
        measure.answers, model, loaded.tokenizer, max_new_tokens=longest, ends=ends_of(rows, encoder, model)
    )

    def answer(some: Sequence[Sequence[int]]) -> list[GeneratedAnswer]:
        made = write(some)
        if reference is None:
            return [GeneratedAnswer(one) for one in made]
        pairs = [Tokens.of(prompt, _generated(one)) for prompt, one in zip(some, made, strict=True)]
        sums = [0.0] * len(pairs)
        for group in measure.batches([len(pair) for pair in pairs], loaded.batch_tokens):
            found = measure.divergences(model, reference, [pairs[index] for index in group])
            for index, value in zip(group, found, strict=True):
                sums[index] = value
        return [
            GeneratedAnswer(one, (value, sum(pair.mask))) for one, value, pair in zip(made, sums, pairs, strict=True)
        ]

    sample = functools.partial(_sample, task, given.functions())
    how = {"precision": str(model.dtype).removeprefix("torch."), "max_new_tokens": longest}
    return PreparedTask(task.name, rows, [[prompt] for prompt in prompts], groups, answer, sample, how)


def _generated(answer: ModelAnswer) -> tuple[int, ...]:
    """All tokens that the model chose, the end among them."""
    return answer.ids if answer.end is None else (*answer.ids, answer.end)


def _sample(
    task: Task,
    functions: Mapping[str, Callable[..., Any]],
    row: Row,
    parts: Sequence[Any],
    results: Sequence[GeneratedAnswer],
) -> Sample:
    answer = results[0].answer
    found = answered(task, functions, row, answer.text)
    found |= {"answer_tokens": len(answer.ids), "finish": answer.finish}
    if results[0].divergence is not None:
        found["kl"] = list(results[0].divergence)
    return found


def answered(task: Task, functions: Mapping[str, Callable[..., Any]], row: Row, answer: str) -> Sample:
    """The line of a row with this answer, as far as the answer says it."""
    wanted = row.texts["completion"].strip()
    found = {**identity(task, row), "asked": row.texts["prompt"], "hypothesis": answer, "reference": wanted}
    if functions:
        found["values"] = {name: _value(name, one, row, answer, wanted) for name, one in functions.items()}
    return found


def ask(task: Task, rows: list[Row], server: Answering, judges: Mapping[str, Judge]) -> PreparedTask:
    """Make the prompts ready for a server, or for answers that are there.

    Raises:
        BadSettings: a measure needs more than answers.
    """
    given, longest = measured(task.keys), task.keys.max_new_tokens
    if "kl" in given.keys:
        raise BadSettings("measure kl needs the probabilities of the model: a server does not give them")
    functions = given.functions()

    def sample(row: Row, parts: Sequence[Any], results: Sequence[Reply]) -> Sample:
        reply = results[0]
        if reply.problem is not None:
            return {**identity(task, row), "asked": row.texts["prompt"], "problem": reply.problem}
        # A server that does not count its tokens: words are near enough to say how long answers are.
        tokens = len(reply.text.split()) if reply.tokens is None else reply.tokens
        return answered(task, functions, row, reply.text) | {"answer_tokens": tokens, "finish": reply.finish}

    requests = [[Request.of(row.value, row.texts["prompt"], longest, row.id)] for row in rows]
    how = {"engine": server.engine, "model": server.model, "max_new_tokens": longest}
    return PreparedTask(task.name, rows, requests, server.groups, server.answer, sample, how, Request.digest)


def _value(name: str, function: Callable[..., Any], row: Row, answer: str, wanted: str) -> float:
    """What the user's function says of an answer.

    Raises:
        BadSettings: it fails, or says no number; with the row.
    """
    try:
        found = float(function(answer, wanted, dict(row.value)))
    except Exception as error:
        raise BadSettings(f"measure code: {name} fails at {row.place}: {type(error).__name__}: {error}") from error
    if found != found or found in (float("inf"), float("-inf")):
        raise BadSettings(f"measure code: {name} says {found} of {row.place}: it must be a finite number")
    return found


def ends_of(rows: list[Row], encoder: RowEncoder, model: PreTrainedModel) -> list[int]:
    """The tokens at which an answer ends: the tokenizer's, the model's own, and what closes the answers of the data."""
    own = model.generation_config.eos_token_id if model.generation_config is not None else None
    found = {encoder.tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}
    control = set(encoder.control.ids.values())
    for row in rows:
        for one in reversed(examples.encode(encoder, row)["completion"].completion):
            if one in control:
                found.add(one)
            if encoder.tokenizer.decode([one]).strip():  # only line ends stand behind the end of a turn
                break
    return sorted(found - {None})


def _statistics(keys: Any, sample: Mapping[str, Any]) -> Sequence[float]:
    return measured(keys).statistics(sample)


def _metrics(keys: Any) -> dict[str, Metric]:
    return measured(keys).metrics()


KINDS = tuple(
    Kind(name, _statistics, _metrics, choose_answered, prepare, check, ask) for name in ("translation", "measure")
)
