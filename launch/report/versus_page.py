"""``overnight compare --html``: runs against each other as one page without a network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import chain, pairwise

from jobs.core.progress import Report
from launch.base.errors import InputError
from launch.base.html import section, shown, table
from launch.plan.model import PlannedStage
from launch.report import charts
from launch.report.charts import Series
from launch.report.style import still
from launch.report.versus import COST, Against, Change, cost
from launch.status import curves, results
from launch.status.report import RunReport


def render(found: Sequence[Against]) -> str:
    """The page: differences of the files, then of the numbers, curves over tokens, cost."""
    first = found[0].before
    runs = [first, *(one.now for one in found)]
    title = " / ".join(report.run.id for report in runs)
    parts = [f"<h1>{escape(first.plan.pipeline)} <span class=soft>{escape(title)}</span></h1>"]
    for one in found:
        parts.append(section(f"{one.now.run.id} against {one.before.run.id}", _against(one)))
    parts += [section("Curves", _curves(runs)), section("What it took", table(COST, cost(runs), right=(1, 2, 3)))]
    return still(title, parts)


def _against(one: Against) -> str:
    files = f"<pre>{shown(one.difference, 20_000)}</pre>" if one.difference else "<p>The same pipeline and profile.</p>"
    head = ("evaluation", "metric", "before", "now", "change", "", "examples", "chance", "")
    rows = table(head, [_row(change) for change in one.changes], right=(2, 3, 6, 7))
    same = "".join(f"<p class=soft>{escape(name)}: the same result, made once</p>" for name in one.same)
    refused = "".join(
        f"<p class=soft>{escape(name)}: not comparable: {shown(why)}</p>" for name, why in one.refused.items()
    )
    note = "<p class=soft>Chance: of such a change if there were none, corrected for the number of metrics (Holm).</p>"
    return files + rows + same + refused + (note if one.changes else "")


def _row(one: Change) -> list[str]:
    change, picture, interval = one.now - one.before, "", "(too few)"
    if one.low is not None and one.high is not None:
        interval = f"[{one.low:+.4g}, {one.high:+.4g}]"
        picture = charts.interval(one.low, change, one.high, max(abs(one.low), abs(one.high)))
    flips = "" if one.moved is None else f"<br><span class=soft>{one.moved[1]} worse, {one.moved[0]} better</span>"
    kind = {"better": "good", "worse": "bad"}.get(one.verdict, "soft")
    name = results.title(one.task, one.metric)
    return [escape(one.evaluation), escape(name), f"{one.before:.4g}", f"{one.now:.4g}",
            f"<span class=one>{change:+.4g} {interval}</span>{flips}", picture, f"{one.n:,}", f"{one.corrected:.3g}",
            f"<b class={kind}>{one.verdict}</b>"]  # fmt: skip


def _curves(runs: Sequence[RunReport]) -> str:
    """Losses of the stages that several runs have, over tokens, where the settings say how many a step takes."""
    known: dict[str, list[Series]] = {}
    for report in runs:
        try:
            found = curves.of_run(report.run, report.plan)
        except InputError:
            continue
        for name, paths in found.items():
            reports = list(chain.from_iterable(map(curves.steps, paths)))
            tokens = _tokens(report.plan.stage(name))
            known.setdefault(name, []).append(_line(report.run.id, reports, tokens))
    drawn = []
    for name, lines in known.items():
        picture = charts.curve(f"{name}: loss over tokens", "", lines, logarithmic=True)
        if picture:
            drawn.append(f"<h3>{escape(name)}: loss over tokens</h3><div class=wide>{picture}</div>")
    return "".join(drawn)


def _tokens(stage: PlannedStage) -> int:
    """Of a step; of instructions and preferences the most that it can take. 1: the settings do not say it."""
    batch, length = stage.settings.get("batch_size"), stage.settings.get("sequence_length")
    return batch * length if isinstance(batch, int) and isinstance(length, int) else 1


def _line(name: str, reports: Sequence[Report], tokens: int) -> Series:
    points = [(one.step * tokens, one.metrics["loss"]) for one in curves.joined(reports) if "loss" in one.metrics]
    marks = [earlier.step * tokens for earlier, later in pairwise(reports) if later.step <= earlier.step]
    return Series(name, points, marks)
