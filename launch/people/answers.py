"""What raters answered, checked against the key and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, pvariance
from typing import Any

from jobs.core import files, power, results
from launch.base.errors import InputError
from launch.people.sheet import KEY

CHOICES = ("left", "right", "tie", "neither")
FEWEST = 5
"""Prompts from which a share has an interval."""

COUNTED = "counted.json"


@dataclass(frozen=True)
class Rater:
    """How far one rater can be believed. ``left``: share of the left side among answers that prefer one; ``again``: of
    the pairs that came twice, how many had the same answer; ``known``: of the pairs whose answer is known, how many
    were right. Both as (how many, of how many)."""

    number: int
    answered: int
    of: int
    left: float | None
    again: tuple[int, int]
    known: tuple[int, int]


@dataclass(frozen=True)
class Counted:
    """What came of it. ``share``: of the second model over prompts, a tie and two bad answers counting half; ``alpha``:
    Krippendorff's, of the raters among each other; None: no prompt was answered by two. ``needs``: prompts that would
    decide a share as large as this one, where these do not."""

    models: tuple[str, str]
    prompts: int
    counts: dict[str, int]
    share: float
    low: float | None
    high: float | None
    alpha: float | None
    needs: int | None
    raters: tuple[Rater, ...]
    notes: tuple[tuple[str, int, str], ...]

    @property
    def verdict(self) -> str:
        """Who is preferred, in words."""
        if self.low is not None and self.high is not None and (self.low > 0.5 or self.high < 0.5):
            return f"{self.models[self.low > 0.5]} is preferred"
        more = "" if self.needs is None else f"; {self.needs:,} prompts would decide a share like this one"
        return f"undecided{more}"


def read_key(path: Path) -> dict[str, Any]:
    """The key of a sheet. Raises InputError: it is none."""
    try:
        key = files.read_json(path)
        items = key["items"]
        if not all(sorted(one["sides"]) == [0, 1] for one in items.values()) or len(key["models"]) != 2:
            raise ValueError("it has not two models")
        if not all(name in items and isinstance(turned, bool) for order in key["orders"] for name, turned in order):
            raise ValueError("an order names an item that is none")
        return dict(key)
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no sheet", hint="overnight human make --help") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read as the key of a sheet: {error}") from error


def read(path: Path, key: Mapping[str, Any]) -> tuple[int, dict[str, tuple[str, str]]]:
    """The rater's number, and item -> choice and note.

    Raises:
        InputError: answers to another sheet, an item that this rater does not have, twice, or in another order of the
            sides, or a choice that is none.
    """
    try:
        found = files.read_json(path)
        sheet, rater, answers = found["sheet"], found["rater"], list(found["answers"])
        given = [(one["item"], one["turned"], one["choice"], str(one.get("note") or "")) for one in answers]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as the answers of a rater: {error}") from error
    if sheet != key["sheet"]:
        raise InputError(f"{path}: these are answers to the sheet {sheet}, and the key is that of {key['sheet']}")
    if isinstance(rater, bool) or not isinstance(rater, int) or not 1 <= rater <= len(key["orders"]):
        raise InputError(f"{path}: rater {rater}: the sheet is for 1 to {len(key['orders'])}")
    order = dict(key["orders"][rater - 1])
    made: dict[str, tuple[str, str]] = {}
    for number, (item, turned, choice, note) in enumerate(given, 1):
        where = f"{path}: answer {number}"
        if not isinstance(item, str) or item not in order or order[item] is not turned:
            raise InputError(f"{where}: {item!r} is not what rater {rater} was shown")
        if item in made:
            raise InputError(f"{where}: a second answer to {item!r}")
        if choice not in CHOICES:
            raise InputError(f"{where}: {choice!r} is none of {', '.join(CHOICES)}")
        made[item] = choice, note
    return rater, made


def count(key: Mapping[str, Any], given: Mapping[int, Mapping[str, tuple[str, str]]]) -> Counted:
    """The numbers of all raters together.

    A prompt is one observation, however many raters judged it: its value is the mean over them. The interval of the
    share is Wilson's over prompts.

    Raises:
        InputError: nothing was answered.
    """
    items = key["items"]
    of_row: dict[str, list[str]] = {}
    notes = []
    for rater, answers in sorted(given.items()):
        order = dict(key["orders"][rater - 1])
        for name, (choice, note) in answers.items():
            if note:
                notes.append((str(items[name].get("row", name)), rater, note))
            if "repeats" not in items[name] and "known" not in items[name]:
                of_row.setdefault(items[name]["row"], []).append(_meant(choice, items[name]["sides"], order[name]))
    if not of_row:
        raise InputError("no pair was answered")
    values = [fmean(_VALUE[one] for one in meant) for meant in of_row.values()]
    share, n = fmean(values), len(values)
    low, high = power.wilson(share, n) if n >= FEWEST else (None, None)
    decided = low is not None and high is not None and not low <= 0.5 <= high
    spread = pvariance(values) ** 0.5
    needs = None if decided or share == 0.5 or not spread else max(n + 1, round(power.needed(spread, abs(share - 0.5))))
    counts = Counter(one for meant in of_row.values() for one in meant)
    return Counted(
        (key["models"][0], key["models"][1]), n, {name: counts[name] for name in _VALUE}, share, low, high,
        alpha(list(of_row.values())), needs,
        tuple(_rater(key, number, answers) for number, answers in sorted(given.items())), tuple(notes),
    )  # fmt: skip


_VALUE = {"first": 0.0, "second": 1.0, "tie": 0.5, "neither": 0.5}


def _meant(choice: str, sides: Sequence[int], turned: bool) -> str:
    """Whose answer was chosen: ``first``, ``second``, ``tie`` or ``neither``."""
    if choice in ("tie", "neither"):
        return choice
    return ("first", "second")[sides[(choice == "right") != turned]]


def alpha(units: Sequence[Sequence[str]]) -> float | None:
    """Krippendorff's alpha for names: 1 where raters agree, 0 where they agree as by chance.

    ``units``: what the raters said of each prompt. None: no two said something of the same one, or all said the same
    of everything, which shows nothing. Source: Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011).
    """
    pairable = [unit for unit in units if len(unit) > 1]
    total = sum(map(len, pairable))
    counts = Counter(one for unit in pairable for one in unit)
    expected = sum(count * (total - count) for count in counts.values())
    if not expected:
        return None
    observed = sum(
        sum(count * (len(unit) - count) for count in Counter(unit).values()) / (len(unit) - 1) for unit in pairable
    )
    return 1 - (total - 1) * observed / expected


def _rater(key: Mapping[str, Any], number: int, answers: Mapping[str, tuple[str, str]]) -> Rater:
    items, order = key["items"], dict(key["orders"][number - 1])
    meant = {name: _meant(choice, items[name]["sides"], order[name]) for name, (choice, _) in answers.items()}
    sided = [choice for choice, _ in answers.values() if choice in ("left", "right")]
    again = [
        (meant[name], meant[items[name]["repeats"]])
        for name in meant
        if "repeats" in items[name] and items[name]["repeats"] in meant
    ]
    known = [meant[name] for name in meant if "known" in items[name]]
    return Rater(
        number,
        len(answers),
        len(order),
        sided.count("left") / len(sided) if sided else None,
        (sum(one == other for one, other in again), len(again)),
        (known.count("first"), len(known)),
    )


def write(directory: Path, counted: Counted) -> Path:
    """Keep what was counted, and the share as an evaluation like any other; the file of all numbers."""
    share = {
        "value": counted.share, "low": counted.low, "high": counted.high, "n": counted.prompts,
        "groups": counted.prompts, "method": "Wilson", "higher_is_better": True,
    }  # fmt: skip
    results.write(directory, {"people": {"models": list(counted.models), "metrics": {"preferred": share}}})
    path = directory / COUNTED
    files.write_json(path, as_json(counted))
    return path


def as_json(counted: Counted) -> dict[str, Any]:
    """All numbers, with the verdict in words."""
    return {**asdict(counted), "verdict": counted.verdict}


def lines(counted: Counted) -> list[str]:
    """The numbers as text."""
    first, second = counted.models
    interval = "too few for an interval" if counted.low is None else f"95 % [{counted.low:.3f}, {counted.high:.3f}]"
    agreement = "not known: no prompt has two raters, or all said the same"
    if counted.alpha is not None:
        agreement = f"{counted.alpha:.2f} (1: they agree, 0: as by chance)"
    found = [
        f"{second} against {first}: {counted.verdict}",
        f"  preferred  {counted.share:.3f} of {counted.prompts} prompts, {interval}",
        f"  answers    {second} {counted.counts['second']}, {first} {counted.counts['first']}, "
        f"equal {counted.counts['tie']}, both bad {counted.counts['neither']}",
        f"  agreement of the raters (Krippendorff's alpha): {agreement}",
    ]
    for one in counted.raters:
        left = "" if one.left is None else f", left side in {one.left:.0%} of the choices"
        found.append(
            f"  rater {one.number}: {one.answered} of {one.of} answered{left}; the same again {_of(one.again)}; "
            f"known answers {_of(one.known)}"
        )
    return found


def _of(pair: tuple[int, int]) -> str:
    return f"{pair[0]} of {pair[1]}"


def directory_of(people: Path, output: Path | None, models: tuple[str, str]) -> Path:
    """Where a sheet for two stages lies."""
    return output if output is not None else people / f"{models[0]}-{models[1]}"


def sheets(people: Path) -> list[Path]:
    """Directories of a run that hold a sheet."""
    return sorted(path.parent for path in people.glob(f"*/{KEY}"))
