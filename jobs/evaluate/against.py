"""Two evaluations of two runs compared with each other, as ``overnight compare`` asks for it on a login node.

Each metric of each task is compared on the examples that both measured, from their ``samples.jsonl``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.evaluate import compare, gates, kept
from jobs.evaluate.curve import OWN
from jobs.evaluate.settings import EvaluateSettings
from jobs.training.settings import BadSettings


def answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Task -> ``metrics``, or ``refused``: why its examples cannot be compared; ``error`` where nothing can be.

    ``asked``: ``before`` and ``now``, the outputs of two evaluations, and ``settings``, of the newer one. ``chance`` of
    a metric is that of a change as large as this one or larger, to either side, if there were none; ``corrected`` is it
    for the family of all metrics (Holm).
    """
    given = {name: value for name, value in asked["settings"].items() if name not in OWN}
    settings = EvaluateSettings.read({**given, "gate": {}})
    before, now = (kept.read_samples(Path(asked[side]) / "samples.jsonl") for side in ("before", "now"))
    tasks: dict[str, Any] = {}
    chances: dict[str, float] = {}
    for task in settings.tasks:
        if task not in now or task not in before:
            tasks[task] = {"refused": "only one of the two evaluations has it"}
            continue
        try:
            found = compare.evaluate({task: now[task]}, {task: before[task]}, settings)
        except BadSettings as error:
            tasks[task] = {"refused": str(error)}
            continue
        except KeyError as error:  # such as of the toy back end, which keeps its own numbers
            tasks[task] = {"refused": f"its examples have no {error}: the back end keeps nothing that can be compared"}
            continue
        changes = {name: one.change for name, one in found.tasks[task].items() if one.change is not None}
        if not changes:  # of one that is compared with another evaluation already there are none, either
            tasks[task] = {"refused": "the two evaluations have no example in common"}
            continue
        known = compare.as_json(found, {}, settings)[task]
        tasks[task] = {**known, "metrics": {name: known["metrics"][name] for name in changes}}
        for name, change in changes.items():
            chances[f"{task}\0{name}"] = min(1.0, 2 * min(change.below(0.0), change.above(0.0)))
    corrected = gates.holm(chances)
    for key, chance in chances.items():
        task, _, name = key.partition("\0")
        if "metrics" in tasks[task]:
            tasks[task]["metrics"][name]["change"] |= {"chance": chance, "corrected": corrected[key]}
    return {"tasks": tasks}
