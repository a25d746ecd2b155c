"""Stages of a pipeline file that measure models: an evaluation, a curve over saves, and the choice of one of them."""

import re
from dataclasses import MISSING, fields
from typing import Annotated, Any, Literal

from jobs.core import server_command
from jobs.core.server_command import READY_SECONDS
from jobs.core.tasks import kind_of
from launch.config.allowed import allows
from launch.config.document.positions import Problem
from launch.config.document.typed import Before, Faults, StrictModel, key
from launch.config.fields import Count, Line, ModuleName, NotNegative, above, matching, not_empty, one_entry
from launch.config.stage_keys import StageKeys, with_options


def _names_as_mapping(value: Any) -> Any:
    """``tasks: [perplexity]`` says the same as ``tasks: {perplexity: {}}``."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return {name: {} for name in value}
    if isinstance(value, dict):
        return {name: {} if task is None else task for name, task in value.items()}
    return value


_PERCENT = re.compile(r"\d+(\.\d+)?%\Z", re.ASCII)
Allowed = NotNegative | Annotated[str, matching(_PERCENT, "is not a share: write 5%")]


class GateKeys(StrictModel):
    """What a metric must show: one of the five. ``must``, ``may_fall`` and ``may_rise`` (how far at the most) look at
    its change against ``compare_to``, ``at_least`` and ``at_most`` at its value."""

    must: Literal["rise", "fall"] | None = None
    may_fall: Allowed | None = None
    may_rise: Allowed | None = None
    at_least: float | None = None
    at_most: float | None = None
    tier: Literal["critical", "advisory"] = "critical"

    def _check(self) -> None:
        if sum(value is not None for value in self._rules().values()) != 1:
            raise ValueError(f"write one of {', '.join(self._rules())}")

    def _rules(self) -> dict[str, Any]:
        names = ("must", "may_fall", "may_rise", "at_least", "at_most")
        return {name: getattr(self, name) for name in names}

    @property
    def compares(self) -> bool:
        """Whether it needs an earlier evaluation."""
        return self.at_least is None and self.at_most is None

    def settings(self) -> dict[str, Any]:
        """As the stage gets it: what is said, and the tier where it is not ``critical``."""
        found = {name: value for name, value in self._rules().items() if value is not None}
        return found if self.tier == "critical" else {**found, "tier": self.tier}


def _task(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The keys of a task with the defaults of its kind, and the kind where its name does not say it."""
    kind = kind_of(name, given)
    if kind is None:
        return dict(given)
    defaults = {key.name: key.default for key in fields(kind.keys) if key.default not in (None, MISSING, "")}
    said = {"task": kind.name} if kind.name != name else {}
    return defaults | {key: value for key, value in kind.plain(given).items() if value is not None} | said


def address(text: str) -> str:
    """The address of a server, as it is written. Raises ValueError: it is none."""
    if not text.startswith(("http://", "https://")):
        raise ValueError(f"{text!r}: write http://HOST:PORT/v1 or https://...")
    return text


allows(address, pattern="^https?://")


Tasks = Annotated[dict[Line, dict[Line, Any]], Before(_names_as_mapping), not_empty]


def settings_of(tasks: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The tasks as the job side reads them."""
    return {name: with_options(_task(name, task)) for name, task in tasks.items()}


class ServerKeys(StrictModel):
    """A server that the stage starts and stops: its ``command``, and the seconds until it is ``ready``."""

    command: tuple[Line, ...]
    ready: Annotated[float, above(0)] = READY_SECONDS

    def _check(self) -> None:
        problems = [
            Problem(("command",) if place is None else ("command", place), text)
            for place, text in server_command.problems(self.command)
        ]
        if problems:
            raise Faults(problems)


class EngineKeys(StrictModel):
    """What runs the model: this toolkit, in a ``precision`` and in batches of so many tokens or prompts; or an
    OpenAI-compatible ``server`` that answers as ``model``, ``at_once`` so many requests, with the secret ``key``: one
    that is there, or one that the stage starts."""

    precision: Literal["fp32", "bf16"] | None = None
    batch_tokens: Count | None = None
    batch_prompts: Count | None = None
    server: Annotated[Line, address] | ServerKeys | None = None
    model: Line | None = None
    key: Line | None = None
    at_once: Count | None = None


class MeasuringStage(StageKeys):
    """A stage that runs ``tasks``: their keys are those of the kinds in ``jobs.core.tasks``."""

    backend: ModuleName = "trl"
    tasks: Tasks
    compare_to: Line | None = None
    engine: EngineKeys = EngineKeys()
    threads: Count | None = None
    options: dict[Line, Any] = key(default_factory=dict)

    @property
    def measured(self) -> str | None:
        """The stage whose models are measured, or ``base``; None: what a server has."""
        return None

    def settings(self) -> dict[str, Any]:
        found = super().settings()
        del found["engine"]
        engine = {name: value for name, value in self.engine.plain().items() if value is not None}
        if isinstance(self.engine.server, ServerKeys):
            engine |= engine.pop("server")
        return {**found, **engine, "tasks": settings_of(self.tasks)}


class EvaluateStage(MeasuringStage):
    """Measure a checkpoint. ``gate``: what a
    ``metric`` or ``task.metric`` must show; ``missed`` and ``undecided``: whether the chain stops where one does not
    show it, or where its contrary is not shown either."""

    kind: Literal["evaluate"]
    checkpoint: Line | None = None
    gate: dict[Line, GateKeys] = key(default_factory=dict)
    missed: Literal["stop", "go"] = "stop"
    undecided: Literal["stop", "go"] = "stop"

    @property
    def measured(self) -> str | None:
        return self.checkpoint

    def settings(self) -> dict[str, Any]:
        found = super().settings()
        for name in ("missed", "undecided"):
            if found[name] == "stop":
                del found[name]
        return {**found, "gate": {name: rule.settings() for name, rule in self.gate.items()}}


class CurveStage(MeasuringStage):
    """Measure every ``every``-th save of the stage ``checkpoints``, and its finished model; against the model that it
    began with, or ``compare_to``."""

    kind: Literal["curve"]
    checkpoints: Line
    every: Count = 1

    @property
    def measured(self) -> str | None:
        return self.checkpoints

    def settings(self) -> dict[str, Any]:
        found = super().settings()
        for name, task in found["tasks"].items():
            if "split" in task and "split" not in self.tasks[name]:  # what is chosen by is not what is reported
                task["split"] = "validation"
        return found


_one_metric = one_entry("write one metric: {TASK.METRIC: lower} or higher")


class ChooseStage(StageKeys):
    """The model of one point of a curve (``from``): the best one ``by`` a metric of those that keep to ``subject_to``,
    or an earlier one that is as good as far as the examples show."""

    kind: Literal["choose"]
    backend: ModuleName = "trl"
    source: Line = key(alias="from")
    by: Annotated[dict[Line, Literal["lower", "higher"]], _one_metric]
    subject_to: dict[Line, GateKeys] = key(default_factory=dict)
    threads: Count | None = None
    options: dict[Line, Any] = key(default_factory=dict)
