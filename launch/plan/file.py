"""A plan as JSON and back: ``plan.json`` of a run and ``overnight plan --json``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.core import files
from jobs.core.capabilities import Memory
from jobs.core.spec import Source
from launch.base.errors import InputError
from launch.config.profile import Resources
from launch.plan.model import FetchedFacts, Plan, PlannedInput, PlannedStage

SCHEMA = 1


def to_json(plan: Plan) -> dict[str, Any]:
    """Plain data with nothing secret in it: names and numbers only."""
    value = {"schema": SCHEMA, **asdict(plan)}
    for entry in value["stages"]:
        entry["resources"] = entry["resources"].plain()
    return value


def _stage(value: dict[str, Any]) -> PlannedStage:
    value["inputs"] = {role: PlannedInput(**entry) for role, entry in value["inputs"].items()}
    value["resources"] = Resources(**value["resources"])
    value["memory"] = None if value.get("memory") is None else Memory.of(value["memory"])
    value["sources"] = tuple(Source(**entry) for entry in value["sources"])
    return PlannedStage(**value)


def from_json(value: dict[str, Any]) -> Plan:
    """The plan that ``to_json`` made. Raises ValueError: of another schema, or not a plan."""
    try:
        if value["schema"] != SCHEMA:
            raise ValueError(f"plan of schema {value['schema']}, this version reads {SCHEMA}")
        return Plan(
            value["pipeline"],
            tuple(_stage(entry) for entry in value["stages"]),
            tuple(FetchedFacts(**entry) for entry in value["fetched"]),
            value["core_python"],
            value.get("code"),
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ValueError(f"not a plan: {error}") from error


def save(path: Path, plan: Plan) -> None:
    """Write a run's plan."""
    files.write_record(path, {"schema": SCHEMA, **vars(plan)})


def load(path: Path) -> Plan:
    """The plan of a run. Raises InputError: unreadable, or missing: cut off before anything was submitted."""
    try:
        return from_json(files.read_json(path))
    except FileNotFoundError:
        raise InputError(
            f"run {path.parent.name} has no plan: it was cut off before anything was submitted",
            hint="submit the pipeline again",
        ) from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
