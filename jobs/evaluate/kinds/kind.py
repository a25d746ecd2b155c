"""What a kind of task is to an evaluation: how its examples are found, run and counted."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jobs.core.spec import Input
from jobs.encoding.rows import Tokens
from jobs.evaluate.metrics import Metric

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from jobs.evaluate.server import Answering

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
    ``prepare`` tokenises them and groups them into batches; ``ask`` makes them ready for a server that only answers.
    ``check`` looks for what a task needs beside the model.
    """

    name: str
    statistics: Callable[[Any, Mapping[str, Any]], Sequence[float]]
    metrics: Callable[[Any], dict[str, Metric]]
    choose: Callable[[Task, Mapping[str, Input]], Any]
    prepare: Callable[[Task, Any, Loaded], PreparedTask]
    check: Callable[[Any], None] = lambda keys: None
    ask: Callable[[Task, Any, Answering], PreparedTask] | None = None


def digest(parts: Sequence[Any]) -> str:
    """Of the ids that go through the model, and of those that count; rows with another one cannot be compared."""
    found = hashlib.sha256()
    for one in parts:
        ids, mask = (one.ids, one.mask) if isinstance(one, Tokens) else (one, ())
        found.update(array("q", ids).tobytes() + bytes(mask) + b"|")
    return found.hexdigest()[:16]


@dataclass(frozen=True)
class PreparedTask:
    """A task made ready.

    ``parts``: of each row what goes through the model; ``groups`` puts parts of the same length together, by their
    places in the list that it is given; ``answer`` makes results of a group, and ``sample`` the line of a row in
    samples.jsonl out of its parts and their results. ``digest``: of what was shown to the
    model. ``how``: what the numbers of the task depend on beside its rows; ``after``: what is known of it in addition
    once all samples are there.
    """

    name: str
    rows: Sequence[Any]
    parts: Sequence[Sequence[Any]]
    groups: Callable[[Sequence[Any]], Iterable[list[int]]]
    answer: Callable[[list[Any]], list[Any]]
    sample: Callable[[Any, Sequence[Any], Sequence[Any]], Sample]
    how: dict[str, Any] = field(default_factory=dict)
    digest: Callable[[Sequence[Any]], str] = digest
    after: Callable[[list[Sample]], dict[str, Any]] = lambda samples: {}
    id_of: Callable[[Any], str] = lambda row: str(row.id)

    def share(self, rank: int, world: int) -> list[int]:
        """Places of the rows of one of ``world`` processes: dealt by length, so that all have about as much to do."""
        sizes = [sum(map(_size, own)) for own in self.parts]
        return sorted(range(len(sizes)), key=lambda place: (-sizes[place], place))[rank::world]

    @property
    def ids(self) -> list[str]:
        """Of each row its id."""
        return [self.id_of(row) for row in self.rows]

    def shown(self) -> list[str]:
        """Of each row the digest of what is shown to the model."""
        return [self.digest(own) for own in self.parts]

    def samples(
        self, places: Sequence[int], shown: Sequence[str], known: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Sample]]]:
        """The samples of the rows at these places, with their places: after each group those that are whole then.

        Those that are ``known`` are left out, but not of the groups of the others: what a row comes to depends, in its
        last digits, on the group that it is in.
        """
        flat = [(place, number) for place in places for number in range(len(self.parts[place]))]
        parts = [self.parts[place][number] for place, number in flat]
        results: dict[int, list[Any]] = {place: [None] * len(self.parts[place]) for place in places}
        open_parts = {place: len(self.parts[place]) for place in places if place not in known}
        for group in self.groups(parts):
            if not any(flat[index][0] in open_parts for index in group):
                continue
            found: list[tuple[int, Sample]] = []
            for index, result in zip(group, self.answer([parts[index] for index in group]), strict=True):
                place, number = flat[index]
                results[place][number] = result
                if place not in open_parts:
                    continue
                open_parts[place] -= 1
                if not open_parts[place]:
                    made = self.sample(self.rows[place], self.parts[place], results[place])
                    name = self.id_of(self.rows[place])
                    found.append((place, {"task": self.name, "id": name, "prompt": shown[place], **made}))
            yield found

    def run(self) -> list[Sample]:
        """The samples of all rows, by this process alone."""
        places = range(len(self.rows))
        found = dict(pair for group in self.samples(places, self.shown()) for pair in group)
        return [found[place] for place in places]


def _size(part: Any) -> int:
    return len(part) if hasattr(part, "__len__") else 1
