"""Charts as SVG, each with a title and a description in words. Colours are those of ``launch.report.style``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from launch.base.text import clock, duration
from launch.report.night import Night

WIDTH, LEFT, RIGHT = 960, 150, 16
_ROW = 26
MOST_POINTS = 1000
"""Of a line: a bucket of what lies beyond keeps its lowest and its highest."""


@dataclass(frozen=True)
class Series:
    """Points of one curve: ``steps`` (rising) and ``values``; ``marks``: steps where a start went on."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]
    marks: Sequence[float] = ()
    dashed: bool = False


def thinned(steps: Sequence[float], values: Sequence[float], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """At most ``most`` of the points, in order, with every bucket's lowest and highest, so that no spike is lost."""
    if len(steps) <= most:
        return list(zip(steps, values, strict=True))
    buckets = most // 2
    found = []
    for number in range(buckets):
        first, end = number * len(steps) // buckets, (number + 1) * len(steps) // buckets
        part = values[first:end]
        ends = {part.index(min(part)), part.index(max(part))}
        found += [(steps[first + at], part[at]) for at in sorted(ends)]
    return found


def timeline(night: Night) -> str:
    """Rows of stages over the time of the run."""
    span = max(night.end - night.start, 1.0)
    inner = WIDTH - LEFT - RIGHT

    def x(time: float) -> float:
        return LEFT + inner * min(1.0, max(0.0, (time - night.start) / span))

    height = _ROW * len(night.stages) + 30
    parts = []
    for at, label in _hours(night.start, night.end):
        parts.append(f"<path class=grid d='M{x(at):.1f} 18V{height - 8}'/><text x='{x(at):.1f}' y='12' "
                     f"text-anchor=middle>{label}</text>")  # fmt: skip
    for number, stage in enumerate(night.stages):
        y = 22 + _ROW * number
        parts.append(f"<text x='{LEFT - 8}' y='{y + 14}' text-anchor=end>{escape(_short(stage.stage))}</text>")
        for one in stage.spans:
            width = max(0.6, x(one.end) - x(one.start))
            told = f"{stage.stage}: {one.doing}, {duration(one.seconds)} from {clock(one.start)}"
            parts.append(
                f"<rect class='{_class(one.doing)}' x='{x(one.start):.1f}' y='{y}' width='{width:.1f}' height='18'>"
                f"<title>{escape(told)}</title></rect>"
            )
        for start in stage.starts:
            if start.ended:
                told = f"{stage.stage}: {start.ended} (job {start.job}, start {start.restart + 1} on {start.host})"
                end = next((one.end for one in reversed(stage.spans) if one.start >= start.time), start.time)
                following = [one.time for one in stage.starts if one.time > start.time]
                end = min([end, *following[:1]])
                parts.append(
                    f"<text class=cross x='{x(end):.1f}' y='{y + 14}' text-anchor=middle>&#215;"
                    f"<title>{escape(told)}</title></text>"
                )
    return _svg(height, "What each stage did when", f"{len(night.stages)} stages in {duration(span)}", parts)


def _class(doing: str) -> str:
    return "d-" + doing.split(" ")[0]


def _short(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "\u2026"


def _hours(start: float, end: float) -> list[tuple[float, str]]:
    """Some ticks with the time of day."""
    steps = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 604800)
    step = next((one for one in steps if (end - start) / one <= 8), steps[-1])
    first = int(start // step + 1) * step
    return [(float(at), clock(at)) for at in range(first, int(end) + 1, step)][:12]


def curve(title: str, unit: str, lines: Sequence[Series], logarithmic: bool = False) -> str:
    """Lines over steps, with marks where a start went on. Empty without a point."""
    import math

    shown = [(line, thinned(line.steps, line.values)) for line in lines if line.steps]
    if not shown:
        return ""
    values = [y for _, points in shown for _, y in points]
    steps = [x for _, points in shown for x, _ in points]
    logarithmic = logarithmic and min(values) > 0 and max(values) / min(values) > 20
    scaled = math.log if logarithmic else float
    low, high = scaled(min(values)), scaled(max(values))
    first, last = min(steps), max(steps)
    height, top, bottom = 240, 14, 24

    def x(step: float) -> float:
        return 64 + (WIDTH - 64 - RIGHT) * ((step - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        share = (scaled(value) - low) / (high - low) if high > low else 0.5
        return top + (height - top - bottom) * (1 - share)

    parts = []
    levels = [low + share * (high - low) for share in _TICKS]
    ticks = [math.exp(level) if logarithmic else level for level in levels] if high > low else [values[0]]
    for value, label in zip(ticks, _labels(ticks), strict=True):
        parts.append(f"<path class=grid d='M64 {y(value):.1f}H{WIDTH - RIGHT}'/><text x='58' y='{y(value) + 4:.1f}' "
                     f"text-anchor=end>{label}</text>")  # fmt: skip
    for step in dict.fromkeys(round(first + share * (last - first)) for share in _TICKS):
        anchor = "end" if x(step) > WIDTH - RIGHT - 1 else "middle"  # else a long number is cut off
        parts.append(f"<text x='{x(step):.1f}' y='{height - 4}' text-anchor={anchor}>{step:,.0f}</text>")
    for number, (line, points) in enumerate(shown):
        for mark in line.marks:
            parts.append(f"<path class=mark d='M{x(mark):.1f} {top}V{height - bottom}'><title>a start went on after "
                         f"step {mark:,.0f}</title></path>")  # fmt: skip
        path = "L".join(f"{x(step):.1f} {y(value):.1f}" for step, value in points)
        kind = f"line l{number % 4}{' dashed' * line.dashed}"
        dot = f"<circle class='dot l{number % 4}' cx='{x(points[0][0]):.1f}' cy='{y(points[0][1]):.1f}' r='3'/>"
        parts.append(f"<path class='{kind}' d='M{path}'/>" + dot * (len(points) == 1))
        parts.append(f"<text class='name l{number % 4}' x='{WIDTH - RIGHT}' y='{top + 14 * number + 6}' "
                     f"text-anchor=end>{escape(line.name)}</text>")  # fmt: skip
    said = "; ".join(f"{line.name}: {points[0][1]:.4g} to {points[-1][1]:.4g}" for line, points in shown)
    return _svg(height, f"{title}{f' ({unit})' if unit else ''}", said, parts)


_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def _labels(values: Sequence[float]) -> list[str]:
    """As short as they can be and still differ."""
    found = [""]
    for digits in range(4, 16):
        found = [f"{value:.{digits}g}" for value in values]
        if len(set(found)) == len(set(values)):
            break
    return found


def interval(low: float, value: float, high: float, most: float, told: str | None = None) -> str:
    """An interval of a change around zero, ``most`` on either side; ``told``: what it says to who cannot see it."""
    width, middle = 180, 90

    def x(at: float) -> float:
        return middle + (middle - 6) * max(-1.0, min(1.0, at / most if most else 0.0))

    told = told or f"{value:+.4g}, 95 % from {low:+.4g} to {high:+.4g}"
    return (
        f"<svg class=interval viewBox='0 0 {width} 18' role=img><title>{escape(told)}</title>"
        f"<path class=grid d='M{middle} 0V18'/><path class=line d='M{x(low):.1f} 9H{x(high):.1f}M{x(low):.1f} 5V13"
        f"M{x(high):.1f} 5V13'/><circle class=dot cx='{x(value):.1f}' cy='9' r='4'/></svg>"
    )


def _svg(height: int, title: str, said: str, parts: Sequence[str]) -> str:
    return (
        f"<svg viewBox='0 0 {WIDTH} {height}' role=img><title>{escape(title)}</title><desc>{escape(said)}</desc>"
        f"{''.join(parts)}</svg>"
    )
