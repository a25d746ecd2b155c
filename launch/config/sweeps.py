"""``sweep:`` of a pipeline: which values are tried, in which combinations, and what ranks the chains of it."""

import json
import random
from collections.abc import Mapping, Sequence
from math import prod
from typing import Annotated, Any, Literal, NamedTuple, Self

from launch.base.errors import InputError
from launch.config.allowed import allows
from launch.config.document.layers import Override, option_value, path_of
from launch.config.document.positions import Position, Positions, Problem, failure
from launch.config.document.typed import Before, Faults, StrictModel, validate
from launch.config.fields import Amount, Count, Line, Positive, at_least, not_empty, one_entry

MOST = 100_000
"""Combinations of one sweep."""

KEY = "sweep"
OVER = "over"
SWEPT = ("stages", "seed")
"""Where the keys are that chains may differ in."""


class LogAxis(StrictModel):
    """``n`` values from the first to the second of ``log``, each the same factor after the one before."""

    log: Annotated[tuple[Positive, ...], not_empty]
    n: Annotated[int, at_least(2)]

    def _check(self) -> None:
        if len(self.log) != 2 or self.log[0] == self.log[1]:
            raise Faults([Problem(("log",), "write two numbers that differ: [0.05, 0.5]")])

    def values(self) -> list[float]:
        """The ends as they are written, those between them with four digits."""
        first, last = self.log
        factor = (last / first) ** (1 / (self.n - 1))
        return [first, *(float(f"{first * factor**step:.4g}") for step in range(1, self.n - 1)), last]


class AxisValues(tuple[Any, ...]):
    """What one key of a sweep is set to, one after the other: a list, or a ``LogAxis``."""

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """What ``read`` takes, as JSON Schema."""
        ends = {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}, "minItems": 2, "maxItems": 2}
        log = {"log": ends, "n": {"type": "integer", "minimum": 2}}
        axis = {"type": "object", "properties": log, "required": ["log", "n"], "additionalProperties": False}
        return {"anyOf": [{"type": "array", "minItems": 1, "uniqueItems": True}, axis]}

    @classmethod
    def read(cls, value: Any) -> Self:
        """As a file has it. Raises ValueError: neither form, nothing, or a value twice."""
        if isinstance(value, Mapping):
            value = LogAxis.read(value).values()
        if not isinstance(value, list | tuple):
            raise ValueError("expected a list of values, or {log: [FIRST, LAST], n: NUMBER}")
        seen: list[str] = []
        for at, one in enumerate(value):
            text = json.dumps(one, sort_keys=True)
            if text in seen:
                raise Faults([Problem((at,), "is listed twice")])
            seen.append(text)
        return cls(not_empty(value))


class RandomKeys(StrictModel):
    """``n`` different combinations of the grid, drawn with ``seed``."""

    n: Count
    seed: Amount = 1


class HowKeys(StrictModel):
    """Which combinations are drawn."""

    random: RandomKeys


class BudgetKeys(StrictModel):
    """``gpu_hours``: what all chains may take by the estimate; ``at_once``: the most chains in the queue."""

    gpu_hours: Positive | None = None
    at_once: Count | None = None


def _as_mapping(value: Any) -> Any:
    """``by: task.metric`` says the same as ``by: {task.metric: null}``: the metric itself says what is better."""
    return {value: None} if isinstance(value, str) else value


allows(_as_mapping, type="string")


_one_metric = one_entry("write one metric: TASK.METRIC, or {TASK.METRIC: lower} or higher")


class SweepKeys(StrictModel):
    """``over``: key of the pipeline -> its values. ``how``: every combination (``grid``), the first values together,
    then the second ones and so on (``list``), or some combinations. ``by``: the metric that ranks the chains."""

    over: Annotated[dict[Line, AxisValues], not_empty]
    how: Literal["grid", "list"] | HowKeys = "grid"
    by: Annotated[dict[Line, Literal["lower", "higher"] | None], Before(_as_mapping), _one_metric] | None = None
    budget: BudgetKeys = BudgetKeys()

    def _check(self) -> None:
        """That the combinations exist."""
        lengths = {key: len(values) for key, values in self.over.items()}
        if self.how == "list" and len(set(lengths.values())) > 1:
            told = ", ".join(f"{key} {length}" for key, length in lengths.items())
            raise Faults([Problem((OVER,), f"a list takes as many values of each key; there are: {told}")])
        if self.how != "list" and prod(lengths.values()) > MOST:
            raise Faults([Problem((OVER,), f"{prod(lengths.values())} combinations are more than {MOST}")])
        if isinstance(self.how, HowKeys) and self.how.random.n > prod(lengths.values()):
            text = f"there are only {prod(lengths.values())} combinations"
            raise Faults([Problem(("how", "random", "n"), text)])


class _Swept(StrictModel):
    """The part of a pipeline that is read before its values are set."""

    sweep: SweepKeys | None = None


def read_sweep(data: Mapping[str, Any], positions: Positions) -> SweepKeys | None:
    """The sweep of a pipeline as written; None: it has none. Raises InputError: every fault of it, with lines."""
    return validate(_Swept, {KEY: data[KEY]}, positions).sweep if KEY in data else None


class Axis(NamedTuple):
    """One key that is swept, and its values with the places where they stand."""

    key: str
    values: tuple[Override, ...]


def axes_of(sweep: SweepKeys, positions: Positions) -> list[Axis]:
    """The keys of the file. Raises InputError: one that no value can be given."""
    found = []
    for key, values in sweep.over.items():
        path = path_of(key)
        if not path or path[0] not in SWEPT:  # what is fetched is fetched once, before there are chains
            text = "write a key of a stage, stages.NAME.KEY, or seed"
            raise failure([Problem((KEY, OVER, key), text, True)], positions)
        places = (positions.value((KEY, OVER, key, at)) for at in range(len(values)))
        found.append(Axis(key, tuple(map(Override, [path] * len(values), values, places))))
    return found


def of_options(options: Sequence[str]) -> list[Axis]:
    """``--sweep KEY=V1,V2`` as keys. Raises InputError: another form."""
    found = []
    for option in options:
        key, mark, texts = option.partition("=")
        path, values = path_of(key), [text.strip() for text in texts.split(",") if text.strip()]
        if not mark or not path or not values:
            raise InputError("write --sweep stages.NAME.KEY=VALUE,VALUE", where=f"--sweep {option}")
        origins = [f"--set {key.strip()}={text}" for text in values]
        given = zip(values, origins, strict=True)
        overrides = (Override(path, option_value(text, origin), Position(origin)) for text, origin in given)
        found.append(Axis(key.strip(), tuple(overrides)))
    return found


def combinations(axes: Sequence[Axis], how: str | HowKeys = "grid") -> list[tuple[Override, ...]]:
    """The values of each chain, in the order of the keys. Raises InputError: too many."""
    lengths = [len(axis.values) for axis in axes]
    if prod(lengths) > MOST and how == "grid":
        raise InputError(f"{prod(lengths)} combinations are more than {MOST}")
    numbers: Sequence[int] = range(prod(lengths))
    if isinstance(how, HowKeys):
        numbers = sorted(random.Random(how.random.seed).sample(numbers, how.random.n))
    chosen = zip(*map(range, lengths), strict=True) if how == "list" else (_digits(one, lengths) for one in numbers)
    return [tuple(axis.values[at] for axis, at in zip(axes, each, strict=True)) for each in chosen]


def _digits(number: int, lengths: Sequence[int]) -> tuple[int, ...]:
    """The combination of this number in the grid, whose last key runs fastest."""
    found = []
    for length in reversed(lengths):
        number, at = divmod(number, length)
        found.append(at)
    return tuple(reversed(found))
