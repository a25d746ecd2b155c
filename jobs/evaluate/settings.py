"""Settings of an evaluation, checked before the model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.core import server_command
from jobs.core.batches import BATCH_PROMPTS, BATCH_TOKENS
from jobs.core.server_command import READY_SECONDS
from jobs.core.settings import setting
from jobs.core.tasks import DataKeys, kind_of
from jobs.evaluate.gates import AFTER, GateRule
from jobs.evaluate.kinds import KINDS, Task
from jobs.training.interface import needs
from jobs.training.settings import BadSettings, build, unknown


@dataclass(frozen=True)
class EvaluateSettings:
    """What an evaluation can be told.

    ``gate``: metric (or ``task.metric``) -> what it must show; ``missed`` and ``undecided`` say what follows where it
    does not: ``stop`` or ``go``. ``server`` is the address of an OpenAI-compatible server that answers as ``model``,
    ``at_once`` how many requests it gets at a time, and ``key`` the variable of the environment with the key for it.
    ``command`` starts such a server for the checkpoint, which may take ``ready`` seconds to its first answer.
    ``answers`` is a file of answers that are there already.
    ``batch_tokens`` is how many tokens go through the
    model at once, padding included; ``batch_prompts`` is how many answers are generated at once.
    """

    tasks: dict[str, Task]
    gate: dict[str, GateRule] = field(default_factory=dict)
    missed: str = setting("stop", choices=AFTER)
    undecided: str = setting("stop", choices=AFTER)
    seed: int = setting(0, at_least=0)
    threads: int | None = setting(None, at_least=1)
    precision: str = setting("fp32", choices=("fp32", "bf16"))
    server: str | None = None
    model: str | None = None
    key: str | None = None
    at_once: int = setting(8, at_least=1)
    command: tuple[str, ...] | None = None
    ready: float = setting(READY_SECONDS, above=0)
    answers: str | None = None
    batch_tokens: int = setting(BATCH_TOKENS, at_least=1)
    batch_prompts: int = setting(BATCH_PROMPTS, at_least=1)
    resamples: int = setting(10_000, at_least=1)

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> EvaluateSettings:
        """The settings, checked.

        Raises:
            BadSettings: names the setting, its value and what would fit.
            Missing: what the intervals are computed with is not installed; they come last, when the model has run.
        """
        needs("scipy", "an evaluation")
        tasks = settings.get("tasks")
        if not isinstance(tasks, Mapping) or not tasks:
            raise BadSettings("setting 'tasks' must name at least one task")
        found = {"tasks": {name: _task(name, value) for name, value in tasks.items()}}
        gate = {name: GateRule.read(name, value) for name, value in (settings.get("gate") or {}).items()}
        made = build(cls, {**settings, **found, "gate": gate})
        for _, problem in server_command.problems(made.command) if made.command is not None else ():
            raise BadSettings(f"setting 'command': {problem}")
        return made


def _task(name: str, value: Any) -> Task:
    if not isinstance(value, Mapping):
        raise BadSettings(f"task {name!r} must be a mapping, not {value!r}")
    kind = kind_of(name, value)
    if kind is None:
        unknown({str(value.get("task", name)): value}, KINDS, "task")
    assert kind is not None
    given = kind.plain({key: one for key, one in value.items() if key != "task"})
    keys = build(kind.keys, given, f" of task {name!r}")
    if isinstance(keys, DataKeys) and keys.data is None:
        raise BadSettings(f"task {name!r} must name its data")
    task = Task(name, KINDS[kind.name], keys)
    task.kind.metrics(keys)  # says what is wrong in ``measure``, or of a judge
    return task
