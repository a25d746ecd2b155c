"""``overnight report --html``: one file that answers, in this order: is there a model, is it better and at what, what
did the night cost, what went wrong, what to do next. It loads nothing, and what models wrote is text in it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from pathlib import Path

from jobs.core import files
from launch.base.html import digest, section, shown, table
from launch.base.text import clock, duration
from launch.config.profile import Profile
from launch.plan.model import Plan
from launch.report import charts, family, night, parts, repeat
from launch.report.night import Night
from launch.report.repeat import Repeat
from launch.report.style import SCRIPT, STYLE
from launch.report.words import Say, speaker
from launch.runs.rundir import Run
from launch.status import advice, results
from launch.status import report as status_report
from launch.status.model import RunStatus, State
from launch.status.report import RunReport
from launch.status.results import MetricResult
from launch.status.stretches import Stretch

GATED = "critical"


def write(
    run: Run, plan: Plan, profile: Profile, status: RunStatus, where: Path | None = None, language: str = "en"
) -> Path:
    """The file, written whole or not at all; None: ``report.html`` of the run."""
    path = run.paths.page if where is None else where
    made = status_report.make(run, plan, profile, status)
    files.write_atomic(path, render(made, profile, repeat.of_run(run, plan), language))
    return path


def render(
    report: RunReport, profile: Profile, repeated: Repeat, language: str = "en", now: float | None = None
) -> str:
    """The page, in one of ``words.LANGUAGES``."""
    say = speaker(language)
    seen: dict[Path, list[Stretch]] = {}
    curves = parts.of_curves(report, say, seen)
    found = night.of_run(report.run, report.plan, time.time() if now is None else now, seen)
    made = [
        _head(report, profile.name, found, say),
        section(say("What changed"), _changed(report.measured, say)),
        section(say("The night"), parts.of_night(report, profile, found, say)),
        section(say("Failures"), parts.of_failures(parts.reasons(report, goes_on(report)))),
        section(say("Curves"), curves),
        section(say("Answers"), parts.of_answers(report, say)),
        section(say("Stages"), parts.of_stages(report.stages, say)),
        section(say("Data"), parts.of_data(report, say)),
        section(say("Configuration"), parts.of_configuration(repeated, say)),
        section(say("Once more"), parts.of_again(report, repeated, say)),
    ]
    policy = f"default-src 'none'; script-src {digest(SCRIPT)}; style-src {digest(STYLE)}; img-src data:"
    title = escape(f"{report.plan.pipeline} {report.run.id}")
    return (
        f"<!DOCTYPE html>\n<html lang={language}><head><meta charset=utf-8><meta name=viewport "
        f"content='width=device-width,initial-scale=1'><meta http-equiv=Content-Security-Policy content=\"{policy}\">"
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body><main>\n{chr(10).join(filter(None, made))}\n"
        f"</main><script>{SCRIPT}</script></body></html>\n"
    )


def _head(report: RunReport, profile: str, found: Night | None, say: Say) -> str:
    times = (
        "" if found is None else f", {clock(found.start)} - {clock(found.end)} ({duration(found.end - found.start)})"
    )
    tools = (
        f"<p class=tools><button id=theme>{say('light or dark')}</button> <button id=print>{say('print')}</button></p>"
    )
    said, kind = verdict(report)
    lines = [f"{tools}<h1>{escape(report.plan.pipeline)} <span class=soft>{report.run.id}, {escape(profile)}{times}"
             f"</span></h1><p class='verdict {kind}'>{_MARK[kind]} {say(said)}</p>"]  # fmt: skip
    done = sum(one.state == "sealed" for one in report.stages)
    facts = [f"{done} / {len(report.stages)} {say('stages sealed')}"]
    gates = [one for one in report.measured if one.gate]
    if gates:
        facts.append(f"{sum(one.verdict == 'passed' for one in gates)} / {len(gates)} {say('gates passed')}")
    lines.append(f"<p>{', '.join(facts)}</p>")
    if report.model is not None:
        model = report.model
        size = "" if model.bytes is None else f"{model.bytes / 1e6:,.1f} MB, "
        lines.append(f"<p><code>{escape(model.path)}</code><br><span class=soft>{escape(model.stage)}, {model.format}, "
                     f"{size}sha256 {model.content[:16]}</span></p>")  # fmt: skip
    better, worse, unshown = moved(report.measured)
    if better or worse or unshown:
        lines.append(_moves(say("Better"), better, "good", say) + _moves(say("Worse"), worse, "bad", say))
        lines.append(_moves(say("No change shown"), unshown, "soft", say) if unshown else "")
    lines += [
        f"<p class=bad>{shown(one.stage)}: {shown(one.text)}</p>" for one in parts.reasons(report, goes_on(report))
    ]
    if not report.status.is_done:
        following = advice.of_run(report.run, report.status)
        lines.append(f"<p>{say('Next')}: <code>{shown(following)}</code></p>")
    return "\n".join(lines)


_MARK = {"good": "&#10003;", "bad": "&#10007;", "open": "&#8230;"}


def verdict(report: RunReport) -> tuple[str, str]:
    """What to say first, and whether it is ``good``, ``bad`` or ``open``."""
    failed = any(one.verdict in ("missed", "undecided") and one.tier == GATED for one in report.measured)
    if report.is_finished:
        return ("A finished model, but not as good as asked for.", "open") if failed else ("A finished model.", "good")
    if report.status.is_done:
        return "All stages are done.", "good"
    return ("Not over yet.", "open") if goes_on(report) else ("No finished model.", "bad")


def goes_on(report: RunReport) -> bool:
    """Whether a stage works, or will by itself."""
    return any(one.state in _GOING for one in report.status.stages)


_GOING = (State.RUNNING, State.WAITING, State.SUBMITTING, State.DEFERRED)


def moved(measured: Sequence[MetricResult]) -> tuple[list[MetricResult], list[MetricResult], list[MetricResult]]:
    """Changes of the last evaluation of each task that are shown to be for the better, for the worse, and the rest."""
    last = {(one.task, one.metric): one for one in measured if one.difference is not None}
    better, worse, unshown = [], [], []
    for one in last.values():
        change = one.difference
        if change is None or one.higher_is_better is None:
            continue
        if change.low is None or change.high is None or change.low <= 0 <= change.high:
            unshown.append(one)
        elif (change.low > 0) == one.higher_is_better:
            better.append(one)
        else:
            worse.append(one)
    return better, worse, unshown


def _moves(title: str, found: Sequence[MetricResult], kind: str, say: Say) -> str:
    told = "; ".join(
        f"{escape(_name(one))} {_change(one)} <span class=soft>{_sides(one)}</span>" for one in found
    ) or say("nothing shown")
    return f"<p><b class={kind}>{escape(title)}</b>: {told}</p>"


def _name(one: MetricResult) -> str:
    return results.title(one.task, one.metric)


def _sides(one: MetricResult) -> str:
    return f"{escape(one.evaluation)} - {escape(one.compared_with or '')}"


def _change(one: MetricResult) -> str:
    change = one.difference
    if change is None:
        return ""
    before = "" if one.before is None else f"{one.before:.4g} &rarr; {one.before + change.value:.4g} "
    interval = "" if change.low is None else f" [{change.low:+.3g}, {change.high:+.3g}]"
    return f"{before}({change.value:+.3g}{interval})"


def _changed(measured: Sequence[MetricResult], say: Say) -> str:
    """A row a metric, a column an evaluation, each value and the newest change with its interval."""
    if not measured:
        return f"<p class=soft>{say('No evaluation has measured anything.')}</p>"
    columns = list(dict.fromkeys(one.evaluation for one in measured))
    by_metric: dict[tuple[str, str], list[MetricResult]] = {}
    for one in measured:
        by_metric.setdefault((one.task, one.metric), []).append(one)
    rows = []
    for own in by_metric.values():
        values = {one.evaluation: _value(one) for one in own}
        compared = [one for one in own if one.difference is not None]
        newest = compared[-1] if compared else own[-1]
        change, picture = newest.difference, ""
        if change is not None and change.low is not None and change.high is not None:
            most = max(abs(change.low), abs(change.high))
            picture = f"<br>{charts.interval(change.low, change.value, change.high, most)}"
        flips = "" if newest.moved is None else f"<br><span class=soft>{newest.moved[1]:,} {say('worse')}, " \
            f"{newest.moved[0]:,} {say('better')}</span>"  # fmt: skip
        interval = "" if change is None else _interval(change.low, change.high, say)
        against = f"<br><span class=soft>{_sides(newest)}</span>"
        told = "" if change is None else f"{change.value:+.4g} {interval}{picture}{against}{flips}"
        gated = [one for one in own if one.gate]
        rows.append([escape(_name(newest)), *(values.get(name, "") for name in columns), told,
                     f"{newest.now.n:,}", _gates(gated, say)])  # fmt: skip
    head = [say("metric"), *map(escape, columns), say("change"), say("examples"), say("gate")]
    note = say("An interval holds what chance explains of these examples. Another training run (another seed) may "
               "differ more.")  # fmt: skip
    numbers = [*range(1, len(columns) + 1), len(columns) + 2]
    notes = "".join(f"<p class=soft>{escape(one)}</p>" for one in results.notes_of(measured))
    return table(head, rows, numbers) + f"{notes}<p class=soft>{note}</p>"


def _value(one: MetricResult) -> str:
    now = one.now
    interval = "" if now.low is None or now.high is None else f"<br><small>{family.interval(now)}</small>"
    return f"{now.value:.4g}{interval}"


def _interval(low: float | None, high: float | None, say: Say) -> str:
    return f"({say('too few')})" if low is None or high is None else f"[{low:+.4g}, {high:+.4g}]"


def _gates(gated: Sequence[MetricResult], say: Say) -> str:
    kinds = {"passed": "good", "missed": "bad", "undecided": "open"}
    told = []
    for one in gated:
        word = one.verdict or "undecided"
        kind = kinds[word]
        rule = f"{escape(one.evaluation)}: {escape(one.gate or '')}"
        told.append(f"{rule}: <b class={kind}>{_MARK[kind]} {say(word)}</b>")
    return "<br>".join(told)
