"""``overnight compare --html``: runs against each other as one page without a network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import chain, pairwise

from launch.base.errors import InputError
from launch.base.html import section, shown, table
from launch.plan.model import PlannedStage
from launch.report import charts
from launch.report.charts import Series
from launch.report.style import still
from launch.report.versus import COST, Against, Change, cost
from launch.report.words import Say, speaker
from launch.status import curves, results, stretches
from launch.status.report import RunReport
from launch.status.stretches import Stretch


def render(found: Sequence[Against], language: str = "en") -> str:
    """The page, in one of ``words.LANGUAGES``: differences of the files, then of the numbers, curves over tokens,
    cost."""
    say = speaker(language)
    first = found[0].before
    runs = [first, *(one.now for one in found)]
    title = " / ".join(report.run.id for report in runs)
    parts = [f"<h1>{escape(first.plan.pipeline)} <span class=soft>{escape(title)}</span></h1>"]
    for one in found:
        told = say("{run} against {other}").format(run=one.now.run.id, other=one.before.run.id)
        parts.append(section(told, _against(one, say)))
    took = table([say(word) for word in COST], cost(runs), right=(1, 2, 3))
    parts += [section(say("Curves"), _curves(runs, say)), section(say("What it took"), took)]
    return still(title, parts, language)


def _against(one: Against, say: Say) -> str:
    unchanged = f"<p>{say('The same pipeline and profile.')}</p>"
    files = f"<pre>{shown(one.difference, 20_000)}</pre>" if one.difference else unchanged
    head = ("evaluation", "metric", "before", "now", "change", "", "examples", "chance", "")
    rows = table(
        [say(word) if word else "" for word in head], [_row(change, say) for change in one.changes], right=(2, 3, 6, 7)
    )
    same = "".join(f"<p class=soft>{escape(name)}: {say('the same result, made once')}</p>" for name in one.same)
    refused = "".join(
        f"<p class=soft>{escape(name)}: {say('not comparable')}: {shown(why)}</p>" for name, why in one.refused.items()
    )
    note = say("Chance: of such a change if there were none, corrected for the number of metrics (Holm).")
    return files + rows + same + refused + (f"<p class=soft>{note}</p>" if one.changes else "")


def _row(one: Change, say: Say) -> list[str]:
    change, picture, interval = one.now - one.before, "", f"({say('too few')})"
    if one.low is not None and one.high is not None:
        interval = f"[{one.low:+.4g}, {one.high:+.4g}]"
        picture = charts.interval(one.low, change, one.high, max(abs(one.low), abs(one.high)))
    flips = ""
    if one.moved is not None:
        moved = say("{worse} worse, {better} better").format(worse=one.moved[1], better=one.moved[0])
        flips = f"<br><span class=soft>{moved}</span>"
    kind = {"better": "good", "worse": "bad"}.get(one.verdict, "soft")
    name = results.title(one.task, one.metric)
    verdict = say(one.verdict) if one.verdict else ""
    return [escape(one.evaluation), escape(name), f"{one.before:.4g}", f"{one.now:.4g}",
            f"<span class=one>{change:+.4g} {interval}</span>{flips}", picture, f"{one.n:,}", f"{one.corrected:.3g}",
            f"<b class={kind}>{verdict}</b>"]  # fmt: skip


def _curves(runs: Sequence[RunReport], say: Say) -> str:
    """Losses of the stages that several runs have, over tokens, where the settings say how many a step takes."""
    known: dict[str, list[Series]] = {}
    for report in runs:
        try:
            found = curves.of_run(report.run, report.plan)
        except InputError:
            continue
        for name, paths in found.items():
            reported = [one for one in chain.from_iterable(map(stretches.read, paths)) if not one.phase]
            tokens = _tokens(report.plan.stage(name))
            known.setdefault(name, []).append(_line(report.run.id, reported, tokens))
    drawn = []
    for name, lines in known.items():
        title = f"{name}: {say('loss over tokens')}"
        picture = charts.curve(title, "", lines, logarithmic=True)
        if picture:
            drawn.append(f"<h3>{escape(title)}</h3><div class=wide>{picture}</div>")
    return "".join(drawn)


def _tokens(stage: PlannedStage) -> int:
    """Of a step; of instructions and preferences the most that it can take. 1: the settings do not say it."""
    batch, length = stage.settings.get("batch_size"), stage.settings.get("sequence_length")
    return batch * length if isinstance(batch, int) and isinstance(length, int) else 1


def _line(name: str, reported: Sequence[Stretch], tokens: int) -> Series:
    ((steps, losses),) = stretches.columns(stretches.joined(reported), "loss")
    marks = [earlier.steps[-1] * tokens for earlier, later in pairwise(reported) if later.steps[0] <= earlier.steps[-1]]
    return Series(name, [step * tokens for step in steps], losses, marks)
