"""What a run was planned from, how that differs from the run before, and how to run it once more."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.core import files, redaction, strict
from launch.base.errors import InputError
from launch.plan.model import Plan
from launch.runs import rundir
from launch.runs.journal import Event
from launch.runs.rundir import Run


@dataclass(frozen=True)
class Repeat:
    """``pipeline`` and ``profile``: both files as they were, secrets left out; ``before``: the run of the same pipeline
    that was made last before this one; ``difference``: what changed since then, as a unified diff; ``versions``: of the
    packages that are pinned in the plan."""

    pipeline: str
    profile: str
    before: str | None
    difference: str
    versions: tuple[tuple[str, str], ...] = ()

    def commands(self, run: Run) -> Iterator[str]:
        """What to type."""
        given = [str(run.paths.pipeline), "--cluster", str(run.paths.profile), "--workspace", str(run.workspace.root)]
        for command in ("fetch", "plan", "submit"):
            yield shlex.join(["overnight", command, *given])


def of_run(run: Run, plan: Plan) -> Repeat:
    """From the run's own copies of both files."""
    own = _texts(run)
    before = _before(run, plan)
    changed = "" if before is None else difference(before, run)
    versions = tuple((item.name, f"{item.request}, {item.fingerprint or '?'}") for item in plan.fetched)
    return Repeat(*own, None if before is None else before.id, changed, versions)


def difference(before: Run, now: Run) -> str:
    """What differs in the two files of two runs, as a unified diff; empty: nothing."""
    found = ""
    for name, old, new in zip(("pipeline.yaml", "profile.yaml"), _texts(before), _texts(now), strict=True):
        lines = difflib.unified_diff(
            old.splitlines(), new.splitlines(), f"{before.id}/{name}", f"{now.id}/{name}", n=1, lineterm=""
        )
        found += "".join(f"{line}\n" for line in lines)
    return found


def _texts(run: Run) -> tuple[str, str]:
    return _text(run, run.paths.pipeline), _text(run, run.paths.profile)


def _text(run: Run, path: Path) -> str:
    try:
        with strict.open_file(path) as stream:
            found = stream.read().decode(errors="replace")
    except OSError as error:
        return f"{path}: {error.strerror}"
    except ValueError as error:
        return str(error)
    return str(redaction.shown(found, run.paths.secrets))


def _before(run: Run, plan: Plan) -> Run | None:
    """The newest other run of the same pipeline that was made before this one."""
    made = _created(run)
    found: list[tuple[float, Run]] = []
    for other in rundir.all_runs(run.workspace.root):
        when = _created(other)
        if other.id == run.id or when is None or (made is not None and when >= made):
            continue
        try:
            same = other.plan().pipeline == plan.pipeline
        except InputError:
            continue
        if same:
            found.append((when, other))
    return max(found, key=lambda entry: entry[0])[1] if found else None


def _created(run: Run) -> float | None:
    first = next(iter(files.read_json_lines(run.paths.journal)), None)
    created = first is not None and first.get("event") == Event.CREATED
    return float(first["time"]) if first is not None and created else None
