"""What the notebooks share: which pipelines they run, pictures, and when a change counts as shown."""

from __future__ import annotations

import os
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import overnight

CHOICE = os.environ.get("OVERNIGHT_NOTEBOOKS", "pt_pt")
"""Folder of the pipelines: ``pt_pt`` trains a real model, ``toy`` a character model in seconds."""

PIPELINES = Path(__file__).resolve().parent / CHOICE
IS_REAL = CHOICE == "pt_pt"
WIDTH, HEIGHT = 6.4, 2.6
"""Of a picture, in inches."""


def shown(before: overnight.Measurement, now: overnight.Measurement) -> str:
    """``fell``, ``rose`` or ``undecided``: the paired interval of the change excludes 0, or, where the back end compares
    no examples (toy), the two intervals do not overlap."""
    change = now.change
    if change is not None:
        low, high = change.low, change.high
        if low is None or high is None or low <= 0 <= high:
            return "undecided"
        return "rose" if low > 0 else "fell"
    if None in (before.low, before.high, now.low, now.high):
        return "undecided"
    if now.high < before.low:  # type: ignore[operator]
        return "fell"
    return "rose" if now.low > before.high else "undecided"  # type: ignore[operator]


def thirds(curve: overnight.TrainingCurve, metric: str = "loss") -> tuple[float, float]:
    """The mean of a metric over the first third of the steps and over the last: single steps depend on their batch."""
    values = [value for _, value in curve.column(metric)]
    size = max(1, len(values) // 3)
    return sum(values[:size]) / size, sum(values[-size:]) / size


def draw(curves: dict[str, overnight.TrainingCurve], metric: str = "loss") -> Any:
    """The metric of training stages over their steps."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(curves), figsize=(WIDTH, HEIGHT), dpi=80, squeeze=False)
    for axis, (name, curve) in zip(axes[0], curves.items(), strict=True):
        points = curve.column(metric)
        axis.plot([step for step, _ in points], [value for _, value in points], marker=".")
        axis.set(title=name, xlabel="step", ylabel=metric)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    plt.close(figure)
    return figure


def draw_intervals(found: Iterable[overnight.Measurement]) -> Any:
    """Values with their 95 % intervals, one below the other."""
    import matplotlib.pyplot as plt

    rows = [one for one in found if one.low is not None and one.high is not None]
    figure, axis = plt.subplots(figsize=(WIDTH, 0.6 + 0.4 * len(rows)), dpi=80)
    for number, one in enumerate(rows):
        below, above = one.value - (one.low or 0.0), (one.high or 0.0) - one.value
        axis.errorbar([one.value], [-number], xerr=[[below], [above]], fmt="o", capsize=4)
    axis.set_yticks([-number for number in range(len(rows))])
    axis.set_yticklabels([f"{one.evaluation} {one.task}" for one in rows])
    axis.set_xlabel(rows[0].metric if rows else "")
    axis.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    plt.close(figure)
    return figure


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> Any:
    """An HTML table; every cell is text, whatever a model wrote."""
    from IPython.display import HTML

    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return HTML(f"<table><tr>{head}</tr>{body}</table>")


def masked(prompt: str, completion: str) -> Any:
    """A pair with what counts for the loss in colour."""
    from IPython.display import HTML

    grey, green = "color:#888", "background:#cfe8cf;color:#000"
    return HTML(
        f"<pre><span style='{grey}'>{escape(prompt)}</span><span style='{green}'>{escape(completion)}</span></pre>"
    )
