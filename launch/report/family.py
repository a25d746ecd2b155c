"""``overnight status`` and ``report`` of a sweep: its chains by rank, what each key did, and how good the best is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from launch.base.text import count, table
from launch.plan.sweep import said
from launch.status import family as status
from launch.status.family import FamilyStatus, MemberStatus
from launch.status.results import Number

HEADER = ("rank", "run", "state", "sealed")
EFFECTS = ("key", "value", "mean difference", "least and greatest", "pairs", "better in")


def head(found: FamilyStatus) -> tuple[str, ...]:
    """The columns of the table of chains."""
    ranking = found.ranking
    name = "" if ranking is None else f"{ranking.task} {ranking.metric}"
    return (*HEADER, *found.family.record.keys, name, "95 % interval", "examples")


def row(one: MemberStatus, keys: tuple[str, ...]) -> list[str]:
    """A chain under ``head``, as text."""
    number = ["", "", ""] if one.value is None else [f"{one.value.value:.4g}", interval(one.value), str(one.value.n)]
    rank = "" if one.rank is None else str(one.rank)
    values = [said(one.member.values[key]) for key in keys]
    return [rank, one.run.id, one.state, f"{one.sealed}/{len(one.plan.stages)}", *values, *number]


def interval(number: Number) -> str:
    """Its ends, or that there are none."""
    if number.low is None or number.high is None:
        return "too few"
    return f"[{number.low:.4g}, {number.high:.4g}]"


def in_order(found: FamilyStatus) -> list[MemberStatus]:
    """The best first, and those without a number as they were submitted."""
    return [*found.ranked, *(one for one in found.members if one.rank is None)]


def outcome(found: FamilyStatus) -> str:
    """The family in a line."""
    done = sum(one.state == "done" for one in found.members)
    failed = sum(one.state.startswith("failed") for one in found.members)
    text = f"{done} of {count(len(found.members), 'chain')} done"
    return f"{text}, {failed} failed" if failed else text


def next_command(found: FamilyStatus) -> str:
    """What to type next."""
    family = found.family
    if found.unreachable:
        return f"overnight status {family.id}, when the cluster answers again"
    failed = next((one for one in found.members if one.state.startswith("failed")), None)
    if failed is not None:
        return f"overnight why {failed.run.id}; then: overnight resume {family.id}"
    if all(one.state == "done" for one in found.members):
        best = found.best
        return "nothing: every chain is done" if best is None else f"overnight report {best.run.id}"
    if all(one.state == "done" or one.state.startswith(("cancelled", "stopped", "not sub")) for one in found.members):
        return f"overnight resume {family.id}"
    return f"overnight status {family.id}, later"


def status_lines(found: FamilyStatus) -> list[str]:
    """``status`` for people."""
    record, keys = found.family.record, found.family.record.keys
    at_once = "" if record.at_once is None else f", {record.at_once} at once"
    shown = [f"family {found.family.id}: {record.pipeline} on {record.profile}; {outcome(found)}{at_once}"]
    if found.unreachable:
        shown += ["", "The cluster does not answer. What follows is what the files of the runs prove."]
    number = len(HEADER) + len(keys)
    rows = [row(one, keys) for one in in_order(found)]
    shown += ["", *table(head(found), rows, right=(0, 3, number, number + 2))]
    return [*shown, "", f"next: {next_command(found)}"]


def lines(found: FamilyStatus) -> list[str]:
    """``report`` for people."""
    *shown, blank, following = status_lines(found)
    rows = effect_rows(found)
    shown += ["", *table(EFFECTS, rows, right=(2, 4))] if rows else []
    if rows:
        shown.append("difference: of chains that differ in this key alone")
    shown += [f"{key}: no two chains with a number differ in it alone" for key in found.alone] if found.ranked else []
    shown += ["", *status.choice(found)] if found.best is not None else []
    if found.ranking is None:
        shown += ["", "nothing ranks the chains: write by: TASK.METRIC in sweep"]
    return [*shown, blank, following]


def effect_rows(found: FamilyStatus) -> list[list[str]]:
    """What each key did, under ``EFFECTS``, as text."""
    return [
        [one.key, f"{said(one.value)} against {said(one.against)}", f"{one.mean:+.4g}", effect(one), str(one.pairs),
         f"{one.better} of {one.pairs}"]
        for one in found.effects
    ]  # fmt: skip


def effect(one: status.Effect) -> str:
    """The least and the greatest difference, where there are several."""
    return "" if one.pairs == 1 else f"{one.least:+.4g} to {one.greatest:+.4g}"


def as_json(found: FamilyStatus) -> dict[str, Any]:
    """The same as plain data."""
    record = found.family.record
    best = found.best
    return {
        "family": found.family.id,
        "pipeline": record.pipeline,
        "profile": record.profile,
        "path": str(found.family.paths.root),
        "at_once": record.at_once,
        "by": None if record.ranking is None else asdict(record.ranking),
        "members": [
            {
                "run": one.run.id,
                "set": one.member.values,
                "state": one.state,
                "sealed": one.sealed,
                "stages": len(one.plan.stages),
                "rank": one.rank,
                "value": None if one.value is None else asdict(one.value),
            }
            for one in found.members
        ],
        "effects": [asdict(one) for one in found.effects],
        "best": None
        if best is None
        else {
            "run": best.run.id,
            "test": None if best.test is None else asdict(best.test),
            "said": status.choice(found),
        },
        "next": next_command(found),
    }
