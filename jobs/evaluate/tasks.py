"""The evaluation tasks: which examples they take, what they run, what a sample of theirs holds."""

from __future__ import annotations

import functools
import hashlib
import heapq
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.encoding.rows import RowEncoder, Tokens
from jobs.evaluate import measure
from jobs.evaluate.metrics import TASKS
from jobs.evaluate.settings import EvaluateSettings, TaskSettings
from jobs.training import examples
from jobs.training.examples import ExamplesError, Row
from jobs.training.tokens import document_encoder, texts_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


Sample = dict[str, Any]


@dataclass(frozen=True)
class PreparedTask:
    """A task made ready: its batches are known, so that progress has a total before the first one runs.

    ``parts``: of each row what goes through the model, all of them one behind the other in ``groups``; ``answer`` makes
    results of a group of them, and ``sample`` the line of a row in samples.jsonl out of its parts and their results.
    ``cluster``: the field of a row's ``meta`` that says with which others it counts as one. ``how``: what the numbers
    of the task depend on beside its rows.
    """

    name: str
    rows: list[Row]
    parts: Sequence[Sequence[Any]]
    groups: list[list[int]]
    answer: Callable[[list[Any]], list[Any]]
    sample: Callable[[Row, Sequence[Any], Sequence[Any]], Sample]
    cluster: str | None = None
    how: dict[str, Any] = field(default_factory=dict)

    def run(self, done: Callable[[], None]) -> list[Sample]:
        """The samples of all rows; ``done`` is called after each group."""
        found = iter(measure.in_batches([one for own in self.parts for one in own], self.groups, self.answer, done))
        samples = []
        for row, own in zip(self.rows, self.parts, strict=True):
            made = self.sample(row, own, list(islice(found, len(own))))
            grouped = {} if self.cluster is None else {"group": _group(row, self.cluster)}
            samples.append({"task": self.name, "id": row.id, "prompt": _digest(own), **grouped, **made})
        return samples


def _group(row: Row, cluster: str) -> str:
    """Raises DataError: the row does not say it."""
    meta = row.value.get("meta")
    if not isinstance(meta, dict) or meta.get(cluster) is None:
        raise ExamplesError(
            f"{row.place}: cluster: {cluster} is no field of its meta: write carry: [{cluster}] in prepare of its data"
        )
    return str(meta[cluster])


def _digest(parts: Sequence[Any]) -> str:
    """Of the ids that go through the model, and of those that count; rows with another one cannot be compared."""
    found = hashlib.sha256()
    for one in parts:
        ids, mask = (one.ids, one.mask) if isinstance(one, Tokens) else (one, ())
        found.update(array("q", ids).tobytes() + bytes(mask) + b"|")
    return found.hexdigest()[:16]


def choose(path: Path, task: str, settings: TaskSettings) -> list[Row]:
    """The rows a task takes: all, or the ``limit`` whose hashed ids come first.

    By hash, so that the choice neither depends on the order of the file nor on a seed, and two evaluations of the same
    data have the same examples; other rows are not kept in memory. Preferences whose two answers are equal say nothing
    and are left out.

    Raises:
        DataError: no row is left.
    """
    found = examples.rows_between(path, TASKS[task].format)
    if task == "preferences":
        found = (row for row in found if row.value["chosen"] != row.value["rejected"])

    def place(row: Row) -> bytes:
        return hashlib.sha256(row.id.encode()).digest()

    rows = sorted(found, key=place) if settings.limit is None else heapq.nsmallest(settings.limit, found, place)
    if not rows:
        raise ExamplesError(f"{path}:1: no row for the task {task}")
    return rows


def prepare(
    task: str,
    rows: list[Row],
    settings: EvaluateSettings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> PreparedTask:
    """Tokenise the rows of a task and group them into batches."""
    cluster = settings.tasks[task].cluster
    how: dict[str, Any] = {"precision": str(model.dtype).removeprefix("torch.")}
    parts: list[list[Any]]
    if task == "translation":
        encoder, longest = examples.encoder_of(tokenizer, rows[0].path), settings.tasks[task].max_new_tokens
        prompts = [examples.encode_prompt(encoder, row) for row in rows]
        _refuse_longer(rows, [len(prompt) + longest for prompt in prompts], model)
        groups = measure.batches([len(prompt) for prompt in prompts], settings.batch_tokens * 4, settings.batch_prompts)
        ends = _ends(rows, encoder, model)
        answer = functools.partial(measure.answers, model, tokenizer, max_new_tokens=longest, ends=ends)
        return PreparedTask(
            task, rows, [[prompt] for prompt in prompts], list(groups), answer, _translated, cluster, how
        )
    if task == "perplexity":
        # In training an end-of-sequence token stands before every document, so it does here.
        # What the tokenizer puts before each text by itself is no part of it, and is not scored.
        documents = document_encoder(tokenizer, rows[0].path)
        before = [documents.end, *documents.begin]
        most = max(2 * len(before), min(settings.batch_tokens, measure.positions(model) or settings.batch_tokens))
        made = documents.encode([*texts_of(rows, documents)])
        parts = [measure.windows(before, ids[len(documents.begin) :], most) for ids in made]
        how |= {"window": most, "stride": most - most // 2}
    else:
        encoder = examples.encoder_of(tokenizer, rows[0].path)
        parts = [list(examples.encode(encoder, row).values()) for row in rows]
        _refuse_longer(rows, [max(map(len, own)) for own in parts], model)
    groups = measure.batches([len(one) for own in parts for one in own], settings.batch_tokens)
    score = functools.partial(measure.log_likelihoods, model)
    sample = {"preferences": _preferred, "perplexity": _read}.get(task, _scored)
    return PreparedTask(task, rows, parts, list(groups), score, sample, cluster, how)


def _refuse_longer(rows: list[Row], lengths: list[int], model: PreTrainedModel) -> None:
    """Raises ExamplesError: a row has more tokens than the model has positions: its score would mean nothing."""
    most = measure.positions(model)
    for row, length in zip(rows, lengths, strict=True):
        if most is not None and length > most:
            raise ExamplesError(f"{row.place}: {length} tokens, and the model has {most} positions: shorten or drop it")


def _scored(row: Row, parts: Sequence[Tokens], results: Sequence[float]) -> Sample:
    return {"nll": -sum(results), "tokens": sum(sum(one.mask) for one in parts)}


def _read(row: Row, parts: Sequence[Tokens], results: Sequence[float]) -> Sample:
    return {**_scored(row, parts, results), "bytes": len(row.texts["text"].encode())}


def _preferred(row: Row, parts: Sequence[Tokens], results: Sequence[float]) -> Sample:
    chosen, rejected = results
    return {"chosen": chosen, "rejected": rejected, "margin": chosen - rejected}


def _translated(row: Row, parts: Sequence[Any], results: Sequence[str]) -> Sample:
    wanted = row.texts["completion"].strip()
    asked = row.texts["prompt"]
    return {"asked": asked, "hypothesis": results[0], "reference": wanted, "exact": results[0] == wanted}


def _ends(rows: list[Row], encoder: RowEncoder, model: PreTrainedModel) -> list[int]:
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
