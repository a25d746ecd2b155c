"""The stages of a pipeline file as typed values: data, training, and what they read from; see ``measuring``, too.

``convert`` is a kind, too, but no user writes it: the planner inserts it where formats differ.
"""

import re
from dataclasses import fields
from typing import Annotated, Any, Literal

from jobs.core.settings import VALIDATION, DpoKeys, EarlyStopping, TrainingKeys, rule_of
from launch.base.text import suggest
from launch.config.allowed import allows
from launch.config.document.typed import Key, StrictModel, TaggedBy, key
from launch.config.export import ExportStage
from launch.config.fields import (
    Count,
    Line,
    ModuleName,
    NotNegative,
    Slug,
    at_least,
    below,
    matching,
    not_empty,
)
from launch.config.kinds import FETCHED
from launch.config.measuring import ChooseStage, CurveStage, EvaluateStage
from launch.config.stage_keys import StageKeys

_HUB = re.compile(r"hf:[\w.-]+/[\w.-]+(?:@[\w./-]+)?\Z", re.ASCII)
_PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*\Z")


def _base(text: str) -> str:
    """Refuse a malformed reference; what it refers to is the business of ``overnight fetch``."""
    if text.startswith("pypi:") and not _PIN.match(text.removeprefix("pypi:")):
        raise ValueError(f"{text!r}: write pypi:NAME==VERSION with an exact version")
    if text.startswith("hf:") and not _HUB.match(text):
        raise ValueError(f"{text!r}: write hf:ORG/NAME or hf:ORG/NAME@REVISION")
    return text


allows(_base, pattern=r"^(?!pypi:(?!.+==.+$))(?!hf:(?![\w.-]+/[\w.-]+(?:@[\w./-]+)?$))")


def _not_reserved(name: str) -> str:
    if name == FETCHED:
        raise ValueError(f"{FETCHED!r} means the base model; call the stage something else")
    if name == "checkpoint":  # the role of a stage's input; evaluations have inputs named after data stages beside it
        raise ValueError(f"{name!r} has a meaning of its own; call the stage something else")
    return name


allows(_not_reserved, not_={"enum": [FETCHED, "checkpoint"]})


def _with_mark(text: str) -> str:
    if text.count("{source}") != 1:
        raise ValueError(f"{text!r} must have {{source}} in it once")
    return text


allows(_with_mark, pattern=r"\{source\}")
_TRAINING = {entry.name: entry for keys in (TrainingKeys, DpoKeys, EarlyStopping) for entry in fields(keys)}


def _training(name: str, **instead: Any) -> Any:
    """A setting of training with the check and the default that every back end has, or the default ``instead``."""
    rule = rule_of(_TRAINING[name])

    def check(value: Any) -> Any:
        if rule.choices and value not in rule.choices:
            raise ValueError(f"got {value!r}; {suggest(str(value), rule.choices)}")
        if value is not None and (problem := rule.problem(value)):
            raise ValueError(problem)
        return value

    return Key(**{"default": _TRAINING[name].default, **instead}, check=allows(check, **rule.keywords()))


class ModelKeys(StrictModel):
    """``model:``. ``base`` is ``pypi:NAME==VERSION``, ``hf:ORG/NAME[@REVISION]`` or a path."""

    base: Annotated[Line, _base]


Pin = Annotated[Line, matching(_PIN, "is not an exact version: write NAME==VERSION")]


class GettextSource(StrictModel):
    """Translations in the wheels of PyPI packages."""

    type: Literal["gettext"]
    packages: Annotated[tuple[Pin, ...], not_empty]
    target: Annotated[tuple[Line, ...], not_empty]
    contrast: tuple[Line, ...] = ()


class PathSource(StrictModel):
    """The user's own file or directory."""

    type: Literal["path"]
    path: Line


class WordProblemsSource(StrictModel):
    """Word problems that are made from templates, ``count`` of them, each in all ``languages``: of at most so many
    ``steps``, with numbers up to ``largest``. Sources in other languages have the same problems in the same splits."""

    type: Literal["word_problems"]
    languages: Annotated[tuple[Literal["en", "es", "ko"], ...], not_empty]
    count: Count = 2000
    steps: Count = 2
    largest: Annotated[int, at_least(6)] = 20


class BenchmarkSource(StrictModel):
    """Rows of benchmarks: of a PyPI package, which is read and not run, of a hub's data set, or the user's own files.
    ``sets``: what tasks call parts of them, and where these lie; of some packages they are known."""

    type: Literal["benchmark"]
    origin: Annotated[Line, _base] = key(alias="from")
    sets: dict[Slug, Line] = key(default_factory=dict)


SourceKeys = Annotated[GettextSource | PathSource | WordProblemsSource | BenchmarkSource, TaggedBy("type")]


class SplitKeys(StrictModel):
    """Parts that are held out; the rest is for training. The other keys: see data_prep.common.settings."""

    validation: Annotated[NotNegative, below(1)] = 0.05
    test: Annotated[NotNegative, below(1)] = 0.15
    existing: Literal["keep", "pool"] | None = None
    config: Line | None = None
    names: dict[Literal["train", "validation", "test"], Line | tuple[Line, ...]] | None = None
    group: Literal["file", "document"] | None = None

    def _check(self) -> None:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together leave nothing to train on")


class Limit(StrictModel):
    """The most rows (of a corpus: documents) of each split; None: all."""

    train: Count | None = None
    validation: Count | None = None
    test: Count | None = None


class _DataStage(StageKeys):
    source: Line = key(alias="from")
    split: SplitKeys = SplitKeys()
    min_chars: Count = 1
    max_chars: Count | None = None
    limit: Limit = Limit()
    placeholders: Literal["drop", "keep"] = "drop"
    reject_words: tuple[Line, ...] = ()
    prepare: dict[Line, Any] | None = None  # checked by data_prep: see launch.config.data_settings


class CorpusStage(_DataStage):
    """Documents for continued pre-training."""

    kind: Literal["corpus"]
    document_chars: Count = 2000


class InstructionsStage(_DataStage):
    """Prompts with their completions. ``prompt``: None keeps the prompts of the user's rows."""

    kind: Literal["instructions"]
    prompt: Annotated[str, _with_mark] | None = None


class PreferencesStage(_DataStage):
    """Prompts with a chosen and a rejected answer."""

    kind: Literal["preferences"]
    prompt: Annotated[str, _with_mark] | None = None


class EarlyStoppingKeys(StrictModel):
    """When training ends before its steps: ``jobs.core.settings.EarlyStopping``."""

    patience: int = _training("patience")
    min_change: float = _training("min_change")
    min_steps: int = _training("min_steps")


class _TrainingStage(StageKeys):
    """``batch_size`` counts rows over all processes; ``options`` are settings that only the back end knows. The steps
    of ``epochs`` are counted when the stage starts."""

    backend: ModuleName = "trl"
    checkpoint: Line
    data: Line
    steps: int | None = _training("steps", default=None)
    epochs: float | None = _training("epochs")
    lr: float = _training("lr")
    batch_size: int = _training("batch_size")
    micro_batch_size: int | None = _training("micro_batch_size")
    sequence_length: int = _training("sequence_length")
    warmup_steps: int = _training("warmup_steps")
    schedule: str = _training("schedule")
    weight_decay: float = _training("weight_decay")
    max_grad_norm: float = _training("max_grad_norm")
    precision: str = _training("precision")
    save_every: int | None = _training("save_every")
    keep_saves: int = _training("keep_saves")
    keep_every: int | None = _training("keep_every")
    validate_every: int | None = _training("validate_every")
    early_stopping: EarlyStoppingKeys | None = _training("early_stopping")
    select: str = _training("select")
    threads: int | None = _training("threads")
    options: dict[Line, Any] = key(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """With ``steps`` or ``epochs``, whichever the stage says, and what it says of validation."""
        found = super().settings()
        del found["epochs" if self.epochs is None else "steps"]
        for name in (*VALIDATION, "keep_every"):
            if found[name] == _TRAINING[name].default:
                del found[name]
        return found

    def batch_problem(self, nodes: int, processes_per_node: int) -> str | None:
        """Why the batch cannot be shared out over these processes, or None. The profile may set the numbers."""
        world = nodes * processes_per_node
        shape = f"{nodes} nodes x {processes_per_node} processes"
        if self.batch_size % world:
            return f"batch_size {self.batch_size} is not divisible by {shape} = {world}"
        share = self.batch_size // world
        if self.micro_batch_size is not None and share % min(self.micro_batch_size, share):
            return f"{share} rows per process ({shape}) are not divisible by micro_batch_size {self.micro_batch_size}"
        return None


class CptStage(_TrainingStage):
    """Continued pre-training on a corpus."""

    kind: Literal["cpt"]


class SftStage(_TrainingStage):
    """Supervised fine-tuning on instructions."""

    kind: Literal["sft"]


class DpoStage(_TrainingStage):
    """Direct preference optimisation."""

    kind: Literal["dpo"]
    beta: float = _training("beta")


DataStage = CorpusStage | InstructionsStage | PreferencesStage
TrainingStage = CptStage | SftStage | DpoStage
Stage = Annotated[DataStage | TrainingStage | EvaluateStage | CurveStage | ChooseStage | ExportStage, TaggedBy("kind")]
StageName = Annotated[Slug, _not_reserved]
