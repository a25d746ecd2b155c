"""``overnight report --md``: the answer for the morning as Markdown, for an issue, a wiki or a chat; of a run, and of
a family."""

from __future__ import annotations

from collections.abc import Sequence

from launch.base.text import duration
from launch.report import family, page
from launch.status import advice, results
from launch.status.family import FamilyStatus, choice
from launch.status.report import RunReport
from launch.status.results import MetricResult

_SPECIAL = frozenset("\\`*_{}[]<>()#+-!|~&")


def lines(report: RunReport, profile: str) -> list[str]:
    """Verdict, what changed, stages, reasons, the next command."""
    verdict, _ = page.verdict(report)
    found = [f"# {plain(report.plan.pipeline)} {report.run.id} on {plain(profile)}", "", f"**{verdict}**", ""]
    if report.model is not None:
        found += [f"Model: {_code(report.model.path)}, sha256 {_code(report.model.content)}", ""]
    if report.measured:
        head = ("evaluation", "metric", "before", "now", "change", "95 % interval", "examples", "gate")
        rows = []
        for one in report.measured:
            change = one.difference
            interval = "" if change is None or change.low is None else f"[{change.low:+.4g}, {change.high:+.4g}]"
            gate = "" if one.gate is None else f"{one.gate}: {one.verdict}"
            rows.append([one.evaluation, results.title(one.task, one.metric),
                         "" if one.before is None else f"{one.before:.4g}", _value(one),
                         "" if change is None else f"{change.value:+.4g}", interval, str(one.now.n), gate])  # fmt: skip
        found += [*_table(head, rows), ""]
        found += [item for note in results.notes_of(report.measured) for item in (plain(note), "")]
    rows = [[one.stage, one.state, one.job, one.nodes, "" if one.elapsed is None else duration(one.elapsed),
             "" if one.step is None else str(one.step)] for one in report.stages]  # fmt: skip
    found += [*_table(("stage", "state", "job", "nodes", "elapsed", "step"), rows), ""]
    for reason in report.reasons:
        found += [f"**{plain(reason.stage)}**: {plain(reason.text)}", ""]
        found += [f"    {line}" for line in reason.evidence.splitlines()] + [""]
    following = [] if report.status.is_done else [f"Next: {_code(advice.of_run(report.run, report.status))}"]
    return [*found, *following]


def _value(one: MetricResult) -> str:
    now = one.now
    return f"{now.value:.4g}" if now.low is None or now.high is None else f"{now.value:.4g} {family.interval(now)}"


def of_family(found: FamilyStatus) -> list[str]:
    """How many chains are done, the best, all by rank, what each key did, the next command."""
    record, best = found.family.record, found.best
    verdict = f"Best: run {best.run.id}" if best is not None else family.outcome(found)
    shown = [f"# {plain(record.pipeline)} {found.family.id} on {plain(record.profile)}", "", f"**{verdict}**", ""]
    shown += [family.outcome(found), ""] if best is not None else []
    shown += [item for line in choice(found) for item in (plain(line), "")]
    rows = [family.row(one, record.keys) for one in family.in_order(found)]
    shown += [*_table(family.head(found), rows), ""]
    changed = family.effect_rows(found)
    shown += [*_table(family.EFFECTS, changed), ""] if changed else []
    return [*shown, f"Next: {_code(family.next_command(found))}"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    made = [[plain(cell) for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *made)]


def plain(text: str) -> str:
    """What a reader of Markdown shows as it is."""
    return "".join(f"\\{one}" if one in _SPECIAL else " " if one in "\n\r\t" else one for one in text)


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}"
