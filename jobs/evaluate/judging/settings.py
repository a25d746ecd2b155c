"""What an evaluation knows about a judge: ``judged_by`` of a task, which the planner writes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.core.settings import setting
from jobs.evaluate.judging.questions import LABELS, RUBRICS
from jobs.training.settings import build


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """``rubric``: None: ours. ``server``, ``model`` and ``key`` as of an evaluation; without a server the judge is the
    input ``judge:NAME`` of the stage. ``calibrate_on``: the data stage of the preference pairs that it is measured on,
    and ``calibrate_limit`` how many of them. ``max_new_tokens``: of what a server says. ``same_base``: the model that
    is judged was trained from the one that judges."""

    form: str = setting("pairwise", choices=tuple(LABELS))
    rubric: str | None = None
    server: str | None = None
    model: str | None = None
    key: str | None = None
    calibrate_on: str | None = None
    calibrate_limit: int = setting(200, at_least=1)
    max_new_tokens: int = setting(16, at_least=1)
    same_base: bool = False

    @classmethod
    def read(cls, name: str, value: Mapping[str, Any]) -> JudgeSettings:
        """The settings, checked.

        Raises:
            BadSettings: names the judge and the setting.
        """
        return build(cls, value, f" of the judge {name!r}")

    @property
    def instructions(self) -> str:
        """The rubric."""
        return RUBRICS[self.form] if self.rubric is None else self.rubric

    def identity(self, content: str) -> str:
        """Digest (hex) of what decides a verdict beside the question. ``content``: of the judge's own checkpoint."""
        who = [self.server, self.model] if self.server is not None else [content]
        told = [who, self.form, self.instructions, self.max_new_tokens if self.server is not None else None]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()
