"""Gates: what a metric must show, and whether it did.

A gate is judged on the interval, not on the value: passed is what is shown beyond chance, missed is what is shown to be
on the wrong side, and everything between is undecided. The gates of one evaluation are one family: eight of them, each
at 2.5 %, would pass a model that learned nothing one night in five, so what they pass by is corrected (Holm 1979).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.core import power
from jobs.core.power import CHANCE
from jobs.core.verdict import FailureClass
from jobs.evaluate.observed import MetricEstimate, Observed
from jobs.training.settings import BadSettings

MUST = ("rise", "fall")
ALLOWED = ("may_fall", "may_rise")
BOUNDS = ("at_least", "at_most")
TIERS = ("critical", "advisory")
AFTER = ("stop", "go")


class GateFailed(RuntimeError):
    """A metric is shown to be on the wrong side of what the pipeline demands."""

    failure = FailureClass.GATE


class GateUndecided(RuntimeError):
    """The examples are too few to show what the pipeline demands, or its contrary."""

    failure = FailureClass.GATE_UNDECIDED


@dataclass(frozen=True)
class GateRule:
    """One demand. ``must``: ``rise`` or ``fall``. ``may_fall``, ``may_rise``: how far at the most, as a number or a
    percentage of the value before. ``at_least``, ``at_most``: a bound of the value itself. One of the five is set.
    ``tier``: ``critical`` stops the chain, ``advisory`` is only reported."""

    must: str | None = None
    may_fall: float | str | None = None
    may_rise: float | str | None = None
    at_least: float | None = None
    at_most: float | None = None
    tier: str = "critical"

    @classmethod
    def read(cls, name: str, value: Any) -> GateRule:
        """Check and build.

        Raises:
            BadSettings: names the gate and what would fit.
        """
        kinds = ("must", *ALLOWED, *BOUNDS)
        keys = dict(value) if isinstance(value, Mapping) else {}
        tier = keys.pop("tier", "critical")
        if len(keys) != 1 or not keys.keys() <= set(kinds) or tier not in TIERS:
            raise BadSettings(
                f"gate {name!r} must be one of {{must: rise}}, {{must: fall}}, {{may_fall: 0.02}}, {{may_rise: 3%}}, "
                f"{{at_least: 0.9}}, {{at_most: 0.1}}, optionally with tier: critical or advisory, not {value!r}"
            )
        ((kind, wanted),) = keys.items()
        if kind == "must" and wanted not in MUST:
            raise BadSettings(f"gate {name!r} must be {{must: rise}} or {{must: fall}}, not {value!r}")
        if kind in ALLOWED and isinstance(wanted, str):
            if not re.fullmatch(r"\d+(\.\d+)?%", wanted):
                raise BadSettings(f"gate {name!r}: {kind} must be a number or a percentage like 3%, not {wanted!r}")
        elif kind != "must" and (isinstance(wanted, bool) or not isinstance(wanted, int | float)):
            raise BadSettings(f"gate {name!r}: {kind} must be a number, not {wanted!r}")
        elif kind in ALLOWED and not 0 <= wanted < math.inf:
            raise BadSettings(f"gate {name!r}: {kind} must be 0 or more, not {wanted!r}")
        elif kind in BOUNDS and not math.isfinite(wanted):
            raise BadSettings(f"gate {name!r}: {kind} must be a finite number, not {wanted!r}")
        return cls(**{kind: wanted}, tier=tier)

    @property
    def compares(self) -> bool:
        """Whether it needs an earlier evaluation."""
        return self.at_least is None and self.at_most is None

    @property
    def upwards(self) -> bool:
        """Whether what is wanted lies above the threshold."""
        return self.must == "rise" or self.may_fall is not None or self.at_least is not None

    def threshold(self, before: float) -> float:
        """What the value, or its change, is compared with; ``before``: the value that a percentage is of."""
        if not self.compares:
            return float(self.at_least if self.at_least is not None else self.at_most or 0.0)
        allowed = self.may_fall if self.may_fall is not None else self.may_rise
        if isinstance(allowed, str):
            allowed = float(allowed[:-1]) / 100 * abs(before)
        return -float(allowed or 0.0) if self.upwards else float(allowed or 0.0)

    def __str__(self) -> str:
        for kind in ("must", *ALLOWED, *BOUNDS):
            if (value := getattr(self, kind)) is not None:
                return f"{kind} {value}"
        raise AssertionError("no rule")


@dataclass(frozen=True)
class Judgement:
    """What came of a gate. ``chance``: of what was seen if the demand did not hold, ``corrected`` for the family.
    ``needs``: how many examples would decide a change of the size that was seen; None where more would not help.
    ``why``: what else keeps it undecided."""

    rule: str
    tier: str
    verdict: str
    threshold: float
    chance: float
    corrected: float
    needs: int | None = None
    why: str | None = None


def judge(rules: Mapping[str, GateRule], seen: Mapping[str, tuple[Observed, float]]) -> dict[str, Judgement]:
    """Gate -> judgement. ``seen``: what each gate looks at (the value or its change), and the value before."""
    chances: dict[str, float] = {}
    for name, rule in rules.items():
        observed, before = seen[name]
        at = rule.threshold(before)
        chances[name] = observed.below(at) if rule.upwards else observed.above(at)
    corrected = holm(chances)
    found = {}
    for name, rule in rules.items():
        observed, before = seen[name]
        at = rule.threshold(before)
        wrong = observed.above(at) if rule.upwards else observed.below(at)
        known = observed.estimate.low is not None
        verdict = "undecided"
        if known and corrected[name] <= CHANCE:
            verdict = "passed"
        elif known and wrong <= CHANCE:
            verdict = "missed"
        needs = None
        if verdict == "undecided":
            distance = observed.estimate.value - at
            needs = needed(observed.estimate, distance if rule.upwards else -distance, at)
        found[name] = Judgement(str(rule), rule.tier, verdict, at, chances[name], corrected[name], needs)
    return found


def holm(chances: Mapping[str, float]) -> dict[str, float]:
    """Each chance, corrected for how many there are (Holm 1979)."""
    found: dict[str, float] = {}
    least = 0.0
    for rank, name in enumerate(sorted(chances, key=chances.__getitem__)):
        least = max(least, min(1.0, chances[name] * (len(chances) - rank)))
        found[name] = least
    return found


def needed(estimate: MetricEstimate, distance: float, at: float) -> int | None:
    """Examples that show a ``distance`` on the right side of ``at`` four times in five, more than there are; None: it
    is on the wrong side, or the examples are too few to say, or do not differ."""
    deviation = estimate.deviation
    if deviation is not None and estimate.method.startswith("Wilson") and 0 < at < 1:
        # If the demand did not hold, a share would scatter as one of ``at`` does: that of 0 of 60 says it would not.
        deviation = (power.LEVEL * math.sqrt(at * (1 - at)) + power.SURE * deviation) / power.SIGMAS
    if not deviation or distance <= 0:
        return None
    groups = max(power.needed(deviation, distance), estimate.groups + 1)
    return math.ceil(groups * estimate.n / estimate.groups)


def apply(found: Mapping[str, tuple[Judgement, str]], missed: str, undecided: str, where: str) -> None:
    """Stop where a critical gate did not pass. ``found``: gate -> judgement, and what was measured as text.

    Raises:
        GateFailed: at least one is missed, and ``missed`` is ``stop``; names every one that did not pass.
        GateUndecided: at least one is undecided, and ``undecided`` is ``stop``.
    """
    critical: Sequence[tuple[str, Judgement, str]] = [
        (name, one, text) for name, (one, text) in found.items() if one.tier == "critical"
    ]
    stops = {"missed": missed, "undecided": undecided}
    wrong = [(name, one, text) for name, one, text in critical if stops.get(one.verdict) == "stop"]
    if not wrong:
        return
    texts = "; ".join(f"{name} {one.rule}: {text}: {_said(one)}" for name, one, text in wrong)
    error = GateFailed if any(one.verdict == "missed" for _, one, _ in wrong) else GateUndecided
    raise error(f"{texts} (all numbers: {where})")


def _said(one: Judgement) -> str:
    if one.verdict == "missed":
        return "missed"
    if one.why is not None:
        return f"undecided: {one.why}"
    more = "more examples would not help" if one.needs is None else f"about {one.needs:,} examples would decide it"
    return f"undecided, {more}"
