"""The settings of training: type, default and valid values of each, for the pipeline file and for every back end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Rule:
    """Which values are valid: numbers within bounds, or one of ``choices``. ``keys``: the dataclass of a mapping."""

    at_least: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    keys: type[Any] | None = None

    def problem(self, value: Any) -> str | None:
        """Why ``value`` is invalid, without its name; None where it is valid."""
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(self.choices)}, not {value!r}"
        if self.keys is not None:
            return None  # of each of its own keys
        if isinstance(value, float) and not math.isfinite(value):
            return f"must be a finite number, not {value}"
        if self.at_least is not None and value < self.at_least:
            return f"must be at least {self.at_least:g}, not {value}"
        if self.above is not None and value <= self.above:
            return f"must be above {self.above:g}, not {value}"
        if self.below is not None and value >= self.below:
            return f"must be below {self.below:g}, not {value}"
        return None


def setting(default: Any = MISSING, **rule: Any) -> Any:
    """A field of a dataclass of settings, with its ``Rule``; without a default it is required."""
    return field(default=default, metadata={"rule": Rule(**rule)})


def rule_of(entry: Field[Any]) -> Rule:
    """The rule of a field; one that allows every value where none was declared."""
    found: Rule = entry.metadata.get("rule", Rule())
    return found


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """When training ends before its steps: after ``patience`` validations in a row of which none is better than the
    best before them by more than ``min_change``, and not before step ``min_steps``."""

    patience: int = setting(at_least=1)
    min_change: float = setting(0.0, at_least=0)
    min_steps: int = setting(0, at_least=0)


@dataclass(frozen=True, kw_only=True)
class TrainingKeys:
    """What every back end that trains can be told; each adds its own.

    ``steps`` are optimizer steps; with ``epochs`` in their place they are counted when the stage starts. ``batch_size``
    is the number of examples a step takes over all processes together, so a stage learns the same on one node as on
    four. ``micro_batch_size`` is what one model replica takes in one pass; the rest is accumulated. ``save_every``
    None: about eight saves in an allocation, at least ten minutes apart. Saves of steps that are multiples of
    ``keep_every`` stay, also when the stage has ended; the others go, but for the newest ``keep_saves``.

    ``validate_every`` so many steps, and after the last one, the loss on the validation split is taken; None: never.
    ``select``: whether the finished model is that of the last step, or of the step with the least such loss.
    """

    steps: int = setting(0, at_least=1)
    epochs: float | None = setting(None, above=0)
    lr: float = setting(above=0)
    batch_size: int = setting(8, at_least=1)
    micro_batch_size: int | None = setting(None, at_least=1)
    sequence_length: int = setting(512, at_least=1)
    warmup_steps: int = setting(0, at_least=0)
    schedule: str = setting("cosine", choices=("constant", "linear", "cosine"))
    weight_decay: float = setting(0.0, at_least=0)
    max_grad_norm: float = setting(1.0, above=0)
    seed: int = setting(1, at_least=0)
    precision: str = setting("fp32", choices=("fp32", "bf16"))
    save_every: int | None = setting(None, at_least=1)
    keep_saves: int = setting(2, at_least=1)
    keep_every: int | None = setting(None, at_least=1)
    validate_every: int | None = setting(None, at_least=1)
    early_stopping: EarlyStopping | None = field(default=None, metadata={"rule": Rule(keys=EarlyStopping)})
    select: str = setting("last", choices=("last", "best"))
    threads: int | None = setting(None, at_least=1)


VALIDATION = ("validate_every", "early_stopping", "select")
"""Settings of validation."""


def decides(settings: Mapping[str, Any]) -> bool:
    """Whether validations decide what a stage with these settings makes."""
    return bool(settings.get("early_stopping")) or settings.get("select") == "best"


def validation_problem(
    steps: int | None, every: int | None, early: EarlyStopping | None, select: str
) -> tuple[str, str] | None:
    """The setting of validation that does not fit the others, and why; None where all fit."""
    if every is None and early is not None:
        return "early_stopping", "needs validate_every, too: the steps from one validation to the next"
    if every is None and select == "best":
        return "select", "best needs validate_every, too: the steps from one validation to the next"
    if early is not None and steps and early.min_steps >= steps:
        return "early_stopping", f"min_steps {early.min_steps} must be less than steps {steps}"
    return None


@dataclass(frozen=True, kw_only=True)
class DpoKeys:
    """What DPO can be told beside. ``beta`` weighs how far the model may go from where it started."""

    beta: float = setting(0.1, above=0)


BETAS = (0.1, 0.5)
"""Where ``beta`` of DPO usually lies; another value is a note, no error."""

RATES = {"cpt": (1e-5, 5e-5), "sft": (5e-6, 2e-5), "dpo": (1e-6, 1e-5)}
"""Kind of training -> where ``lr`` usually lies, where all weights of a language model are trained."""


def rate_note(kind: str, lr: float) -> str | None:
    """What to say of an ``lr`` that is probably a slip; None where it is a usual one, or nothing is known."""
    least, most = RATES.get(kind, (lr, lr))
    if least <= lr <= most:
        return None
    effect = "the model may learn little" if lr < least else "it may forget what it knew"
    return f"lr {lr:g} is outside of {least:g} to {most:g}, where it usually lies for {kind}: {effect}"


def beta_note(beta: float) -> str | None:
    """What to say of a ``beta`` that is probably a slip; None where it is a usual one."""
    least, most = BETAS
    if least <= beta <= most:
        return None
    effect = "the model may move far from where it started" if beta < least else "the model hardly learns"
    return f"beta {beta:g} is outside of {least:g} to {most:g}, where it usually lies: {effect}"
