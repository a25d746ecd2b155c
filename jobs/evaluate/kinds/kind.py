"""What a kind of task is to an evaluation: how its examples are found, run and counted."""

from __future__ import annotations

import hashlib
import heapq
import math
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from jobs.core.batches import BATCH_PROMPTS, BATCH_TOKENS
from jobs.core.spec import Input
from jobs.encoding.tokens import Tokens
from jobs.evaluate.intervals import Clusters
from jobs.evaluate.judging.judges import Judge
from jobs.evaluate.metrics import Metric
from jobs.evaluate.observed import MetricEstimate, Observed
from jobs.evaluate.parts import Prompt, ScoredPrompt
from jobs.training.settings import BadSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from jobs.evaluate.server import Answering

Sample = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Loaded:
    """The model that is measured and its tokenizer. ``batch_tokens``: how many tokens go through it at once, padding
    included; ``batch_prompts``: how many answers are generated at once. ``reference``: a model to compare with;
    ``earlier``: task -> what is known of it in the evaluation that this one is compared with. ``judges`` by their
    names; ``family``: of the model, as its configuration names it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    batch_tokens: int = BATCH_TOKENS
    batch_prompts: int = BATCH_PROMPTS
    reference: PreTrainedModel | None = None
    earlier: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    judges: Mapping[str, Judge] = field(default_factory=dict)
    family: str = ""


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


GroupsOf = Callable[[Sequence[Sample]], Clusters]
"""Which samples are drawn together."""


@dataclass(frozen=True)
class More:
    """What a kind says of its samples beside the metrics that are functions of sums: ``metrics`` (with whether more is
    better), and ``notes`` for who reads the numbers."""

    metrics: Mapping[str, tuple[Observed, bool]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def _no_more(task: Any, samples: Any, pairs: Any, groups_of: Any) -> More:
    return More()


@dataclass(frozen=True)
class Kind:
    """One kind of task; ``name`` is its key in ``jobs.core.tasks.KINDS``.

    ``statistics`` of a sample (one line of samples.jsonl) are what its metrics are functions of sums of; ``metrics`` by
    their names, for these keys. ``choose`` the rows of a task from the inputs of the stage, without the model;
    ``prepare`` tokenises them and groups them into batches; ``ask`` makes them ready for a server that only answers.
    ``check`` looks for what a task needs beside the model. ``compares``: whether a sample can be compared with that of
    another evaluation. ``more``: of the samples, and of the pairs of the two evaluations. ``doubt``: why no gate on the
    task is decided, from what was measured; None: nothing is in the way.
    """

    name: str
    statistics: Callable[[Any, Mapping[str, Any]], Sequence[float]]
    metrics: Callable[[Any], dict[str, Metric]]
    choose: Callable[[Task, Mapping[str, Input]], Any]
    prepare: Callable[[Task, Any, Loaded], PreparedTask]
    check: Callable[[Any], None] = lambda keys: None
    ask: Callable[[Task, Any, Answering, Mapping[str, Judge]], PreparedTask] | None = None
    compares: Callable[[Any, Mapping[str, Any]], bool] = lambda keys, sample: True
    more: Callable[[Task, Sequence[Sample], Sequence[tuple[Sample, Sample]], GroupsOf], More] = _no_more
    doubt: Callable[[Task, Mapping[str, MetricEstimate]], str | None] = lambda task, measured: None


def first_by_hash(rows: Iterable[T], limit: int | None, id_of: Any) -> list[T]:
    """All rows, or the ``limit`` whose hashed ids come first.

    By hash, so that the choice neither depends on the order of the file nor on a seed, and two evaluations of the same
    data have the same examples; other rows are not kept in memory.
    """

    def place(row: T) -> bytes:
        return hashlib.sha256(str(id_of(row)).encode()).digest()

    return sorted(rows, key=place) if limit is None else heapq.nsmallest(limit, rows, place)


def _shown(part: Any) -> list[tuple[Sequence[int], Sequence[bool]]]:
    if isinstance(part, Tokens):
        return [(part.ids, part.mask)]
    if isinstance(part, ScoredPrompt):
        both = [Tokens.of(part.prompt, choice) for choice in part.choices]
        return [(one.ids, one.mask) for one in both]
    return [(part.ids if isinstance(part, Prompt) else part, ())]


def digest(parts: Sequence[Any]) -> str:
    """Of the ids that go through the model, and of those that count; rows with another one cannot be compared."""
    found = hashlib.sha256()
    for one in parts:
        for ids, mask in _shown(one):
            found.update(array("q", ids).tobytes() + bytes(mask) + b"|")
    return found.hexdigest()[:16]


def template_of(task: Task, loaded: Loaded) -> str | None:
    """Digest of the chat template that prompts go through; None: they are plain text.

    Raises:
        BadSettings: the checkpoint and what it is compared with do not both have one, and the task does not say.
    """
    text = loaded.tokenizer.chat_template
    own = None if not text else hashlib.sha256(str(text).encode()).hexdigest()[:16]
    if task.keys.chat == "false":
        return None
    if task.keys.chat == "true":
        if own is None:
            raise BadSettings(f"task {task.name!r}: chat: true, and the checkpoint has no chat template")
        return own
    there = loaded.earlier.get(task.name)
    if there is not None and "template" in there and (there["template"] is None) != (own is None):
        one, other = ("a", "none") if own else ("no", "one")
        raise BadSettings(
            f"task {task.name!r}: the checkpoint has {one} chat template, and the evaluation in compare_to was made "
            f"with {other}: write chat: false in both, or chat: true where both have one"
        )
    return own


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
        if empty := [place for place, count in open_parts.items() if not count]:  # of these nothing is shown
            yield [(place, self._line(place, [], shown)) for place in empty]
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
                    found.append((place, self._line(place, results[place], shown)))
            yield found

    def _line(self, place: int, results: Sequence[Any], shown: Sequence[str]) -> Sample:
        row = self.rows[place]
        made = self.sample(row, self.parts[place], results)
        if wrong := [name for name, value in made.items() if not _is_finite(value)]:
            # A model that has diverged: every comparison with such a number is false, and a gate might pass by it.
            said = f"the model says no finite number: {', '.join(f'{name} {made[name]}' for name in wrong)}"
            made = {name: value for name, value in made.items() if name not in wrong} | {"problem": said[:200]}
        return {"task": self.name, "id": self.id_of(row), "prompt": shown[place], **made}

    def run(self) -> list[Sample]:
        """The samples of all rows, by this process alone."""
        places = range(len(self.rows))
        by_place = dict(pair for group in self.samples(places, self.shown()) for pair in group)
        found = [by_place[place] for place in places]
        self.how.update(self.after(found))
        return found


def _is_finite(value: Any) -> bool:
    """Whether all numbers in a value of a sample are finite."""
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _size(part: Any) -> int:
    return len(part) if hasattr(part, "__len__") else 1
