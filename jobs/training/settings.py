"""Checks of a stage's settings, shared by the back ends: said before anything heavy is imported."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from jobs.core.verdict import FailureClass

T = TypeVar("T")


class BadSettings(ValueError):
    """A setting of the stage is unknown, of the wrong type or does not fit the others."""

    failure = FailureClass.BAD_CONFIGURATION


def unknown(given: Mapping[str, Any], known: Iterable[str], where: str = "setting") -> None:
    """Refuse names that are not known.

    Raises:
        BadSettings: with the nearest known name.
    """
    names = list(known)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
            raise BadSettings(f"unknown {where} {name!r}; {hint}")


def typed(name: str, value: Any, annotation: str) -> Any:
    """``value`` as the annotated type (``int``, ``float``, ``bool`` or ``str``, perhaps ``| None``; a tuple of texts).

    An int passes for a float, a list for a tuple.

    Raises:
        BadSettings: of another type; nothing is converted from text.
    """
    if value is None and "None" in annotation:
        return None
    wanted: tuple[type, ...] = (str,)
    if annotation.startswith("bool"):
        if not isinstance(value, bool):
            raise BadSettings(f"setting {name!r} must be true or false, not {value!r}")
        return value
    if annotation.startswith("tuple[str"):
        if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
            raise BadSettings(f"setting {name!r} must be a list of texts, not {value!r}")
        return tuple(value)
    if annotation.startswith("int"):
        wanted = (int,)
    elif annotation.startswith("float"):
        wanted = (int, float)
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise BadSettings(f"setting {name!r} must be {annotation}, not {value!r}")
    return float(value) if annotation.startswith("float") else value


def build(cls: type[T], settings: Mapping[str, Any], required: Sequence[str] = ()) -> T:
    """An instance of the dataclass ``cls`` (of plain fields) from what a stage was told.

    Raises:
        BadSettings: an unknown name, a wrong type, or one of ``required`` missing.
    """
    known = {field.name: str(field.type) for field in fields(cls)}  # type: ignore[arg-type]
    unknown(settings, known)
    for name in required:
        if settings.get(name) is None:
            raise BadSettings(f"setting {name!r} is missing")
    return cls(**{name: typed(name, value, known[name]) for name, value in settings.items()})


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that is not among ``allowed``.

    Raises:
        BadSettings: naming what is allowed.
    """
    if value not in allowed:
        raise BadSettings(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def at_least_one(found: object, names: Iterable[str], none: str = "") -> None:
    """Refuse counts below 1; a setting that is None passes.

    Args:
        none: what is added to the message where None may be written, too.

    Raises:
        BadSettings: naming the setting and its value.
    """
    for name in names:
        value = getattr(found, name)
        if value is not None and value < 1:
            raise BadSettings(f"{name} must be at least 1{none}, not {value}")


@dataclass(frozen=True)
class TrainingSettings:
    """What every back end that trains can be told; each adds its own.

    ``steps`` are optimizer steps and ``batch_size`` is the number of examples a step takes over all processes together,
    so a stage learns the same on one node as on four. ``micro_batch_size`` is what one model replica takes in one
    pass; the rest is accumulated. ``save_every`` None: save only when told to stop, or at the end.
    """

    steps: int
    lr: float
    batch_size: int
    sequence_length: int
    micro_batch_size: int | None = None
    warmup_steps: int = 0
    schedule: str = "cosine"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0
    save_every: int | None = None
    keep_saves: int = 2
    precision: str = "fp32"
    threads: int | None = None
    split: str = "train"

    def micro_of(self, replicas: int, what: str = "model replicas") -> int:
        """Examples that one of ``replicas`` takes in one pass.

        Raises:
            BadSettings: the batch does not divide.
        """
        if self.batch_size % replicas:
            raise BadSettings(f"batch_size {self.batch_size} does not divide over {replicas} {what}")
        share = self.batch_size // replicas
        micro = min(self.micro_batch_size or share, share)
        if share % micro:
            raise BadSettings(
                f"micro_batch_size {micro} does not divide {share}, the share of batch_size {self.batch_size} "
                f"of each of {replicas} {what}"
            )
        return micro


REQUIRED = ("steps", "lr", "batch_size", "sequence_length")
"""Settings of ``TrainingSettings`` without a default."""
