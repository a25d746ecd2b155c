"""How many examples a metric will be measured on, from what the seals of its data say and the limit of its task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.core import seal
from jobs.core.paths import Workspace
from jobs.core.tasks import HARMLESS, JudgedKeys, TransferKeys, kind_of
from launch.inputs.benchmarks import CLEAR
from launch.plan.model import PlannedInput, PlannedStage


def examples_of(stage: PlannedStage, task: str, workspace: Workspace, metric: str = "") -> int | None:
    """Rows that a metric of a task (without one: the task) is about; of a corpus each document is one. Of a benchmark
    whose rows were not counted as many as its limit says; None: the data is not made yet."""
    wanted = stage.settings["tasks"].get(task, {})
    kind = kind_of(task, wanted)
    if "benchmark" in wanted:
        return _of_benchmark(stage, wanted, workspace, "" if kind is None else kind.name, metric)
    if kind is not None and kind.keys is JudgedKeys and metric.startswith(("judge_", "ruler_")):
        return known_pairs(stage, wanted.get("judged_by") or {}, workspace)
    split = "test" if "choose" in stage.settings else wanted.get("split", "test")  # a choice is measured again there
    made = _made(stage.inputs.get(wanted.get("data", "")), workspace).get(split)
    if not isinstance(made, int) or made <= 0:
        return None
    if kind is not None and kind.keys is TransferKeys:  # a twin is a row of each language
        made //= max(1, len(wanted.get("languages") or ()))
    return _limited(made, wanted.get("limit"))


def known_pairs(stage: PlannedStage, told: Mapping[str, Any], workspace: Workspace) -> int | None:
    """Pairs with a known answer that the judge of a task is asked about; None: their data is not made yet."""
    source = told.get("calibrate_on")
    if source is None:
        return 0
    made = _made(stage.inputs.get(source), workspace).get("test")
    return _limited(made, told["calibrate_limit"]) if isinstance(made, int) else None


def _made(data: PlannedInput | None, workspace: Workspace) -> Mapping[str, Any]:
    """What the seal of an input counts; nothing where there is none."""
    if data is None:
        return {}
    try:
        return seal.load(data.store(workspace).seal).metrics
    except (OSError, ValueError, seal.SealBroken):
        return {}


def _limited(made: int, limit: Any) -> int:
    return min(made, limit) if isinstance(limit, int) else made


def _of_benchmark(
    stage: PlannedStage, wanted: Mapping[str, Any], workspace: Workspace, kind: str, metric: str
) -> int | None:
    source, place, limit = str(wanted["benchmark"]).partition("/")[0], wanted.get("rows", ""), wanted.get("limit")
    known = _made(stage.inputs.get(f"benchmark:{source}"), workspace)
    if not known:
        return None
    made = _below(known.get("rows"), place, alone=kind == "harness")
    if kind == "refusal" and metric == "harmless":
        own = sum(found.get(metric, 0) for found in _there(known.get("kinds"), place))
        return _limited(own or sum(HARMLESS.get(one, 0) for one in wanted.get("language") or ("en",)), limit)
    if not made:
        return limit if isinstance(limit, int) else None
    if kind == "refusal":
        return _limited(made - sum(found.get("harmless", 0) for found in _there(known.get("kinds"), place)), limit)
    if kind == "bbq" and metric in ("ambiguous", "clear"):  # the limit is of both together
        share = CLEAR.get(place, 0.5)
        return round(_limited(made, limit) * (share if metric == "clear" else 1 - share))
    return _limited(made, limit)


def _there(counted: Any, place: str) -> list[Any]:
    """What was counted of the files at or below a place."""
    return [
        found for path, found in (counted or {}).items() if not place or path == place or path.startswith(f"{place}/")
    ]


def _below(counted: Any, place: str, *, alone: bool) -> int:
    """Rows of the files at or below a place. ``alone``: a data set in several files is not counted: they are its
    splits, or its parts."""
    found = _there(counted, place)
    return 0 if alone and len(found) != 1 else sum(map(int, found))
