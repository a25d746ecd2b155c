"""What a training stage reported, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

from launch.base.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from launch.plan.model import Plan
    from launch.runs.rundir import Run


@dataclass(frozen=True)
class TrainingCurve(Sequence["Mapping[str, float]"]):
    """One row a step, rising, joined over all starts: ``step``, ``time`` (epoch seconds) and what the back end
    reported, such as ``loss``, ``lr``, ``tokens_per_second``, ``validation_loss``."""

    stage: str
    rows: tuple[Mapping[str, float], ...]

    def column(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of the rows that have ``name``."""
        return [(int(row["step"]), row[name]) for row in self.rows if name in row]

    def frame(self) -> Any:
        """The rows as a pandas.DataFrame. Raises InputError: pandas is not installed."""
        try:
            import pandas
        except ImportError as error:
            raise InputError("pandas is not installed", hint="pip install pandas") from error
        return pandas.DataFrame([dict(row) for row in self.rows])

    @overload
    def __getitem__(self, index: int) -> Mapping[str, float]: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Mapping[str, float], ...]: ...
    def __getitem__(self, index: int | slice) -> Mapping[str, float] | tuple[Mapping[str, float], ...]:
        return self.rows[index]

    def __iter__(self) -> Iterator[Mapping[str, float]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def of_stage(run: Run, plan: Plan, stage: str) -> TrainingCurve:
    """The curve of a stage. Raises InputError: there is no such stage, or it has reported no step."""
    from launch.status import curves

    name = plan.find(stage).name
    paths = curves.of_run(run, plan).get(name)
    if paths is None:
        raise InputError(f"stage {name!r} of run {run.id} has reported no step", hint=f"overnight status {run.id}")
    reports = curves.joined(chain.from_iterable(map(curves.steps, paths)))
    rows = ({"step": float(one.step), "time": one.time, **one.metrics} for one in reports)
    return TrainingCurve(name, tuple(MappingProxyType(row) for row in rows))
