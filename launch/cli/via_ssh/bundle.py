"""What goes over to the login node for a pipeline: the pipeline file, a profile of this machine, the code's snapshot.

Data never goes: a path in the pipeline must be one of the cluster, so a relative one is refused here, with its line.
The directory is named by its content, so that what is over there already is not sent again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from jobs.core.paths import Workspace
from launch.base.errors import InputError
from launch.base.text import control_character
from launch.config.document.positions import KeyPath
from launch.inputs import user_code
from launch.inputs.toolkit import package_directory

if TYPE_CHECKING:
    from launch.config.pipeline_file import PipelineFile


@dataclass(frozen=True)
class Bundle:
    """A directory to send. ``replace``: values (by ``dest``) of the command there; paths are relative to the
    directory."""

    directory: Path
    digest: str
    replace: dict[str, Any]


@contextmanager
def made(args: argparse.Namespace) -> Iterator[Bundle | None]:
    """The bundle of a command, removed at the end; None where the command names no pipeline. Raises InputError: a fault
    in the pipeline, a path of this machine in it, or a tree that is no code; with its line."""
    if not hasattr(args, "pipeline"):
        yield None
        return
    with TemporaryDirectory(prefix="overnight-via-") as name:
        directory = Path(name) / "bundle"
        directory.mkdir()
        try:
            replace = _fill(directory, args)
            yield Bundle(directory, user_code.digest_of(directory, user_code.listing(directory)), replace)
        finally:
            user_code.remove(directory)  # snapshots are read-only


def _fill(directory: Path, args: argparse.Namespace) -> dict[str, Any]:
    from launch.config import data_settings
    from launch.config.pipeline_file import read_pipeline

    pipeline = read_pipeline(args.pipeline, args.set)
    data_settings.checked(pipeline)
    _refuse_paths_of_here(pipeline, args.via)
    replace: dict[str, Any] = {}
    file = _plain_name(args.pipeline)
    if file in ("code", "cluster"):  # beside which it comes to lie
        raise InputError(f"a pipeline file cannot be called {file}", hint=f"call it {file}.yaml")
    shutil.copyfile(args.pipeline, directory / file)
    replace["pipeline"] = f"./{file}"
    if pipeline.pipeline.code is not None:
        tree = pipeline.resolve(pipeline.pipeline.code)
        taken = user_code.take(tree, Workspace(directory.parent))
        user_code.move(taken, directory / "code")
        print(f"code: {taken}", file=sys.stderr)
        replace["set"] = [*args.set, "code=./code"]
    if (name := args.cluster or _default()) is not None:
        replace |= {"cluster": name, **_profile(directory, name)}
    return replace


def _default() -> str | None:
    """The default profile of this machine; None: the other side finds its own."""
    from launch.config import profile_file

    try:
        return profile_file.default_name()[0]
    except InputError:
        return None


def _plain_name(path: Path) -> str:
    if control_character(path.name):
        raise InputError(f"the name {path.name!r} has a control character", hint="rename it")
    return path.name


def _refuse_paths_of_here(pipeline: PipelineFile, via: str) -> None:
    """Whatever a job reads must be over there, and stay there."""
    from launch.config import data_settings, suites
    from launch.config.document.reader import read
    from launch.config.stages import BenchmarkSource, DataStage, PathSource

    for place, names in suites.named(read(pipeline.path).data):
        if own := [name for name in names if suites.is_path(name)]:
            text = f"the suite {own[0]!r} is a file of this machine, and does not go over with --via"
            raise pipeline.error(place, text, "write its tasks and sources into the pipeline")
    named: list[tuple[KeyPath, str]] = []
    base = pipeline.pipeline.model.base
    if base.startswith(".") or (not base.startswith(("pypi:", "hf:")) and pipeline.resolve(base).exists()):
        named.append((("model", "base"), base))
    for name, kept in pipeline.pipeline.sources.items():
        if isinstance(kept, BenchmarkSource) and not kept.origin.startswith(("pypi:", "hf:")):
            named.append((("sources", name, "from"), kept.origin))
    for name, judge in pipeline.pipeline.judges.items():
        named += [(("judges", name, "rubric"), path) for path in (judge.rubric,) if path is not None]
        if judge.model.base is not None and not judge.model.base.startswith(("pypi:", "hf:")):
            named.append((("judges", name, "model", "base"), judge.model.base))
    for name, stage in pipeline.pipeline.stages.items():
        if not isinstance(stage, DataStage):
            continue
        source = pipeline.pipeline.source_of(name)
        if isinstance(source, PathSource):
            shared = stage.source in pipeline.pipeline.sources
            named.append((("sources", stage.source, "path") if shared else ("stages", name, "from"), source.path))
        named += [(("stages", name, "prepare"), path) for path in data_settings.named_paths(stage.prepare or {})]
    for place, path in named:
        if path.startswith(("/", "~")):
            continue
        host = via.partition(":")[0]
        raise pipeline.error(
            place,
            f"{path!r} is a path of this machine; with --via data and models must lie on the cluster, "
            "and the pipeline says where (beginning with / or ~)",
            f"rsync -a {path} {host}:DIRECTORY/, then write that path",
        )


def _profile(directory: Path, name: str) -> dict[str, Any]:
    """A profile of this machine goes over; a packaged one, or one that only the site has, goes by its name."""
    from launch.config import profile_file
    from launch.config.document import layers

    packaged = package_directory("cluster_profiles")
    try:
        path = profile_file.locate(name)
    except InputError:
        return {}  # the other side knows more names, or says so
    if path.parent == packaged:
        return {}
    chain = _local_chain(path, packaged)
    file = _plain_name(path)
    target = directory / "cluster" / file
    target.parent.mkdir()
    if len(chain) == 1:
        shutil.copyfile(path, target)  # as it is: the other side then names the right lines
    else:
        document = layers.read_all(path, lambda other, below: profile_file.locate(other, below=below))
        target.write_text(yaml.safe_dump({"name": path.stem, **document.data}, allow_unicode=True), encoding="utf-8")
    return {"cluster": f"./cluster/{file}"}


def _local_chain(path: Path, packaged: Path) -> list[Path]:
    """A profile and those of this machine that it extends."""
    from launch.config import profile_file
    from launch.config.document import layers
    from launch.config.document.reader import read

    found: list[Path] = []
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current.resolve() in [one.resolve() for one in found] or current.parent == packaged:
            continue
        found.append(current)
        names = read(current).data.get(layers.EXTENDS, [])
        for name in [names] if isinstance(names, str) else names:
            try:
                waiting.append(profile_file.locate(str(name), below=current))
            except InputError:
                continue  # one of the site's: the other side has it
    return found


def environment() -> dict[str, str]:
    """Of rsync: nothing of the user's that changes what it sends."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RSYNC_")}
