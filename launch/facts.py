"""What the plan must know of the world: back ends as they are installed, digests of source files, what was fetched."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jobs.core.paths import Workspace
from jobs.core.spec import Source
from launch import fetch, snapshot
from launch.digests import DigestCache, source_files
from launch.errors import InputError
from launch.kinds import FETCHED
from launch.pipeline import PipelineFile
from launch.plan import BackEndFacts, Facts, FetchedFacts, back_ends_of
from launch.profile import Profile
from launch.stages import DataStage, GettextSource

PROBE_SECONDS = 60.0


def gather(pipeline: PipelineFile, profile: Profile, workspace: Workspace) -> Facts:
    """Look at the world once.

    Raises:
        InputError: a source file or an environment is missing; names the line of the pipeline where it can.
    """
    return Facts(
        back_ends=probe(back_ends_of(pipeline.pipeline), profile),
        sources=_sources(pipeline, workspace),
        fetched=_fetched(pipeline, workspace),
        core_python=sys.executable,
    )


def python_of(backend: str, profile: Profile) -> str:
    """The interpreter that runs a back end: the profile's, else the one that runs ``overnight``."""
    environment = profile.environments.get(backend)
    return sys.executable if environment is None else environment.interpreter


def _asked(backend: str, profile: Profile) -> tuple[str, dict[str, str]]:
    """The interpreter that can be asked here, and what stands for its versions where that is not the one that trains:
    an image and modules are there on the nodes, and their names decide what is in them."""
    environment = profile.environments.get(backend)
    if environment is not None and environment.image is not None:
        return sys.executable, {"image": environment.image}
    if environment is not None and environment.modules:
        modules = " ".join((*profile.modules, *environment.modules))
        return sys.executable, {"modules": modules, "python": environment.interpreter}
    return python_of(backend, profile), {}


def probe(names: Iterable[str], profile: Profile) -> dict[str, BackEndFacts]:
    """Ask every interpreter once about its back ends; versions are read there without importing torch.

    Raises:
        InputError: an interpreter or a back end is not there; says which entry of the profile names it.
    """
    found: dict[str, BackEndFacts] = {}
    by_python: dict[str, list[str]] = {}
    for name in names:
        by_python.setdefault(_asked(name, profile)[0], []).append(name)
    for python, group in by_python.items():
        for name, value in _ask(python, group).items():
            if "error" in value:
                raise InputError(
                    f"back end {name!r} cannot be used with {python}: {value['error']}",
                    hint=f"set environments.{name}.venv in the profile {profile.name!r}",
                )
            found[name] = BackEndFacts(
                versions=_asked(name, profile)[1] or value["versions"],
                kinds=frozenset(value["kinds"]), formats_in=tuple(value["formats_in"]),
                formats_out=tuple(value["formats_out"]), launcher=value["launcher"], distributed=value["distributed"],
                python=python_of(name, profile),
                converts=tuple((source, target) for source, target in value["converts"]),
            )  # fmt: skip
    return found


def _ask(python: str, names: list[str]) -> dict[str, dict[str, Any]]:
    command = [python, str(snapshot.installed_boot()), "probe", *names]
    hint = f"{python} must be a Python 3.10 or newer that this machine can run"
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)
        if answer.returncode == 0:
            return dict(json.loads(answer.stdout.splitlines()[-1]))
        problem = (answer.stderr.strip() or f"exit code {answer.returncode}").splitlines()[-1]
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        problem = str(error)
    raise InputError(f"cannot ask {python} about the back ends {', '.join(names)}: {problem}", hint=hint)


def _sources(pipeline: PipelineFile, workspace: Workspace) -> dict[str, tuple[Source, ...]]:
    cache = DigestCache(workspace.digests)
    found: dict[str, tuple[Source, ...]] = {}
    for name, stage in pipeline.pipeline.stages.items():
        if not isinstance(stage, DataStage):
            continue
        source = pipeline.pipeline.source_of(name)
        if isinstance(source, GettextSource):
            continue
        try:
            found[name] = tuple(cache.digest(path) for path in source_files(pipeline.resolve(source.path)))
        except InputError as error:
            named = stage.source in pipeline.pipeline.sources
            place = ("sources", stage.source, "path") if named else ("stages", name, "from")
            raise pipeline.error(place, error.message, error.hint) from error
        try:
            others = {file for path in _paths_in(stage.prepare) for file in source_files(Path(path))}
            others -= {Path(source.path) for source in found[name]}
            found[name] += tuple(cache.digest(file) for file in sorted(others))
        except InputError as error:
            raise pipeline.error(("stages", name, "prepare"), error.message, error.hint) from error
    cache.save()
    return found


def _paths_in(prepare: dict[str, Any] | None) -> list[str]:
    """Files and directories that ``prepare`` names (made absolute by the command): they decide the result, too."""
    if prepare is None:
        return []
    found = [*prepare.get("evaluation", ()), *prepare.get("compare_with", ())]
    found += [entry["path"] for entry in prepare.get("replay", ())]
    if prepare.get("tokenizer") is not None:
        tokenizer = Path(prepare["tokenizer"])
        names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
        found += [str(tokenizer / name) for name in names if name == names[0] or (tokenizer / name).is_file()]
    return found


def fetch_items(pipeline: PipelineFile) -> dict[str, fetch.FetchItem]:
    """What ``overnight fetch`` brings for a pipeline, by name: ``base`` where a stage reads it, and the packages."""
    base = Path(pipeline.path).parent
    found: dict[str, fetch.FetchItem] = {}
    uses = [getattr(stage, "checkpoint", None) for stage in pipeline.pipeline.stages.values()]
    if FETCHED in uses:
        try:
            found[FETCHED] = fetch.item(FETCHED, pipeline.pipeline.model.base, base=base)
        except InputError as error:
            raise pipeline.error(("model", "base"), error.message, error.hint) from error
    for name, source in pipeline.pipeline.sources.items():
        if isinstance(source, GettextSource):
            found[name] = fetch.item(name, source.packages, base=base)
    return found


def _fetched(pipeline: PipelineFile, workspace: Workspace) -> dict[str, FetchedFacts]:
    pins = fetch.read_pins(workspace)
    found: dict[str, FetchedFacts] = {}
    for name, item in fetch_items(pipeline).items():
        fingerprint = item.fingerprint(pins)
        present = workspace.entry(item.kind, fingerprint).seal.exists()
        found[name] = FetchedFacts(name, item.request, item.format, fingerprint, present)
    return found
