"""What of a run may be published: its export, whole, and the gates that speak against it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.core import seal
from launch.base.errors import InputError
from launch.base.text import suggest
from launch.plan.model import Plan, PlannedStage
from launch.report.markdown import plain
from launch.runs.rundir import Run
from launch.status import results

CARD = "README.md"


@dataclass(frozen=True)
class OpenGate:
    """A critical gate that was not passed. ``name``: evaluation, task and metric; ``said``: what came of it."""

    name: str
    said: str


@dataclass(frozen=True)
class Release:
    """An export that is sealed and sound: its files with their sizes, and the gates that were not passed."""

    stage: str
    output: Path
    files: dict[str, int]
    gates: tuple[OpenGate, ...]

    @property
    def bytes(self) -> int:
        return sum(self.files.values())

    def card(self, despite: Collection[str]) -> str:
        """The card, with the gates despite which this is published."""
        text = (self.output / CARD).read_text(encoding="utf-8")
        named = [one for one in self.gates if one.name in despite]
        if not named:
            return text
        lines = "\n".join(f"- {plain(one.name)}: {plain(one.said)}" for one in named)
        return f"{text.rstrip()}\n\n## Published despite gates that were not passed\n\n{lines}\n"


def of_run(run: Run, plan: Plan, name: str | None = None) -> Release:
    """The export of a run; ``name``: of its stage, where there are several. Every file is read and compared with the
    seal.

    Raises:
        InputError: there is none, it is not sealed, or it is damaged.
    """
    stage = _stage(plan, name)
    store = stage.store(run.workspace)
    if not store.seal.exists():
        raise InputError(f"stage {stage.name!r} of run {run.id} is not sealed", hint=f"overnight status {run.id}")
    try:
        found = seal.verify(store.output, store.seal)
    except seal.SealBroken as error:
        raise InputError(f"{error}", hint=f"overnight resume {run.id}, which makes it again") from error
    files = {one.path: one.size for one in found.files}
    return Release(stage.name, store.output, files, tuple(_gates(run, plan)))


def _stage(plan: Plan, name: str | None) -> PlannedStage:
    exports = [one for one in plan.stages if "export" in one.settings]
    if not exports:
        raise InputError(
            "the run has no export", hint="add a stage {kind: export, checkpoint: NAME, to: [hf]} and submit it"
        )
    names = [one.name for one in exports]
    if name is None and len(exports) > 1:
        raise InputError(f"the run has several exports: {', '.join(names)}", hint=f"--stage {names[-1]}")
    if name is not None and name not in names:
        raise InputError(f"the run has no export {name!r}; {suggest(name, names)}")
    return next(one for one in exports if name in (None, one.name))


def _gates(run: Run, plan: Plan) -> Iterator[OpenGate]:
    """Critical gates that were not passed, of all evaluations of the run; and those that nobody has judged."""
    judged = results.collect(plan, run.workspace)
    for one in judged:
        if one.gate is not None and one.tier != "advisory" and one.verdict != "passed":
            yield OpenGate(f"{one.evaluation}.{one.task}.{one.metric}", f"{one.gate}: {one.verdict}")
    for stage in plan.stages:
        rules = stage.settings.get("gate") or {}
        critical = [name for name, rule in rules.items() if rule.get("tier") != "advisory"]
        if critical and not any(one.evaluation == stage.name and one.gate is not None for one in judged):
            yield from (OpenGate(f"{stage.name}.{name}", "not judged") for name in critical)


def refuse(release: Release, despite: Sequence[str], run: Run) -> None:
    """Raises InputError: a gate was not passed and is not among ``despite``, or one of these was."""
    names = [one.name for one in release.gates]
    for name in despite:
        if name not in names:
            raise InputError(f"no gate {name!r} speaks against it; {suggest(name, names)}", where=f"--despite {name}")
    left = [one for one in release.gates if one.name not in despite]
    if left:
        told = "\n".join(f"  {one.name}: {one.said}" for one in left)
        raise InputError(
            f"gates of run {run.id} were not passed:\n{told}",
            hint="--despite GATE publishes it all the same, and says so in the card",
        )
