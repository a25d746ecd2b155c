"""Back ends as they are installed: each interpreter is asked once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.core import strict
from jobs.core.capabilities import Capabilities
from launch.base import waiting
from launch.base.errors import InputError
from launch.config.profile import Profile
from launch.config.references import OWN_BACKENDS, backends
from launch.inputs import toolkit
from launch.plan.model import BackEndFacts
from launch.plan.probe_cache import ProbeCache
from launch.slurm.environment import scrubbed

PROBE_SECONDS = 60.0


def python_of(backend: str, profile: Profile) -> str:
    """The interpreter that runs a back end: the profile's, else the one that runs ``overnight``."""
    environment = profile.environments.get(backend)
    return sys.executable if environment is None else environment.interpreter


def asked(backend: str, profile: Profile) -> tuple[str, dict[str, str]]:
    """The interpreter that can be asked here, and what stands for its versions where that is not the one that trains:
    an image and modules are there on the nodes, and their names decide what is in them."""
    environment = profile.environments.get(backend)
    if environment is None or not environment.is_on_nodes_only:
        return python_of(backend, profile), {}
    if environment.image is not None:
        return sys.executable, {"image": environment.image}
    modules = " ".join((*profile.modules, *environment.modules))
    return sys.executable, {"modules": modules, "python": environment.interpreter}


def probe(
    names: Iterable[str],
    profile: Profile,
    code: Path | None = None,
    secrets: Iterable[str] = (),
    cache: ProbeCache | None = None,
) -> dict[str, BackEndFacts]:
    """Facts of back ends; each interpreter is asked once and imports no torch. ``code``: the user's code, for back ends
    in it; ``secrets``: variables that are withheld beside those of the profile; without a ``cache`` every interpreter
    is asked. Raises InputError: an interpreter or back end is missing; names the entry of the profile."""
    found: dict[str, BackEndFacts] = {}
    by_python: dict[str, list[str]] = {}
    for name in names:
        by_python.setdefault(asked(name, profile)[0], []).append(name)
    for python, group in by_python.items():
        for name, value in _ask(python, group, code, (*profile.secrets, *secrets), cache).items():
            instead = asked(name, profile)[1]
            if "error" in value and not (instead and "kinds" in value):
                raise InputError(
                    f"back end {name!r} cannot be used with {python}: {value['error']}",
                    hint=f"set environments.{name}.venv in the profile {profile.name!r}",
                )
            found[name] = BackEndFacts(instead or value["versions"], python_of(name, profile), Capabilities.of(value))
    return found


def _ask(
    python: str, names: list[str], code: Path | None, drop: Iterable[str], cache: ProbeCache | None
) -> dict[str, dict[str, Any]]:
    own = [] if code is None or set(names) <= {*backends(), *OWN_BACKENDS} else ["--code", str(code)]
    boot, environment = toolkit.installed_boot(), scrubbed(os.environ, drop=drop)
    kept = None if own else cache  # the user's code may look at anything
    if kept is not None and (known := kept.get(python, names, boot, environment)) is not None:
        return known
    what = f"about the back ends {', '.join(names)}"
    with waiting.on(f"asking {python} {what}"):
        evidence, answers = answers_of(python, ["probe", *own, *names], environment, PROBE_SECONDS, what, lines=2)
    if kept is not None:
        kept.put(python, names, boot, environment, answers, evidence)
    return dict(answers)


def answers_of(
    python: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    seconds: float,
    what: str,
    lines: int = 1,
    may_fork: bool = False,
) -> list[Any]:
    """The last ``lines`` (JSON) that our start script prints when another interpreter runs it with ``arguments``.
    ``may_fork``: this one need not start anew. Raises InputError: there are none; ``what`` was asked."""
    command = [python, str(toolkit.installed_boot()), *arguments]
    try:
        if may_fork and python == sys.executable and threading.active_count() == 1:
            from launch.base import forked

            answer = forked.run(command[1:], environment, seconds)
        else:
            answer = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=seconds, check=False
            )
        if answer.returncode == 0:
            found = answer.stdout.splitlines()
            return [strict.parse(found[number]) for number in range(-lines, 0)]
        problem = (answer.stderr.strip() or f"exit code {answer.returncode}").splitlines()[-1]
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        problem = str(error)
    hint = f"{python} must be a Python 3.10 or newer that this machine can run"
    raise InputError(f"cannot ask {python} {what}: {problem}", hint=hint)
