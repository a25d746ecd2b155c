"""Field types that both kinds of files use, and durations.

Scalars are strict: ``"4"`` is not a number and ``4`` is not text, because a silent conversion is how an account
``0123`` turns into 123. Text that may end up in a script line holds no line break or other control character.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Self

from launch.base.text import control_character
from launch.config.allowed import allows, pattern_of
from launch.config.document.typed import StrictModel, fields_of, text

_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")
_DURATION = re.compile(
    r"(?:(?P<days>\d{1,4})-(?P<h>\d{1,2})(?::(?P<m>\d{1,2})(?::(?P<s>\d{1,2}))?)?"
    r"|(?P<a>\d{1,6})(?::(?P<b>\d{1,2})(?::(?P<c>\d{1,2}))?)?)\Z",
    re.ASCII,
)
_MEMORY = re.compile(r"\d{1,12}[KMGT]?\Z", re.ASCII)


def one_line(value: str) -> str:
    """The value; refused is what could start a new line of a script or hide in one."""
    if found := control_character(value):
        raise ValueError(f"{value[:40]!r} has a line break or control character ({found})")
    return value


def matching(pattern: re.Pattern[str], problem: str) -> Callable[[Any], Any]:
    """A check that text matches; what its error says of other text."""

    def check(value: str) -> str:
        if not pattern.match(value):
            raise ValueError(f"{value!r} {problem}")
        return value

    return allows(check, pattern=pattern_of(pattern))


slug = matching(_SLUG, "is not a name: a-z, 0-9 and -, not - first, at most 32")
"""Check a name that becomes part of job names and directories."""


class Duration(str):
    """A Slurm duration as written: ``M``, ``M:SS``, ``H:MM:SS``, ``D-HH``, ``D-HH:MM`` or ``D-HH:MM:SS``. Compare
    ``seconds``: equal durations may have different texts. Raises ValueError: another form, or zero (for Slurm no
    limit)."""

    seconds: int

    def __new__(cls, text: str) -> Self:
        made = super().__new__(cls, text)
        made.seconds = _seconds(text)
        return made

    @property
    def minutes(self) -> int:
        """As ``--time`` takes it, rounded up."""
        return -(-self.seconds // 60)

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """What ``read`` takes, as JSON Schema."""
        return {"type": "string", "pattern": pattern_of(_DURATION)}

    @classmethod
    def read(cls, value: Any) -> Self:
        """As a file has it. Raises ValueError: no text."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise ValueError(f'a duration is text: write "{value}" for {value} minutes, or H:MM:SS')
        return cls(text(value))


def _seconds(text: str) -> int:
    found = _DURATION.match(text)
    if not found:
        raise ValueError(f"{text!r} is not a duration: write minutes (30), H:MM:SS or D-HH:MM:SS")
    days, h, m, s, a, b, c = (int(part) if part is not None else None for part in found.groups())
    if a is None:
        first, minutes, seconds = (days or 0) * 24 + (h or 0), m or 0, s or 0
        whole = first * 3600 + minutes * 60 + seconds
        in_range = (h or 0) < 24 and minutes < 60 and seconds < 60
    elif c is not None:
        whole = a * 3600 + (b or 0) * 60 + c
        in_range = (b or 0) < 60 and c < 60
    else:
        whole = a * 60 + (b or 0)
        in_range = (b or 0) < 60
    if not in_range:
        raise ValueError(f"{text!r} is not a duration: minutes and seconds go to 59, hours after days to 23")
    if whole == 0:
        raise ValueError(f"{text!r} is zero, which Slurm reads as no limit")
    return whole


def memory_bytes(text: str) -> int:
    """Bytes of an amount of memory or storage in Slurm's form: ``500G``; without a letter MiB, as Slurm has it."""
    powers = {"K": 10, "M": 20, "G": 30, "T": 40}
    return int(text.rstrip("KMGT")) << powers[text[-1] if text[-1] in powers else "M"]


def above(bound: float) -> Callable[[Any], Any]:
    """A check that a number is greater."""

    def check(value: Any) -> Any:
        if value <= bound:
            raise ValueError(f"must be greater than {bound:g}, got {value:g}")
        return value

    return allows(check, exclusiveMinimum=bound)


def at_least(bound: float) -> Callable[[Any], Any]:
    """A check that a number is not less."""

    def check(value: Any) -> Any:
        if value < bound:
            raise ValueError(f"must be at least {bound:g}, got {value:g}")
        return value

    return allows(check, minimum=bound)


def below(bound: float) -> Callable[[Any], Any]:
    """A check that a number is less."""

    def check(value: Any) -> Any:
        if value >= bound:
            raise ValueError(f"must be less than {bound:g}, got {value:g}")
        return value

    return allows(check, exclusiveMaximum=bound)


def not_empty(value: Any) -> Any:
    """The value; refused is a list, mapping or text without content."""
    if not value or (isinstance(value, str) and not value.strip()):
        raise ValueError("is empty")
    return value


def one_entry(says: str) -> Callable[[Any], Any]:
    """A check that a mapping has one entry; what its error says else."""

    def check(value: dict[str, Any]) -> dict[str, Any]:
        if len(value) != 1:
            raise ValueError(says)
        return value

    return allows(check, minProperties=1, maxProperties=1)


allows(one_line, pattern=r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$")
allows(not_empty, pattern=r"\S", minItems=1, minProperties=1)

Line = Annotated[str, one_line, not_empty]
Slug = Annotated[str, slug]
ModuleName = Annotated[str, matching(_NAME, "is not a name: a-z, 0-9, - and _, at most 32")]
MemoryAmount = Annotated[str, matching(_MEMORY, "is not an amount of memory: a number and K, M, G or T, such as 16G")]
Count = Annotated[int, above(0)]
Amount = Annotated[int, at_least(0)]
Positive = Annotated[float, above(0)]
NotNegative = Annotated[float, at_least(0)]


_RUN = 5
_TOKEN = re.compile(r"[0-9a-z]{6}")
_END = re.compile(r"-([0-9a-z]{6})(?:-(\d{1,3}))?\Z")
"""Of a job's name: the attempt's token and the number of the link."""


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,15}", text):
        raise ValueError(f"{text!r}: write up to 16 letters, digits and . _ -, not one of these first")
    return text


class JobName(StrictModel):
    """How jobs are called in the queue. ``longest``: at sites that refuse longer names; the stage's is cut then."""

    prefix: Annotated[str, one_line, _prefix] = "on"
    longest: Count | None = None

    def of(self, run: str, stage: str, attempt: str, link: int) -> str:
        """Unique in the queue, and readable there."""
        end = f"-{link}" if link else ""
        name = f"{self.prefix}-{run}-{stage}-{attempt}{end}"
        if self.longest is None or len(name) <= self.longest:
            return name
        # A token comes only once; of a probe and an array, which have none, the digest of the whole name does.
        token = attempt if _TOKEN.fullmatch(attempt) else hashlib.sha256(name.encode()).hexdigest()[:6]
        before, after = f"{self.prefix}-{run[:_RUN]}-", f"{token}{end}"
        cut = stage[: max(0, self.longest - len(before) - len(after) - 1)]
        return before + (f"{cut}-" if cut else "") + after

    def shortest(self, links: int) -> int:
        """The longest name has to be this long at least."""
        return len(self.prefix) + _RUN + 8 + (len(f"-{links - 1}") if links > 1 else 0)

    def stage_of(self, name: str, run: str, stages: Iterable[str]) -> str | None:
        """The stage of a run whose job may have this name: of several that are cut to the same the first."""
        found = _END.search(name)
        if found is None or not name.startswith(f"{self.prefix}-{run}-"):
            return None
        token, link = found[1], int(found[2] or 0)
        return next((stage for stage in stages if name == self.of(run, stage, token, link)), None)


class SiteKeys(StrictModel):
    """What a job asks for that is mostly the same for all jobs: a profile says it also outside of ``resources``."""

    partition: Line | None = None
    account: Line | None = None
    qos: Line | None = None
    reservation: Line | None = None
    constraint: Line | None = None


class ResourceKeys(SiteKeys):
    """What a job asks for; any key may be left to the next layer."""

    image: Line | None = None
    nodes: Count | None = None
    processes_per_node: Count | None = None
    cpus: Count | None = None
    gpus_per_node: Amount | None = None
    mem: MemoryAmount | None = None
    time: Duration | None = None


class Resources(ResourceKeys):
    """What one job asks for, all layers put together."""

    nodes: Count = 1
    processes_per_node: Count = 1

    @property
    def time_seconds(self) -> int | None:
        return None if self.time is None else self.time.seconds

    @property
    def processes(self) -> int:
        return self.nodes * self.processes_per_node


RESOURCE_KEYS = tuple(fields_of(ResourceKeys))


def words_of(constraint: str) -> list[str]:
    """Names of features in a constraint: ``[gpu&hbm80g*2]`` names two."""
    return re.findall(r"[A-Za-z_][\w.-]*", constraint)
