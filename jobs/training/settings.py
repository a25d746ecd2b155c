"""Checks of a stage's settings, shared by the back ends: said before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from jobs.core import strict
from jobs.core.epochs import steps_of
from jobs.core.settings import VALIDATION, TrainingKeys, rule_of, setting, validation_problem
from jobs.core.verdict import FailureClass

if TYPE_CHECKING:
    from typing_extensions import Self  # Python 3.10 has none in typing

T = TypeVar("T")


class BadSettings(ValueError):
    """A setting of the stage is unknown, of the wrong type or does not fit the others."""

    failure = FailureClass.BAD_CONFIGURATION


REMOVED = {
    "tensorboard": "overnight tensorboard RUN shows the curves of every back end",
    "wandb_project": "overnight track RUN --to wandb shows every back end there",
}
"""Settings of versions before, and what there is in their place."""


FAULTS = "mishap"
"""How settings of the toy back end begin that make it fail on purpose: no user means one."""


def unknown(given: Mapping[str, Any], known: Iterable[str], where: str = "setting") -> None:
    """Refuse names that are not known.

    Raises:
        BadSettings: with the nearest known name.
    """
    names = list(known)
    for name in given:
        if name not in names:
            import difflib  # only when something is wrong

            proposed = [one for one in names if not one.startswith(FAULTS)]
            near = difflib.get_close_matches(name, proposed, n=1)
            hint = REMOVED.get(name) or (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(proposed)}")
            raise BadSettings(f"unknown {where} {name!r}; {hint}")


def build(cls: type[T], settings: Mapping[str, Any], of: str = "") -> T:
    """An instance of a dataclass of settings; ``of`` says whose they are. Nothing is converted from text.

    Raises:
        BadSettings: an unknown name, one without a default missing, a wrong type, or a value that its ``Rule`` refuses.
    """
    kinds, required = strict.shape(cast(Any, cls))
    unknown(settings, kinds, f"setting{of}")
    for name in required:
        if settings.get(name) is None:
            raise BadSettings(f"setting {name!r}{of} is missing")
    rules = {field.name: rule_of(field) for field in fields(cast(Any, cls))}
    found = {}
    for name, value in settings.items():
        keys = rules[name].keys
        try:
            if keys is not None and isinstance(value, Mapping):
                found[name] = build(keys, value, f" of {name}")
            else:
                found[name] = strict.convert(kinds[name], value, f"{name}{of}")
        except ValueError as error:
            raise BadSettings(str(error)) from error
        problem = None if value is None else rules[name].problem(found[name])
        if problem is not None:
            raise BadSettings(f"{name}{of} {problem}")
    return cls(**found)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(TrainingKeys):
    """The settings of a stage in a back end that trains. ``split``: which part of the data it trains on."""

    NO_VALIDATION: ClassVar[str] = "this back end does not validate while it trains"
    """Why the back end refuses the settings of validation; empty where it has them."""

    split: str = "train"

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Self:
        """The settings, checked.

        Raises:
            BadSettings: naming the setting, its value and what would fit.
        """
        found = build(cls, {name: value for name, value in settings.items() if not (name == "steps" and value is None)})
        found.check()
        return found

    def check(self) -> None:
        """Refuse values that do not fit each other.

        Raises:
            BadSettings: naming them.
        """
        if not self.steps and self.epochs is None:
            raise BadSettings("setting 'steps' is missing (or write epochs in its place)")
        if self.steps and self.epochs is not None:
            raise BadSettings(
                f"steps {self.steps} and epochs {self.epochs:g} say the same thing twice: leave one of them out"
            )
        given = [
            entry.name
            for entry in fields(self)
            if entry.name in VALIDATION and getattr(self, entry.name) != entry.default
        ]
        if given and self.NO_VALIDATION:
            raise BadSettings(f"{given[0]}: {self.NO_VALIDATION}: leave it out")
        if self.steps and self.warmup_steps > self.steps:
            raise BadSettings(f"warmup_steps {self.warmup_steps} is more than steps {self.steps}")
        if self.keep_every is not None and self.keep_every % (self.save_every or self.keep_every + 1):
            raise BadSettings(f"keep_every {self.keep_every} must be a multiple of save_every ({self.save_every})")
        problem = validation_problem(self.steps, self.validate_every, self.early_stopping, self.select)
        if problem is not None:
            raise BadSettings(": ".join(problem))

    def counted(self, examples: int) -> Self:
        """These settings with the ``steps`` that take ``examples`` as often as ``epochs`` says.

        Raises:
            BadSettings: settings that do not fit so many steps.
        """
        if self.epochs is None:
            return self
        found = replace(self, steps=steps_of(examples, self.batch_size, self.epochs), epochs=None)
        try:
            found.check()
        except BadSettings as error:
            raise BadSettings(f"{error} (epochs {self.epochs:g} of {examples} examples)") from error
        return found

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


@dataclass(frozen=True, kw_only=True)
class LongRows:
    """Of a back end that can leave out rows that are longer than ``sequence_length``."""

    too_long: str = setting("error", choices=("error", "skip"))


@dataclass(frozen=True, kw_only=True)
class FallingRate(TrainingSettings):
    """Of a back end whose learning rate follows ``jobs.training.schedule``: down to ``min_lr``, from the warm-up on or,
    with ``decay_steps``, over so many last steps (WSD)."""

    min_lr: float = setting(0.0, at_least=0)
    decay_steps: int | None = setting(None, at_least=1)

    def check(self) -> None:
        super().check()
        if self.min_lr > self.lr:
            raise BadSettings(f"min_lr {self.min_lr:g} is more than lr {self.lr:g}")
        if self.schedule == "constant" and (self.min_lr or self.decay_steps):
            raise BadSettings("min_lr and decay_steps are of a rate that falls: write schedule: linear or cosine")
        if self.decay_steps and self.steps and self.warmup_steps + self.decay_steps > self.steps:
            raise BadSettings(
                f"warmup_steps {self.warmup_steps} and decay_steps {self.decay_steps} are more than steps {self.steps}"
            )


@dataclass(frozen=True, kw_only=True)
class LoraKeys:
    """Of a back end that can train adapters (LoRA) beside frozen weights.

    ``lora_rank``: train adapters of that rank; ``lora_alpha`` over the rank scales them (None: as much as the rank);
    ``lora_targets`` are the layers that get one: of ``LAYERS`` where the back end knows them, else of the model (() is
    all linear ones).
    """

    LAYERS: ClassVar[tuple[str, ...]] = ()

    lora_rank: int | None = setting(None, at_least=1)
    lora_alpha: int | None = setting(None, at_least=1)
    lora_dropout: float = setting(0.0, at_least=0, below=1)
    lora_targets: tuple[str, ...] = ()

    @property
    def alpha(self) -> int | None:
        """``lora_alpha``, or the rank."""
        return self.lora_alpha or self.lora_rank

    def check_lora(self) -> None:
        """Refuse keys of adapters without adapters, and layers that cannot have one.

        Raises:
            BadSettings: naming them.
        """
        if self.lora_rank is None:
            for field in fields(self):
                if field.name.startswith("lora_") and getattr(self, field.name) != field.default:
                    raise BadSettings(f"{field.name} is for adapters: write lora_rank, too (16, say), or leave it out")
            return
        if self.LAYERS and not self.lora_targets:
            raise BadSettings(f"lora_targets is empty: leave it out for all of {', '.join(self.LAYERS)}")
        for name in self.lora_targets:
            if self.LAYERS and name not in self.LAYERS:
                raise BadSettings(f"each of lora_targets must be one of {', '.join(self.LAYERS)}, not {name!r}")


@dataclass(frozen=True, kw_only=True)
class KeptLoraKeys(LoraKeys):
    """Of a back end that can also keep the adapters alone. ``output``: whole weights, or the adapters."""

    output: str = setting("merged", choices=("merged", "adapter"))

    def check_lora(self) -> None:
        super().check_lora()
        if self.lora_rank is None and self.output == "adapter":
            raise BadSettings("output: adapter is for adapters: write lora_rank, too (16, say), or leave it out")


@dataclass(frozen=True, kw_only=True)
class ParallelSettings(TrainingSettings):
    """Of a back end that splits one model over ``tensor_parallel`` x ``context_parallel`` processes."""

    tensor_parallel: int = setting(1, at_least=1)
    context_parallel: int = setting(1, at_least=1)
    sequence_parallel: bool = False

    def check(self) -> None:
        super().check()
        if self.sequence_parallel and self.tensor_parallel < 2:
            raise BadSettings("sequence_parallel needs tensor_parallel of at least 2")

    def micro(self, world: int) -> int:
        """Sequences that one model replica takes in one pass.

        Raises:
            BadSettings: the processes or the batch do not divide.
        """
        size = self.tensor_parallel * self.context_parallel
        if world % size:
            raise BadSettings(f"tensor_parallel x context_parallel = {size} does not divide {world} processes")
        return self.micro_of(world // size)
