"""Settings of an evaluation, checked before the model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.evaluate.metrics import TASKS
from jobs.training.settings import BadSettings, typed, unknown

MUST = ("rise", "fall")


@dataclass(frozen=True)
class TaskSettings:
    """One task. ``data`` names the input with the examples; ``max_new_tokens`` bounds a generated answer."""

    data: str
    split: str = "test"
    limit: int | None = None
    max_new_tokens: int = 64


@dataclass(frozen=True)
class EvaluateSettings:
    """What an evaluation can be told.

    ``gate``: metric (or ``task.metric``) -> ``rise`` or ``fall``. ``batch_tokens`` is how many tokens go through the
    model at once, padding included; ``batch_prompts`` is how many answers are generated at once.
    """

    tasks: dict[str, TaskSettings]
    gate: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    threads: int | None = None
    batch_tokens: int = 2048
    batch_prompts: int = 64
    resamples: int = 2000

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> EvaluateSettings:
        """Check and build.

        Raises:
            BadSettings: names the setting, its value and what would fit.
        """
        unknown(settings, cls.__dataclass_fields__)
        tasks = settings.get("tasks")
        if not isinstance(tasks, Mapping) or not tasks:
            raise BadSettings("setting 'tasks' must name at least one task")
        unknown(tasks, TASKS, "task")
        numbers = {
            name: typed(name, settings[name], str(cls.__dataclass_fields__[name].type))
            for name in ("seed", "threads", "batch_tokens", "batch_prompts", "resamples")
            if name in settings
        }
        for name, value in numbers.items():
            if value is not None and value < (0 if name == "seed" else 1):
                raise BadSettings(f"{name} must be above 0, not {value}")
        return cls(
            tasks={name: _task(name, value) for name, value in tasks.items()},
            gate={name: _rule(name, value) for name, value in (settings.get("gate") or {}).items()},
            **numbers,
        )


def _task(name: str, value: Any) -> TaskSettings:
    fields = TaskSettings.__dataclass_fields__
    if not isinstance(value, Mapping) or "data" not in value:
        raise BadSettings(f"task {name!r} must name its data, not {value!r}")
    unknown(value, fields, f"setting of task {name!r}")
    task = TaskSettings(**{key: typed(f"{name}.{key}", entry, str(fields[key].type)) for key, entry in value.items()})
    if (task.limit is not None and task.limit < 1) or task.max_new_tokens < 1:
        raise BadSettings(f"task {name!r}: limit and max_new_tokens must be at least 1")
    return task


def _rule(name: str, value: Any) -> str:
    must = value.get("must") if isinstance(value, Mapping) else None
    if must not in MUST:
        raise BadSettings(f"gate {name!r} must be {{must: rise}} or {{must: fall}}, not {value!r}")
    return str(must)
