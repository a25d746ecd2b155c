"""The later parts of the page: the night, curves, answers, stages, data, configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

from jobs.core import strict
from launch.base.errors import InputError
from launch.base.html import shown, table
from launch.base.text import clock, duration
from launch.config.profile import Profile
from launch.report import answers, charts
from launch.report.charts import Series
from launch.report.night import Doing, Night
from launch.report.repeat import Repeat
from launch.report.words import Say
from launch.status import curves, stretches
from launch.status.model import State
from launch.status.report import RunReport, StageResult
from launch.status.stretches import Stretch
from launch.status.why import Why


def of_night(report: RunReport, profile: Profile, found: Night | None, say: Say) -> str:
    """When each stage did what, what the allocations were spent on, and the starts that did not end well."""
    if found is None or not found.stages:
        return ""
    key = "".join(f"<span><svg viewBox='0 0 10 10'><rect class='d-{doing.split(' ')[0]}' width='10' height='10'/>"
                  f"</svg> {say(doing)}</span>" for doing in Doing if doing is not Doing.SAVING)  # fmt: skip
    lines = [f"<div class=wide>{charts.timeline(found)}</div><p class='key soft'>{key}</p>"]
    if found.goodput is not None:
        spent, total = found.spent, sum(found.spent.values())
        lost = ", ".join(f"{say(doing)} {share:.1%}" for doing, value in spent.items()
                         if doing != Doing.WORKING and (share := value / total) >= 0.001)  # fmt: skip
        lines.append(f"<p><b>{say('goodput')} {found.goodput:.1%}</b> "
                     f"<span class=soft>({say('of the time of the allocations was work that was kept')})</span>"
                     f"{': ' + lost if lost else ''}</p>")  # fmt: skip
    facts = [f"{duration(found.queued)} {say('in the queue while nothing ran')}"]
    if hours := gpu_hours(report):
        facts.append(f"{hours:,.2f} {say('GPU-hours')}")
    if (paid := cost(report, profile)) is not None:
        facts.append(f"{say('cost')} {paid:,.2f}")
    lines.append(f"<p>{'; '.join(facts)}</p>")
    ended = [[escape(stage.stage), clock(one.time), shown(one.host), escape(f"{one.job}, {one.restart + 1}"),
              shown(one.ended), shown(", ".join(one.nodes))]
             for stage in found.stages for one in stage.starts if one.ended]  # fmt: skip
    head = [say("stage"), "", say("nodes"), say("job"), say("state"), ""]
    return "\n".join([*lines, table(head, ended)])


def night_as_json(report: RunReport, profile: Profile, found: Night) -> dict[str, Any]:
    """The same as plain data, with every span; times are seconds since 1970."""
    stages = [
        {
            "stage": one.stage,
            "gpus": one.gpus,
            "saving": one.saving,
            "seconds": {doing.value: one.seconds(doing) for doing in Doing if doing is not Doing.SAVING},
            "spans": [asdict(span) for span in one.spans],
            "starts": [asdict(start) for start in one.starts],
        }
        for one in found.stages
    ]
    return {
        "start": found.start,
        "end": found.end,
        "goodput": found.goodput,
        "spent": found.spent,
        "queued_while_nothing_ran": found.queued,
        "gpu_hours": gpu_hours(report),
        "cost": cost(report, profile),
        "stages": stages,
    }


def gpu_hours(report: RunReport) -> float:
    """Of what this run made itself."""
    return sum(one.gpu_hours or 0.0 for one in report.stages if not one.of_run)


def cost(report: RunReport, profile: Profile) -> float | None:
    """Of what this run made itself, in the unit of the profile's ``cost_per_gpu_hour``; None: a price is missing."""
    total = None
    for planned, made in zip(report.plan.stages, report.stages, strict=True):
        if made.of_run or not made.gpu_hours:
            continue
        partition = profile.partitions.get(planned.resources.partition or "")
        if partition is None or partition.cost_per_gpu_hour is None:
            return None
        total = (total or 0.0) + made.gpu_hours * partition.cost_per_gpu_hour
    return total


def reasons(report: RunReport, goes_on: bool) -> list[Why]:
    """What went wrong; of a run that goes on not that a stage has not been submitted yet."""
    return [one for one in report.reasons if not goes_on or one.state != State.NOT_SUBMITTED]


def of_failures(found: Sequence[Why]) -> str:
    """Why stages failed, with the lines that show it."""
    parts = []
    for one in found:
        evidence = f"<pre>{shown(one.evidence, 4000)}</pre>" if one.evidence else ""
        source = f"<p class=soft>{shown(one.source)}</p>" if one.source else ""
        following = f"<p><code>{shown(one.next)}</code></p>" if one.next else ""
        parts.append(f"<h3>{shown(one.stage)}: {shown(one.text)}</h3>{evidence}{source}{following}")
    return "".join(parts)


def of_curves(report: RunReport, say: Say, seen: dict[Path, list[Stretch]]) -> str:
    """Loss, validation, learning rate and speed of each training stage, joined over its starts. ``seen`` gets steps and
    times of the files that were read."""
    try:
        found = curves.of_run(report.run, report.plan)
    except InputError:
        return ""
    parts = []
    for name, paths in found.items():
        seen |= {path: stretches.read(path) for path in paths}
        everything = [one for path in paths for one in seen[path]]
        reported = [one for one in everything if not one.phase]
        marks = [earlier.steps[-1] for earlier, later in pairwise(reported)
                 if later.restart != earlier.restart or later.steps[0] <= earlier.steps[-1]]  # fmt: skip
        loss, held_out, lr, speed = stretches.columns(
            stretches.joined(reported), "loss", "validation_loss", "lr", "tokens_per_second"
        )
        for one in everything:
            one.texts.clear()  # the greater part of the memory
        lines = [Series(say("loss"), *loss, marks), Series(say("validation"), *held_out, dashed=True)]
        own = [charts.curve(f"{name}: {say('loss')}", "", lines, logarithmic=True)]
        for column, title in ((lr, say("learning rate")), (speed, say("tokens a second"))):
            own.append(charts.curve(f"{name}: {title}", "", [Series(title, *column, marks)]))
        drawn = [f"<div class=wide>{one}</div>" for one in own if one]
        if drawn:
            more = f"<details><summary>{say('learning rate')}, {say('tokens a second')}</summary>{''.join(drawn[1:])}"
            parts.append(f"<h3>{escape(name)}</h3>{drawn[0]}" + (f"{more}</details>" if drawn[1:] else ""))
    return "\n".join(parts)


def of_answers(report: RunReport, say: Say) -> str:
    """What the models of the run answered, side by side."""
    parts = []
    for number, (task, rows) in enumerate(answers.of_run(report.plan, report.run.workspace).items()):
        chosen = answers.shown(rows)
        options = "".join(f"<option value={value}>{say(value)}</option>" for value in ("all", "worse", "better"))
        lines = []
        for row in chosen:
            kind = answers.moved(row.likeness or 0.0)
            texts = "".join(f"<div><b>{escape(name)}</b><div class=text dir=auto>{shown(text)}</div></div>"
                            for name, text in row.answers.items())  # fmt: skip
            lines.append(
                f"<div class=row data-moved={kind}><p class=soft>{shown(row.row, 80)}"
                f"{'' if kind == 'same' else ': ' + say(kind)}</p><div class=answers>"
                f"<div><b>{say('asked')}</b><div class=text dir=auto>{shown(row.asked)}</div></div>"
                f"<div><b>{say('reference')}</b><div class=text dir=auto>{shown(row.reference)}</div></div>"
                f"{texts}</div></div>"
            )
        count = "" if len(chosen) == len(rows) else f" <span class=soft>{len(chosen)} {say('of')} {len(rows):,}</span>"
        parts.append(f"<details{' open' * (number == 0)}><summary>{escape(task)}{count}</summary>"
                     f"<p class=filter><select class=filter data-of=rows-{number} aria-label='{say('shown')}'>{options}"
                     f"</select></p><div id=rows-{number}>{''.join(lines)}</div></details>")  # fmt: skip
    return "\n".join(parts)


def of_stages(stages: Sequence[StageResult], say: Say) -> str:
    """A row a stage."""
    rows = []
    for one in stages:
        first, last = one.metrics.get("first_loss"), one.metrics.get("last_loss")
        loss = f"{first:.4g} &rarr; {last:.4g}" if isinstance(first, float) and isinstance(last, float) else ""
        state = escape(one.state) + (f" ({escape(one.of_run)})" if one.of_run else "")
        rows.append([escape(one.stage), escape(one.backend), state, escape(one.job), shown(one.nodes),
                     "" if one.elapsed is None else duration(one.elapsed),
                     f"{one.gpu_hours:.2f}" if one.gpu_hours else "", "" if one.step is None else f"{one.step:,}", loss,
                     "" if one.bytes is None else f"{one.bytes / 1e6:,.1f}"])  # fmt: skip
    head = ["stage", "", "state", "job", "nodes", "elapsed", "GPU-hours", "step", "loss"]
    return table([say(word) if word else "" for word in head] + ["MB"], rows, (5, 6, 7, 9))


def of_data(report: RunReport, say: Say) -> str:
    """What the data stages kept and dropped."""
    rows = []
    for made in report.stages:
        card = Path(made.path) / "card.json" if made.path else None
        try:
            facts = strict.convert(dict[str, Any], strict.read(card), "card") if card and card.is_file() else {}
        except (OSError, ValueError):
            facts = {}
        if isinstance(facts.get("kept"), int) and isinstance(facts.get("dropped"), dict):
            dropped = ", ".join(
                f"{reason} {count:,}" for reason, count in facts["dropped"].items() if isinstance(count, int) and count
            )
            rows.append([escape(made.stage), f"{facts['kept']:,}", shown(dropped),
                         f"<code>{escape(str(Path(made.path) / 'card.html'))}</code>"])  # fmt: skip
    return table([say("stage"), say("rows kept"), "", say("the card")], rows, (1,))


def of_configuration(repeat: Repeat, say: Say) -> str:
    """Both files, and what changed in them since the run before."""
    parts = [f"<h3>{say('Changes against the run before')}</h3>"]
    if repeat.before is None:
        parts.append(f"<p class=soft>{say('no other run of this pipeline in the workspace')}</p>")
    elif not repeat.difference:
        parts.append(f"<p class=soft>{say('the same files as in run')} {escape(repeat.before)}</p>")
    else:
        parts.append(f"<pre>{shown(repeat.difference, 20_000)}</pre>")
    for title, text in ((say("pipeline"), repeat.pipeline), (say("profile"), repeat.profile)):
        parts.append(f"<details><summary>{title}</summary><pre>{shown(text, 60_000)}</pre></details>")
    return "".join(parts)


def of_again(report: RunReport, repeat: Repeat, say: Say) -> str:
    """What to type to run it once more."""
    commands = "\n".join(repeat.commands(report.run))
    versions = "".join(f"{shown(name)}: {shown(value)}\n" for name, value in repeat.versions)
    packed = f"<details><summary>{say('versions')}</summary><pre>{versions}</pre></details>" if versions else ""
    told = f"{say('to run it again')} ({say('what is in the store is not made again')}):"
    return f"<p>{told}</p><pre>{shown(commands)}</pre>{packed}"
