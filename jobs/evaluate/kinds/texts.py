"""Tasks on the texts of data stages: perplexity, loss of answers, preferences."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.core import tasks
from jobs.core.spec import Input
from jobs.encoding.tokens import Tokens
from jobs.evaluate.intervals import Array
from jobs.evaluate.kinds.kind import Kind, Loaded, PreparedTask, Sample, Task, first_by_hash
from jobs.evaluate.metrics import Metric, mean
from jobs.evaluate.parts import ScoredPrompt
from jobs.training import examples
from jobs.training.examples import ExamplesError, Row

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def choose(task: Task, inputs: Mapping[str, Input]) -> list[Row]:
    """The rows that a task takes.

    Raises:
        DataError: no row is left.
    """
    return rows_of(inputs[task.keys.data].output / f"{task.keys.split}.jsonl", task.kind.name, task.keys.limit)


def rows_of(path: Path, kind: str, limit: int | None) -> list[Row]:
    """The rows of a file that a task of this kind takes. Preferences whose two answers are equal say nothing and are
    left out.

    Raises:
        DataError: no row is left.
    """
    found = examples.rows_between(path, tasks.KINDS[kind].reads)
    if kind == "preferences":
        found = (row for row in found if row.value["chosen"] != row.value["rejected"])
    rows = first_by_hash(found, limit, lambda row: row.id)
    if not rows:
        raise ExamplesError(f"{path}:1: no row for the task {kind}")
    return rows


def identity(task: Task, row: Row) -> Sample:
    """Its id, and its group where there is one.

    Raises:
        DataError: the row does not say its group.
    """
    cluster = task.keys.cluster
    if cluster is None:
        return {"id": row.id}
    meta = row.value.get("meta")
    if not isinstance(meta, dict) or meta.get(cluster) is None:
        raise ExamplesError(
            f"{row.place}: cluster: {cluster} is not a field of its meta: write carry: [{cluster}] in "
            "prepare of its data"
        )
    return {"id": row.id, "group": str(meta[cluster])}


def prepare(task: Task, rows: list[Row], loaded: Loaded) -> PreparedTask:
    """Tokenise the rows of a task and group them into batches."""
    from jobs.evaluate import measure  # it loads torch
    from jobs.training.tokens import document_encoder, texts_of

    model, tokenizer, batch_tokens = loaded.model, loaded.tokenizer, loaded.batch_tokens
    how: dict[str, Any] = {"precision": str(model.dtype).removeprefix("torch.")}
    parts: list[list[Any]]
    if task.kind.name == "perplexity":
        # In training an end-of-sequence token stands before every document, so it does here.
        # What the tokenizer puts before each text by itself is not part of it, and is not scored.
        documents = document_encoder(tokenizer, rows[0].path)
        before = [documents.end, *documents.begin]
        most = max(2 * len(before), min(batch_tokens, measure.positions(model) or batch_tokens))
        made = documents.encode([*texts_of(rows, documents)])
        parts = [measure.windows(before, ids[len(documents.begin) :], most) for ids in made]
        how |= {"window": most, "stride": most - most // 2}
    else:
        encoder = examples.encoder_of(tokenizer, rows[0].path)
        parts = [list(examples.encode(encoder, row).values()) for row in rows]
        refuse_longer(rows, [max(map(len, own)) for own in parts], model)
    groups = measure.grouped(batch_tokens)
    score: Any = functools.partial(measure.log_likelihoods, model)
    if task.kind.name == "preferences" and (together := _together(parts, batch_tokens)) is not None:
        from jobs.evaluate.choices import Scorer

        parts, score = together, Scorer(model)
    counted = {"preferences": _preferred, "perplexity": _read}.get(task.kind.name, _scored)

    def sample(row: Row, parts: Sequence[Any], results: Sequence[Any]) -> Sample:
        return {**identity(task, row), **counted(row, parts, results)}

    return PreparedTask(task.name, rows, parts, groups, score, sample, how)


def _together(rows: Sequence[Sequence[Tokens]], most: int) -> list[list[ScoredPrompt]] | None:
    """Both answers of each row behind its prompt, which then goes through the model once; None where a row has other
    prompts, no loss on a part of an answer, or more than ``most`` tokens so."""
    found = []
    for chosen, rejected in rows:
        both = (chosen.completion, rejected.completion)
        made = ScoredPrompt(chosen.prompt, both)
        is_whole = all(map(all, (chosen.mask[chosen.start :], rejected.mask[rejected.start :])))
        if chosen.prompt != rejected.prompt or not (chosen.prompt and all(both) and is_whole) or len(made) > most:
            return None
        found.append([made])
    return found


def refuse_longer(rows: list[Row], lengths: list[int], model: PreTrainedModel) -> None:
    """Raises ExamplesError: a row has more tokens than the model has positions: its score would mean nothing."""
    from jobs.evaluate import measure

    most = measure.positions(model)
    for row, length in zip(rows, lengths, strict=True):
        if most is not None and length > most:
            raise ExamplesError(f"{row.place}: {length} tokens, and the model has {most} positions: shorten or drop it")


def _scored(row: Row, parts: Sequence[Tokens], results: Sequence[float]) -> Sample:
    return {"nll": -sum(results), "tokens": sum(sum(one.mask) for one in parts)}


def _read(row: Row, parts: Sequence[Tokens], results: Sequence[float]) -> Sample:
    return {**_scored(row, parts, results), "bytes": len(row.texts["text"].encode())}


def _preferred(row: Row, parts: Sequence[Any], results: Sequence[Any]) -> Sample:
    scores = [value for value, _ in results[0]] if isinstance(parts[0], ScoredPrompt) else results
    chosen, rejected = scores
    return {"chosen": chosen, "rejected": rejected, "margin": chosen - rejected}


def _bits_per_byte(sums: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[..., 0] / np.log(2) / sums[..., 2])


def _kind(name: str, statistics: Any, metrics: dict[str, Metric]) -> Kind:
    return Kind(name, lambda keys, sample: statistics(sample), lambda keys: metrics, choose, prepare)


KINDS = (
    _kind(
        "perplexity",
        lambda sample: (sample["nll"], sample["tokens"], sample.get("bytes", 0)),
        {
            "perplexity": Metric(lambda sums: np.asarray(np.exp(sums[..., 0] / sums[..., 1])), False),
            "bits_per_byte": Metric(_bits_per_byte, False, needs="bytes"),
        },
    ),
    _kind(
        "answers",
        lambda sample: (sample["nll"], sample["tokens"]),
        {"answer_loss": Metric(mean(0), False)},
    ),
    _kind(
        "preferences",
        lambda sample: (float(sample["margin"] > 0), sample["margin"], 1.0),
        {"accuracy": Metric(mean(0), True, share=0), "margin": Metric(mean(1), True)},
    ),
)
"""``answer_loss`` is in nats a token, ``margin`` in nats a pair, ``bits_per_byte`` of the UTF-8 text, which unlike
perplexity does not depend on the tokenizer."""
