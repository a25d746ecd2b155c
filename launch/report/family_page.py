"""``overnight report FAMILY --html``: a sweep as one page without a network."""

from __future__ import annotations

from html import escape

from launch.base.html import section, shown, table
from launch.plan.sweep import said
from launch.report import charts, family
from launch.report.style import still
from launch.report.words import Say, speaker
from launch.status.family import FamilyStatus, MemberStatus, choice


def render(found: FamilyStatus, language: str = "en") -> str:
    """The page, in one of ``words.LANGUAGES``: the verdict, the chains by rank, what each key did."""
    say = speaker(language)
    record = found.family.record
    title = f"{record.pipeline} {found.family.id}"
    best = found.best
    done = sum(one.state == "done" for one in found.members)
    failed = sum(one.state.startswith("failed") for one in found.members)
    came = [say("{done} of {every} chains done").format(done=done, every=len(found.members)),
            say("{failed} failed").format(failed=failed) if failed else ""]  # fmt: skip
    outcome = ", ".join(filter(None, came))
    verdict = say("Best: run {run}").format(run=best.run.id) if best is not None else outcome
    told = "".join(f"<p>{shown(line)}</p>" for line in choice(found, say))
    parts = [
        f"<h1>{escape(record.pipeline)} <span class=soft>{escape(found.family.id)}</span></h1>",
        f"<p class=verdict>{escape(verdict)}</p><p class=soft>{escape(outcome)}</p>{told}",
        section(say("Chains"), _chains(found, say)),
        section(say("What each key did"), _effects(found, say)),
        f"<p class=soft>{say('Next')}: <code>{escape(family.next_command(found))}</code></p>",
    ]
    return still(title, parts, language)


def _chains(found: FamilyStatus, say: Say) -> str:
    keys = found.family.record.keys
    numbers = [one.value for one in found.members if one.value is not None]
    ends = [end for one in numbers for end in (one.low, one.high, one.value) if end is not None]
    span = (min(ends), max(ends)) if ends else (0.0, 0.0)
    at = len(family.HEADER) + len(keys)
    rows = []
    for one in family.in_order(found):
        cells = family.row(one, keys)
        doing, colon, stages = one.state.partition(":")
        cells[family.HEADER.index("state")] = f"{say(doing)}{colon}{stages}"
        cells[at + 1] = say("too few") if cells[at + 1] == "too few" else cells[at + 1]
        rows.append([*map(shown, cells), _picture(one, span)])
    names = family.head(found)
    head = [say(name) for name in names[: len(family.HEADER)]] + [*names[len(family.HEADER) : at + 1]]
    head += [say(name) for name in names[at + 1 :]]
    return table([*map(escape, head), ""], rows, right=(0, 3, at, at + 2))


def _picture(one: MemberStatus, span: tuple[float, float]) -> str:
    """The interval of a chain, on a scale that all chains share."""
    if one.value is None or one.value.low is None or one.value.high is None or span[0] == span[1]:
        return ""
    middle, half = (span[0] + span[1]) / 2, (span[1] - span[0]) / 2
    ends = (one.value.low - middle, one.value.value - middle, one.value.high - middle)
    return charts.interval(*ends, half, f"{one.value.value:.4g} {family.interval(one.value)}")


def _effects(found: FamilyStatus, say: Say) -> str:
    furthest = max((abs(end) for one in found.effects for end in (one.least, one.greatest)), default=0.0)
    rows = [
        [shown(one.key), shown(say("{value} against {other}").format(value=said(one.value), other=said(one.against))),
         f"{one.mean:+.4g}",
         charts.interval(one.least, one.mean, one.greatest, furthest, family.effect(one) or f"{one.mean:+.4g}")
         if furthest else "",
         str(one.pairs), say("{better} of {pairs}").format(better=one.better, pairs=one.pairs)]
        for one in found.effects
    ]  # fmt: skip
    note = say("Differences of chains that differ in this key alone: the mean, the least and the greatest.")
    alone = "".join(f"<p class=soft>{shown(key)}: {say('no two chains differ in it alone')}</p>" for key in found.alone)
    head = [say("key"), say("value"), say("mean difference"), "", say("pairs"), say("better in")]
    return table(head, rows, right=(2, 4)) + alone + (f"<p class=soft>{note}</p>" if rows else "")
