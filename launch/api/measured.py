"""What the evaluations of a run measured, by the names of evaluation, task and metric."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from launch.base.errors import InputError
from launch.base.text import suggest

if TYPE_CHECKING:
    from launch.status.results import MetricResult, Number

V = TypeVar("V")


class UnknownName(InputError, KeyError):
    """There is no evaluation or metric of that name; says the nearest."""


@dataclass(frozen=True)
class Measurement:
    """One metric of one evaluation: its value with the ends of its 95 % interval (None: too few examples) over ``n``.

    ``change``: against ``compared_with``, on the examples that both measured (paired), of which ``before`` is the value
    there; None: not compared. ``verdict`` of its gate: ``passed``, ``missed``, ``undecided``, or None without a gate.
    ``by``: the metric over the examples of each category.
    """

    evaluation: str
    task: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int
    before: float | None
    change: Number | None
    compared_with: str | None
    higher_is_better: bool | None
    gate: str | None
    verdict: str | None
    by: Mapping[str, Number] = field(default_factory=dict)

    @property
    def moved(self) -> str:
        """``better`` or ``worse`` where the interval of the change excludes 0, else ``undecided``."""
        change = self.change
        if change is None or change.low is None or change.high is None or change.low <= 0 <= change.high:
            return "undecided"
        return "better" if (change.low > 0) == bool(self.higher_is_better) else "worse"

    def __str__(self) -> str:
        def shown(low: float | None, high: float | None, sign: str) -> str:
            return "" if low is None or high is None else f" [{low:{sign}.4g}, {high:{sign}.4g}]"

        text = f"{self.evaluation} {self.task}.{self.metric}: {self.value:.4g}{shown(self.low, self.high, '')}"
        if self.change is not None:
            change = self.change
            text += f", change {change.value:+.4g}{shown(change.low, change.high, '+')} against {self.compared_with}"
        return text


class Named(Mapping[str, V]):
    """A mapping whose missing names are told with the nearest that there is."""

    def __init__(self, what: str, values: Mapping[str, V]) -> None:
        self._what, self._values = what, dict(values)

    def __getitem__(self, name: str) -> V:
        if name not in self._values:
            raise UnknownName(f"there is no {self._what} {name!r}; {suggest(name, list(self._values))}")
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __str__(self) -> str:
        return "\n".join(map(str, self._values.values()))

    __repr__ = __str__


class TaskResults(Named[Measurement]):
    """The metrics of one evaluation by ``task.metric``; also by the metric alone where one task measured it."""

    def __init__(self, evaluation: str, found: Iterable[Measurement]) -> None:
        super().__init__(f"metric of {evaluation}", {f"{one.task}.{one.metric}": one for one in found})

    def __getitem__(self, name: str) -> Measurement:
        alone = [one for key, one in self._values.items() if one.metric == name]
        return alone[0] if name not in self._values and len(alone) == 1 else super().__getitem__(name)


def by_evaluation(found: Iterable[MetricResult]) -> Named[TaskResults]:
    """All evaluations that measured something."""
    groups: dict[str, list[Measurement]] = {}
    for one in found:
        groups.setdefault(one.evaluation, []).append(_measurement(one))
    return Named("evaluation with results", {name: TaskResults(name, own) for name, own in groups.items()})


def _measurement(one: MetricResult) -> Measurement:
    return Measurement(
        evaluation=one.evaluation,
        task=one.task,
        metric=one.metric,
        value=one.now.value,
        low=one.now.low,
        high=one.now.high,
        n=one.now.n,
        before=one.before,
        change=one.difference,
        compared_with=one.compared_with,
        higher_is_better=one.higher_is_better,
        gate=one.gate,
        verdict=one.verdict,
        by=dict(one.by),
    )
