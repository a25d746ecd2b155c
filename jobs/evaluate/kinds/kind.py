"""What a kind of task is to an evaluation: how its examples are found, run and counted."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from jobs.core.spec import Input
from jobs.encoding.rows import Tokens
from jobs.evaluate.metrics import Metric

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Sample = dict[str, Any]


@dataclass(frozen=True)
class Loaded:
    """The model that is measured and its tokenizer. ``batch_tokens``: how many tokens go through it at once, padding
    included; ``batch_prompts``: how many answers are generated at once. ``reference``: a model to compare with."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    batch_tokens: int = 2048
    batch_prompts: int = 64
    reference: PreTrainedModel | None = None


@dataclass(frozen=True)
class Task:
    """One task of a stage: its name, its kind, and its keys (of the kind's dataclass in ``jobs.core.tasks``)."""

    name: str
    kind: Kind
    keys: Any

    @property
    def metrics(self) -> dict[str, Metric]:
        """What it measures."""
        return self.kind.metrics(self.keys)


@dataclass(frozen=True)
class Kind:
    """One kind of task; ``name`` is its key in ``jobs.core.tasks.KINDS``.

    ``statistics`` of a sample (one line of samples.jsonl) are what its metrics are functions of sums of; ``metrics`` by
    their names, for these keys. ``choose`` the rows of a task from the inputs of the stage, without the model;
    ``prepare`` tokenises them and groups them into batches. ``check`` looks for what a task needs beside the model.
    """

    name: str
    statistics: Callable[[Any, Mapping[str, Any]], Sequence[float]]
    metrics: Callable[[Any], dict[str, Metric]]
    choose: Callable[[Task, Mapping[str, Input]], Any]
    prepare: Callable[[Task, Any, Loaded], PreparedTask]
    check: Callable[[Any], None] = lambda keys: None


def digest(parts: Sequence[Any]) -> str:
    """Of the ids that go through the model, and of those that count; rows with another one cannot be compared."""
    found = hashlib.sha256()
    for one in parts:
        ids, mask = (one.ids, one.mask) if isinstance(one, Tokens) else (one, ())
        found.update(array("q", ids).tobytes() + bytes(mask) + b"|")
    return found.hexdigest()[:16]


@dataclass(frozen=True)
class PreparedTask:
    """A task made ready: its batches are known, so that progress has a total before the first one runs.

    ``parts``: of each row what goes through the model, all of them one behind the other in ``groups``; ``answer`` makes
    results of a group of them, and ``sample`` the line of a row in samples.jsonl (its ``id`` among that) out of its
    parts and their results. ``digest``: of what was shown to the model. ``how``: what the numbers of the task depend on
    beside its rows; ``after``: what is known of it in addition once all samples are there.
    """

    name: str
    rows: Sequence[Any]
    parts: Sequence[Sequence[Any]]
    groups: list[list[int]]
    answer: Callable[[list[Any]], list[Any]]
    sample: Callable[[Any, Sequence[Any], Sequence[Any]], Sample]
    how: dict[str, Any] = field(default_factory=dict)
    digest: Callable[[Sequence[Any]], str] = digest
    after: Callable[[list[Sample]], dict[str, Any]] = lambda samples: {}

    def run(self, done: Callable[[], None]) -> list[Sample]:
        """The samples of all rows; ``done`` is called after each group."""
        from jobs.evaluate import measure

        found = iter(measure.in_batches([one for own in self.parts for one in own], self.groups, self.answer, done))
        samples = []
        for row, own in zip(self.rows, self.parts, strict=True):
            made = self.sample(row, own, list(islice(found, len(own))))
            samples.append({"task": self.name, "id": made.pop("id"), "prompt": self.digest(own), **made})
        self.how.update(self.after(samples))
        return samples
