"""Every number of ``overnight report RUN --json``, counted again from the raw files of the run and of the store.

``python -m tests.support.recount RUN_DIRECTORY`` prints them beside each other. Nothing of the report's code, or of any
other code of ours, is imported: the files are JSON lines, and formulas are those of docs/morning.md and
docs/evaluation.md. What is drawn by chance (a bootstrap) is held against Student's interval of the linearised metric.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from tests.support.raw import Counted, Numbers, Stage, exactly, json_lines, stages_of
from tests.support.recount_measured import of_evaluation

AT_WORK = ("starting", "working", "made again", "ending")


@dataclass(frozen=True)
class Row:
    """One number of the report; ``counted`` is None where nothing was found that it could follow from."""

    path: str
    reported: float | None
    counted: Counted | None

    @property
    def agrees(self) -> bool:
        return self.counted is not None and self.reported is not None and self.counted.fits(self.reported)


# What a stage took, and what it left


def last_sign(stage: Stage, start: Mapping[str, Any]) -> float:
    """When a start noted or reported something for the last time: its verdict, unless it was killed."""
    notes = json_lines(stage.directory / "events.jsonl")
    own = [one["time"] for one in notes if (one["job"], one["restart"]) == (start["job"], start["restart"])]
    return float(max([*own, *(one["time"] for one in stage.reports() if one["restart"] == start["restart"])]))


def elapsed(stage: Stage) -> float:
    """Of all starts: from the note of the start to its last sign of life."""
    return sum(last_sign(stage, one) - one["time"] for one in stage.events("start"))


def of_stage(stage: Stage) -> Numbers:
    """Under ``stages.NAME``."""
    took, output = elapsed(stage), stage.store / "output"
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    found = {
        "elapsed": exactly(took, "events.jsonl: starts and their last words"),
        "gpu_hours": exactly(stage.gpus * took / 3600, "GPUs of plan.json times elapsed"),
        "continued": exactly(len(stage.claims()) - 1, "claims"),
        "bytes": exactly(size, "sizes of the files of output/"),
    }
    if stage.plan["produces_kind"] == "dataset":
        found |= {f"metrics.{path.stem}": exactly(len(path.read_text().splitlines()), f"lines of output/{path.name}")
                  for path in output.glob("*.jsonl")}  # fmt: skip
    elif stage.plan["produces_kind"] == "checkpoint":
        found |= _of_training(stage)
    return found


def _of_training(stage: Stage) -> Numbers:
    steps = [one for one in stage.reports() if not one.get("phase")]
    last_start = stage.claims()[-1]["restart"]
    own = [one for one in steps if one["restart"] == last_start]
    settings, losses = stage.plan["settings"], [one["metrics"]["loss"] for one in steps]
    found = {"step": exactly(steps[-1]["step"], "the last line of progress.jsonl")}
    if stage.plan["backend"] == "toy":
        return found | {"metrics.loss": exactly(losses[-1], "the last line of progress.jsonl")}
    gaps = sorted(later["time"] - one["time"] for one, later in pairwise(own[3:]))
    begins = stage.events("start")[-1]["time"]
    tokens = len(own) * settings["batch_size"] * settings["sequence_length"]
    return found | {
        "metrics.first_loss": exactly(losses[0], "the first line of progress.jsonl"),
        "metrics.last_loss": exactly(losses[-1], "the last line of progress.jsonl"),
        "metrics.tokens": exactly(tokens, "steps of the last start x batch_size x sequence_length"),
        "metrics.seconds": Counted(own[-1]["time"] - own[0]["time"], own[-1]["time"] - begins + 30,
                                   "progress.jsonl: at least from the first to the last step of the last start"),
        "metrics.step_seconds": Counted(0.5 * gaps[len(gaps) // 2], 1.2 * gaps[len(gaps) // 2],
                                        "progress.jsonl: about the median time between two steps"),
    }  # fmt: skip


# The night


@dataclass(frozen=True)
class Span:
    doing: str
    start: float
    end: float


def spans_of(stage: Stage, submitted: float, parents_end: float) -> list[Span]:
    """From the claims, reports and verdicts of a stage that is over."""
    starts, reports, reached = stage.claims(), stage.reports(), 0
    marks: list[tuple[str, float]] = []
    """What began when; the next mark ends it."""
    if submitted < parents_end:
        marks.append(("waiting", submitted))
    marks.append(("queued", max(submitted, parents_end)))
    for number, start in enumerate(starts):
        until = starts[number + 1]["time"] if number + 1 < len(starts) else math.inf
        own = [one for one in reports if one["restart"] == start["restart"] and start["time"] <= one["time"] < until]
        steps = [one for one in own if not one.get("phase")]
        marks.append(("starting", start["time"]))
        if own:
            first = (steps or own)[0]["time"]
            again = [one["time"] for one in steps if one["step"] <= reached]
            if again:
                marks.append(("made again", first))
            marks.append(("working", max([first, *again])))
            marks.append(("ending", own[-1]["time"]))
            reached = max([reached, *(one["step"] for one in steps)])
        said = stage.verdict(start)
        marks.append(("queued", last_sign(stage, start) if said["judged_by"] else said["time"]))
    over = marks.pop()[1]
    ends = [*(at for _, at in marks[1:]), over]
    return [Span(doing, at, end) for (doing, at), end in zip(marks, ends, strict=True) if end > at]


def saving(stage: Stage) -> float:
    return float(sum(one["seconds"] for one in stage.events("save_took") if not one.get("sealed")))


def of_night(run: Path, stages: Sequence[Stage]) -> Numbers:
    """Under ``night``."""
    journal = json_lines(run / "journal.jsonl")
    created = journal[0]["time"]
    spans: dict[str, list[Span]] = {}
    found: Numbers = {"start": exactly(created, "journal.jsonl: created")}
    for stage in stages:
        submitted = next(one["time"] for one in journal if one["event"] == "submitted" and one["stage"] == stage.name)
        above = [one["stage"] for one in stage.plan["inputs"].values() if one["stage"] in spans]
        own = spans[stage.name] = spans_of(stage, submitted, max([0.0, *(spans[name][-1].end for name in above)]))
        found |= _of_stage_night(stage, own)
    times = [0.0] * 5
    weigh = any(stage.gpus for stage in stages)
    for stage in stages:
        weight = stage.gpus if weigh else 1
        by = [sum(one.end - one.start for one in spans[stage.name] if one.doing == doing) for doing in AT_WORK]
        paused = saving(stage)
        for number, one in enumerate((by[1] - paused, by[0], paused, by[2], by[3])):
            times[number] += weight * one
    source = "claims, progress.jsonl and verdicts, by GPUs"
    names = ("working", "starting", "saving", "made again", "ending")
    found |= {f"spent.{name}": exactly(one, source) for name, one in zip(names, times, strict=True)}
    hours, price = sum(stage.gpus * elapsed(stage) for stage in stages) / 3600, _price(run)
    found |= {
        "end": exactly(max(own[-1].end for own in spans.values()), "the last verdict"),
        "goodput": exactly(times[0] / sum(times), source),
        "queued_while_nothing_ran": exactly(_idle([one for own in spans.values() for one in own]), source),
        "gpu_hours": exactly(hours, "events.jsonl, plan.json"),
    }
    return found | ({} if price is None else {"cost": exactly(hours * price, "the same times profile.yaml")})


def _of_stage_night(stage: Stage, own: Sequence[Span]) -> Numbers:
    head, source = f"stages.{stage.name}", "journal.jsonl, claims, progress.jsonl, verdicts"
    found = {f"{head}.gpus": exactly(stage.gpus, "plan.json"),
             f"{head}.saving": exactly(saving(stage), "events.jsonl: save_took")}  # fmt: skip
    for doing in ("waiting", "queued", *AT_WORK):
        total = sum(one.end - one.start for one in own if one.doing == doing)
        found[f"{head}.seconds.{doing}"] = exactly(total, source)
    for number, one in enumerate(own):
        found[f"{head}.spans.{number}.start"] = exactly(one.start, f"{source}: {one.doing}")
        found[f"{head}.spans.{number}.end"] = exactly(one.end, f"{source}: {one.doing}")
    for number, start in enumerate(stage.claims()):
        found[f"{head}.starts.{number}.time"] = exactly(start["time"], "the claim")
        found[f"{head}.starts.{number}.restart"] = exactly(start["restart"], "the claim")
    return found


def _idle(spans: Sequence[Span]) -> float:
    """Seconds in which something was queued and nothing worked: from one moment of change to the next."""
    moments = sorted({at for one in spans for at in (one.start, one.end)})
    total = 0.0
    for one, other in pairwise(moments):
        doing = {span.doing for span in spans if span.start <= one and span.end >= other}
        if "queued" in doing and not doing & {*AT_WORK}:
            total += other - one
    return total


def _price(run: Path) -> float | None:
    partitions = yaml.safe_load((run / "profile.yaml").read_text()).get("partitions", {})
    prices = [one["cost_per_gpu_hour"] for one in partitions.values() if "cost_per_gpu_hour" in one]
    return float(prices[0]) if prices else None


# All of it


def counted(run: Path) -> Numbers:
    """Every number that the report of a run which is over has to show, by its path in the JSON."""
    stages = stages_of(run)
    by_name = {one.name: one for one in stages}
    found: Numbers = {}
    for stage in stages:
        found |= {f"stages.{stage.name}.{name}": one for name, one in of_stage(stage).items()}
        if stage.plan["produces_kind"] == "evaluation":
            for task, metric, numbers in of_evaluation(stage, by_name):
                found |= {f"results.{stage.name}.{task}.{metric}.{name}": one for name, one in numbers.items()}
                found[f"stages.{stage.name}.metrics.{task}.{metric}"] = numbers["now.value"]
    model = [one for one in stages if one.plan["produces_kind"] == "checkpoint"][-1]
    found |= {f"model.{name}": one for name, one in of_stage(model).items()}
    answered = [one["time"] for one in json_lines(run / "journal.jsonl") if one["event"] == "submitted"]
    found["cluster.responded_at"] = exactly(max(answered), "journal.jsonl: the last submission")
    return found | {f"night.{name}": one for name, one in of_night(run, stages).items()}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a report, by its path; entries of lists by what they are about."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return
    if isinstance(value, int | float):
        yield path, value
        return
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in pairs:
        name = str(key)
        if isinstance(value, list) and isinstance(one, dict):
            about = [one.get(known) for known in ("stage", "evaluation", "task", "metric") if known in one]
            name = ".".join(map(str, about)) or name
        yield from leaves(one, f"{path}.{name}" if path else name)


def compare(run: Path, report: Mapping[str, Any]) -> list[Row]:
    """Each number of the report, and each that it should have shown."""
    shown, own = dict(leaves(dict(report))), counted(run)
    return [Row(path, shown.get(path), own.get(path)) for path in sorted({*shown, *own})]


def reported(workspace: Path, run: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """What ``overnight report --json`` prints."""
    command = [sys.executable, "-P", "-m", "launch.cli", "report", run, "--json", "--workspace", str(workspace)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    return dict(json.loads(done.stdout))


def lines(rows: Sequence[Row]) -> list[str]:
    """For people."""
    found = [f"{'number of the report':50} {'reported':>20} {'counted':>20}  from"]
    for row in rows:
        said = "-" if row.reported is None else f"{row.reported:.10g}"
        own = "-"
        if row.counted is not None:
            low, high = row.counted.low, row.counted.high
            own = f"{low:.10g}" if low == high else f"{low:.4g} to {high:.4g}"
        source = row.counted.source if row.counted else "NOTHING"
        found.append(f"{row.path:50} {said:>20} {own:>20}  {source}{'' if row.agrees else '  DIFFERS'}")
    wrong = sum(not row.agrees for row in rows)
    return [*found, f"{len(rows)} numbers, {wrong} differ" if wrong else f"{len(rows)} numbers, none differs"]


def main() -> int:
    """Print every number of the run in a directory."""
    run = Path(sys.argv[1]).absolute()
    rows = compare(run, reported(run.parent.parent, run.name, {}))
    print("\n".join(lines(rows)))
    return 0 if all(row.agrees for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
