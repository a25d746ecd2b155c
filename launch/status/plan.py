"""``overnight plan`` for people: what would be submitted, on what, for how long, and what is there already.

Only files are read: no Slurm command is started, and nothing is imported that a job needs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.core import attempts, seal, strict, validation
from jobs.core.paths import RunPaths, StorePaths, Workspace
from jobs.core.progress import recent_steps
from jobs.core.seal import SealBroken
from launch.base.text import count, duration, table
from launch.config.profile import Continuation, Profile, partitions_of
from launch.plan.model import Plan, PlannedStage
from launch.status import progress

NEW = "new"
SEALED = "sealed"
MISSING = "missing input"

LOOKED_AT_RUNS = 20
"""How many earlier runs of the workspace are asked how long a stage takes."""


def states(plan: Plan, workspace: Workspace) -> dict[str, str]:
    """Stage -> ``sealed``, ``submitted by run ...``, ``missing input``, ``new`` or why not. Slurm is not asked: a
    submitted stage may wait, run, or be cancelled."""
    absent = {item.fingerprint for item in plan.missing} | {None}
    return {stage.name: _state(stage, workspace, absent) for stage in plan.stages}


def _state(stage: PlannedStage, workspace: Workspace, absent: set[str | None]) -> str:
    store = stage.store(workspace)
    if store.seal.exists():
        try:
            early = validation.early_text(seal.look(store).metrics)
        except SealBroken as error:
            return f"damaged ({error.path.name} {error.reason}): will be made again"
        return f"{SEALED} ({early})" if early else SEALED
    if any(not entry.is_job and entry.fingerprint in absent for entry in stage.inputs.values()):
        return MISSING
    return _attempted(store)


def _attempted(store: StorePaths) -> str:
    """What the newest attempt at an entry without a seal came to, as far as files tell."""
    current = attempts.current(store)
    if current is None:
        return NEW
    from jobs.core.verdict import Outcome
    from launch.runs import attempt_state
    from launch.runs.attempt_state import AttemptStatus, QueueView
    from launch.runs.journal import last_word
    from launch.status import model

    if attempt_state.was_refused(store, current):
        return f"new (run {current.run}: refused by Slurm)"
    last = last_word(store, current)
    if last is not None and last.outcome is Outcome.FAIL:
        return f"new (run {current.run}: {model.FAILURES[last.failure]})"
    if current.carrier == "local":
        alive = attempt_state.standing(store, current, QueueView(())).status is AttemptStatus.LIVE
        return f"running here in run {current.run}" if alive else f"new (run {current.run} was cut off)"
    return f"submitted by run {current.run}"


def is_new(state: str) -> bool:
    """Whether a submission makes a job for a stage in this state."""
    return state.startswith((NEW, MISSING, "damaged"))


_NO_MATTER_OF_TIME = ("seed", "steps", "epochs", "save_every", "keep_saves", "early_stopping", "select")
"""Settings that do not change how long a step takes."""


@dataclass(frozen=True)
class _Past:
    """A stage of an earlier run that did work: what it was and how long a step took."""

    signature: str
    seconds_per_step: float


def _signature(kind: str, backend: str, settings: dict[str, Any], resources: dict[str, Any]) -> str:
    """What decides the time of a step, as text."""
    decisive = {key: value for key, value in settings.items() if key not in _NO_MATTER_OF_TIME}
    shape = {key: resources[key] for key in ("nodes", "processes_per_node", "gpus_per_node")}
    return json.dumps([kind, backend, decisive, shape], sort_keys=True)


def _past(workspace: Workspace) -> list[_Past]:
    """Training stages of the newest runs, newest first. Read as plain JSON: a plan of an older version is no error."""
    try:
        roots = sorted(workspace.runs.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    except FileNotFoundError:
        return []
    found = []
    for root in roots[:LOOKED_AT_RUNS]:
        paths = RunPaths(root)
        try:
            stages = strict.read(paths.plan)["stages"]
            for entry in stages:
                if not entry["target_step"] and "epochs" not in entry["settings"]:
                    continue
                each = progress.seconds_per_step(recent_steps(paths.stage(entry["name"]).progress))
                if each is not None:
                    signature = _signature(entry["kind"], entry["backend"], entry["settings"], entry["resources"])
                    found.append(_Past(signature, each))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return found


def expected_seconds(stage: PlannedStage, past: list[_Past]) -> float | None:
    """How long the training would take, from the newest earlier run of the same settings on the same shape."""
    if stage.target_step is None:
        return None
    resources = {key: getattr(stage.resources, key) for key in ("nodes", "processes_per_node", "gpus_per_node")}
    wanted = _signature(stage.kind, stage.backend, dict(stage.settings), resources)
    each = next((entry.seconds_per_step for entry in past if entry.signature == wanted), None)
    return None if each is None else each * stage.target_step


def segments(stage: PlannedStage, profile: Profile, expected: float | None) -> str:
    """How many starts the stage will need: a number, ``1+`` where it can go on and nothing is known, or empty."""
    limit = stage.resources.time_seconds
    if limit is None:
        return ""
    if stage.continuation == "none":
        return "1"
    if expected is None:
        return "1+"
    usable = limit - profile.lead.seconds
    return str(math.ceil(expected / usable)) if usable > 0 else "1+"


def _row(stage: PlannedStage, profile: Profile, state: str, expected: float | None) -> list[str]:
    resources = stage.resources
    limit = resources.time_seconds
    return [
        stage.name,
        f"{stage.kind} (inserted)" if stage.inserted else stage.kind,
        stage.backend,
        stage.executor,
        f"{resources.nodes} x {resources.processes_per_node}",
        str(resources.nodes * resources.gpus_per_node) if resources.gpus_per_node else "",
        "" if limit is None else duration(limit),
        "" if expected is None else f"~{duration(expected)}",
        segments(stage, profile, expected),
        ", ".join(stage.parents),
        state,
    ]


_HEADER = (
    "stage", "kind", "back end", "executor", "nodes x procs", "GPUs", "limit", "expected", "segments", "waits for",
    "state",
)  # fmt: skip


def expected(plan: Plan, workspace: Workspace) -> dict[str, float | None]:
    """Stage -> seconds that its training would take, see ``expected_seconds``."""
    past = _past(workspace)
    return {stage.name: expected_seconds(stage, past) for stage in plan.stages}


def lines(
    plan: Plan,
    profile: Profile,
    workspace: Workspace,
    state: Mapping[str, str],
    seconds: Mapping[str, float | None],
    fetch_command: str,
) -> list[str]:
    """The table of stages, what a submission would cost at most, and what has to be fetched first. ``state`` and
    ``seconds``: ``states`` and ``expected`` of the plan."""
    rows = [_row(stage, profile, state[stage.name], seconds[stage.name]) for stage in plan.stages]
    shown = [f"{plan.pipeline} on {profile.name}, workspace {workspace.root}", ""]
    shown += [*table(_HEADER, rows, right=(5, 6, 7, 8)), "", _totals(plan, profile, state, seconds)]
    shown += filter(None, (_warning(stage, profile, seconds[stage.name]) for stage in plan.stages))
    shown += [f"not fetched yet: {item.name} ({item.request})" for item in plan.missing]
    return [*shown, f"next: {fetch_command}"] if plan.missing else shown


def _totals(plan: Plan, profile: Profile, state: Mapping[str, str], seconds: Mapping[str, float | None]) -> str:
    new = [stage for stage in plan.stages if is_new(state[stage.name])]
    here = len(plan.stages) - len(new)
    if profile.executor != "slurm":
        return f"{count(len(new), 'stage')} to run here, {here} not needed again"
    jobs = 0
    hours = 0.0
    costs: dict[str, float | None] = {}
    for stage in new:
        links = profile.links_of(stage.continuation)
        jobs += links
        gpus = stage.resources.nodes * (stage.resources.gpus_per_node or 0)
        known = segments(stage, profile, seconds[stage.name])
        starts = max(links, int(known)) if known.isdigit() else links
        most = starts * gpus * (stage.resources.time_seconds or 0) / 3600
        hours += most
        if most:
            price = _price(stage, profile)
            costs[stage.name] = None if price is None else most * price
    text = f"{count(len(new), 'stage')} to submit as {count(jobs, 'job')}, {here} not needed again"
    if hours:
        text += f"; at most {hours:.1f} GPU-hours{_cost(costs)}"
        if any(segments(stage, profile, seconds[stage.name]) == "1+" for stage in new):
            text += ", counting one time limit for each stage whose need is not known (1+)"
    return text


def _price(stage: PlannedStage, profile: Profile) -> float | None:
    """Of a GPU-hour; of several partitions the dearest, since Slurm chooses. None: one of them has no price."""
    known = [profile.partitions.get(name) for name in partitions_of(stage.resources)]
    prices = [None if one is None else one.cost_per_gpu_hour for one in known]
    return max((price for price in prices if price is not None), default=None) if None not in prices else None


def _cost(costs: dict[str, float | None]) -> str:
    """What these stages cost at most, and which of them have no price; empty where none has one."""
    known = [cost for cost in costs.values() if cost is not None]
    if not known:
        return ""
    without = [name for name, cost in costs.items() if cost is None]
    rest = f" without {', '.join(without)} (their partition has no cost_per_gpu_hour)" if without else ""
    return f" for {sum(known):,.2f} in the unit of cost_per_gpu_hour{rest}"


def _warning(stage: PlannedStage, profile: Profile, expected: float | None) -> str | None:
    """What will not work out, as far as earlier runs tell."""
    limit = stage.resources.time_seconds
    if expected is None or limit is None:
        return None
    if stage.continuation == "none" and expected > limit:
        return f"{stage.name}: takes about {duration(expected)}, is ended after {duration(limit)}, and cannot resume"
    needed = segments(stage, profile, expected)
    if stage.continuation == Continuation.CHAIN.value and needed.isdigit() and int(needed) > profile.links:
        return f"{stage.name}: needs about {needed} jobs, the profile's links are {profile.links}"
    return None
