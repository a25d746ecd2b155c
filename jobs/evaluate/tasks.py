"""The evaluation tasks: which examples they take, what they run, what a sample of theirs holds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.encoding.rows import RowEncoder
from jobs.evaluate import measure
from jobs.evaluate.metrics import TASKS
from jobs.evaluate.settings import EvaluateSettings, TaskSettings
from jobs.training import examples
from jobs.training.examples import ExamplesError, Row
from jobs.training.tokens import begin_ids, encode_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class PreparedTask:
    """A task made ready: its batches are known, so that progress has a total before the first one runs."""

    name: str
    groups: list[list[int]]
    run: Callable[[Callable[[], None]], list[dict[str, Any]]]


def choose(path: Path, task: str, settings: TaskSettings) -> list[Row]:
    """The rows a task takes: all, or the ``limit`` whose hashed ids come first.

    By hash, so that the choice neither depends on the order of the file nor on a seed, and two evaluations of the same
    data have the same examples. Preferences whose two answers are equal say nothing and are left out.

    Raises:
        DataError: no row is left.
    """
    rows = examples.read_rows(path, TASKS[task].format)
    if task == "preferences":
        rows = [row for row in rows if row.value["chosen"] != row.value["rejected"]]
    if not rows:
        raise ExamplesError(f"{path}:1: no row for the task {task}")
    rows.sort(key=lambda row: hashlib.sha256(row.id.encode()).digest())
    return rows[: settings.limit]


def prepare(
    task: str,
    rows: list[Row],
    settings: EvaluateSettings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> PreparedTask:
    """Tokenise the rows of a task and group them into batches."""
    if task == "translation":
        return _translation(rows, settings, model, tokenizer)
    if task == "preferences":
        return _preferences(rows, settings, model, tokenizer)
    if task == "perplexity":
        # In training an end-of-sequence token stands before every document, so it does here.
        # What the tokenizer puts before each text by itself is no part of it, and is not scored.
        begin = begin_ids(tokenizer)
        before = [examples.end_id(tokenizer), *begin]
        most = max(2 * len(before), min(settings.batch_tokens, measure.positions(model) or settings.batch_tokens))
        texts = (encode_text(tokenizer, row.texts["text"])[len(begin) :] for row in rows)
        parts = [measure.windows(before, ids, most) for ids in texts]
    else:
        encoder = examples.encoder_of(tokenizer, rows[0].path)
        parts = [[examples.encode(encoder, row)["completion"]] for row in rows]
        _refuse_longer(rows, [len(pair) for (pair,) in parts], model)
    pairs = [pair for each in parts for pair in each]
    groups = list(measure.batches([len(pair) for pair in pairs], settings.batch_tokens))

    def run(done: Callable[[], None]) -> list[dict[str, Any]]:
        found = iter(measure.in_batches(pairs, groups, lambda batch: measure.log_likelihoods(model, batch), done))
        samples = []
        for row, each in zip(rows, parts, strict=True):
            tokens = sum(sum(window.mask) for window in each)
            samples.append({"task": task, "id": row.id, "nll": -sum(islice(found, len(each))), "tokens": tokens})
        return samples

    return PreparedTask(task, groups, run)


def _refuse_longer(rows: list[Row], lengths: list[int], model: PreTrainedModel) -> None:
    """Raises DataError: a row has more tokens than the model has positions, so that its score would mean nothing."""
    most = measure.positions(model)
    for row, length in zip(rows, lengths, strict=True):
        if most is not None and length > most:
            raise ExamplesError(f"{row.place}: {length} tokens, and the model has {most} positions: shorten or drop it")


def _translation(
    rows: list[Row], settings: EvaluateSettings, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> PreparedTask:
    longest = settings.tasks["translation"].max_new_tokens
    encoder = examples.encoder_of(tokenizer, rows[0].path)
    prompts = [examples.encode_prompt(encoder, row) for row in rows]
    _refuse_longer(rows, [len(prompt) + longest for prompt in prompts], model)
    ends = _ends(rows, encoder, model)
    groups = list(
        measure.batches([len(prompt) for prompt in prompts], settings.batch_tokens * 4, settings.batch_prompts)
    )

    def run(done: Callable[[], None]) -> list[dict[str, Any]]:
        made = measure.in_batches(
            prompts, groups, lambda batch: measure.answers(model, tokenizer, batch, longest, ends), done
        )
        return [
            {
                "task": "translation",
                "id": row.id,
                "hypothesis": text,
                "reference": row.texts["completion"].strip(),
                "exact": text == row.texts["completion"].strip(),
            }
            for row, text in zip(rows, made, strict=True)
        ]

    return PreparedTask("translation", groups, run)


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


def _preferences(
    rows: list[Row], settings: EvaluateSettings, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> PreparedTask:
    encoder = examples.encoder_of(tokenizer, rows[0].path)
    both = [tokens for row in rows for tokens in examples.encode(encoder, row).values()]
    _refuse_longer([row for row in rows for _ in range(2)], [len(pair) for pair in both], model)
    groups = list(measure.batches([len(pair) for pair in both], settings.batch_tokens))

    def run(done: Callable[[], None]) -> list[dict[str, Any]]:
        found = measure.in_batches(both, groups, lambda batch: measure.log_likelihoods(model, batch), done)
        return [
            {"task": "preferences", "id": row.id, "chosen": chosen, "rejected": rejected, "margin": chosen - rejected}
            for row, chosen, rejected in zip(rows, found[::2], found[1::2], strict=True)
        ]

    return PreparedTask("preferences", groups, run)
