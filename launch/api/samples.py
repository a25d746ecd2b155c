"""What a model answered in an evaluation, beside the reference and what the model before it answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, overload

from launch.base.errors import InputError
from launch.base.text import suggest

if TYPE_CHECKING:
    from launch.plan.model import Plan
    from launch.runs.rundir import Run

Moved = Literal["better", "worse", "same"]


@dataclass(frozen=True)
class AnsweredExample:
    """One example. ``before``: the answer in the evaluation that this one is compared with; ``likeness``: of the answer
    to the reference less that of ``before``, from -1 to 1, by difflib; both None where that has no such example.

    All texts are as the model and the data wrote them: escape them before you show them in HTML.
    """

    row: str
    asked: str
    reference: str
    answer: str
    before: str | None
    likeness: float | None

    @property
    def moved(self) -> Moved | None:
        """Whether the answer came nearer to the reference; None: there is none before it."""
        from launch.report.answers import moved

        return None if self.likeness is None else moved(self.likeness)


@dataclass(frozen=True)
class AnsweredExamples(Sequence[AnsweredExample]):
    """The examples of one task in one evaluation, those that got worse first."""

    evaluation: str
    task: str
    compared_with: str | None
    rows: tuple[AnsweredExample, ...]

    def changed(self, how: Literal["better", "worse"]) -> AnsweredExamples:
        """Those that came nearer to the reference, or went away from it."""
        if how not in ("better", "worse"):
            raise InputError(f"changed() knows 'better' and 'worse', not {how!r}")
        kept = tuple(one for one in self.rows if one.moved == how)
        return AnsweredExamples(self.evaluation, self.task, self.compared_with, kept)

    @overload
    def __getitem__(self, index: int) -> AnsweredExample: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[AnsweredExample, ...]: ...
    def __getitem__(self, index: int | slice) -> AnsweredExample | tuple[AnsweredExample, ...]:
        return self.rows[index]

    def __iter__(self) -> Iterator[AnsweredExample]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def of_task(run: Run, plan: Plan, evaluation: str, task: str) -> AnsweredExamples:
    """The answers to a task. Raises InputError: no such evaluation, or it has no answers to that task."""
    from launch.report import answers

    stage = plan.find(evaluation)
    own = answers.of_stage(stage, run.workspace)
    if task not in own:
        known = f"; {suggest(task, list(own))}" if own else ""
        raise InputError(f"{evaluation} of run {run.id} has no answers to {task!r}{known}")
    against = stage.inputs.get("compare_to")
    earlier = answers.of_stage(plan.stage(against.stage), run.workspace).get(task, {}) if against is not None else {}
    rows = []
    for name, sample in own[task].items():
        reference, answer = str(sample.get("reference", "")), str(sample["hypothesis"])
        before = str(earlier[name]["hypothesis"]) if name in earlier else None
        likeness = None if before is None else answers.likeness(reference, before, answer)
        rows.append(AnsweredExample(name, str(sample.get("asked", "")), reference, answer, before, likeness))
    rows.sort(key=lambda one: (one.likeness is None, one.likeness or 0.0, one.row))
    return AnsweredExamples(evaluation, task, against.stage if against is not None and earlier else None, tuple(rows))
