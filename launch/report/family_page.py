"""``overnight report FAMILY --html``: a sweep as one page without a network."""

from __future__ import annotations

from html import escape

from launch.base.html import section, shown, table
from launch.plan.sweep import said
from launch.report import charts, family
from launch.report.style import still
from launch.status.family import FamilyStatus, MemberStatus, choice


def render(found: FamilyStatus) -> str:
    """The page: the verdict, the chains by rank, what each key did."""
    record = found.family.record
    title = f"{record.pipeline} {found.family.id}"
    best = found.best
    verdict = f"Best: run {best.run.id}" if best is not None else family.outcome(found)
    told = "".join(f"<p>{shown(line)}</p>" for line in choice(found))
    parts = [
        f"<h1>{escape(record.pipeline)} <span class=soft>{escape(found.family.id)}</span></h1>",
        f"<p class=verdict>{escape(verdict)}</p><p class=soft>{escape(family.outcome(found))}</p>{told}",
        section("Chains", _chains(found)),
        section("What each key did", _effects(found)),
        f"<p class=soft>next: <code>{escape(family.next_command(found))}</code></p>",
    ]
    return still(title, parts)


def _chains(found: FamilyStatus) -> str:
    keys = found.family.record.keys
    numbers = [one.value for one in found.members if one.value is not None]
    ends = [end for one in numbers for end in (one.low, one.high, one.value) if end is not None]
    span = (min(ends), max(ends)) if ends else (0.0, 0.0)
    rows = [[*map(shown, family.row(one, keys)), _picture(one, span)] for one in family.in_order(found)]
    at = len(family.HEADER) + len(keys)
    return table([*map(escape, family.head(found)), ""], rows, right=(0, 3, at, at + 2))


def _picture(one: MemberStatus, span: tuple[float, float]) -> str:
    """The interval of a chain, on a scale that all chains share."""
    if one.value is None or one.value.low is None or one.value.high is None or span[0] == span[1]:
        return ""
    middle, half = (span[0] + span[1]) / 2, (span[1] - span[0]) / 2
    ends = (one.value.low - middle, one.value.value - middle, one.value.high - middle)
    return charts.interval(*ends, half, f"{one.value.value:.4g} {family.interval(one.value)}")


def _effects(found: FamilyStatus) -> str:
    furthest = max((abs(end) for one in found.effects for end in (one.least, one.greatest)), default=0.0)
    rows = [
        [shown(one.key), f"{shown(said(one.value))} against {shown(said(one.against))}", f"{one.mean:+.4g}",
         charts.interval(one.least, one.mean, one.greatest, furthest, family.effect(one)) if furthest else "",
         str(one.pairs), f"{one.better} of {one.pairs}"]
        for one in found.effects
    ]  # fmt: skip
    note = (
        "<p class=soft>Differences of chains that differ in this key alone: the mean, the least and the greatest.</p>"
    )
    alone = "".join(f"<p class=soft>{shown(key)}: no two chains differ in it alone</p>" for key in found.alone)
    return (
        table(("key", "value", "mean difference", "", "pairs", "better in"), rows, right=(2, 4))
        + alone
        + (note if rows else "")
    )
