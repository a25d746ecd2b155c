"""Tasks of lm-evaluation-harness by name, without importing it: that takes up to half a minute, its own index a minute.

A task is a YAML file in the package. A group names tasks, other groups or a tag, which tasks carry. The package has
14,000 such files, so names are found by a pattern, and only the files of the task that is wanted are parsed.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from jobs.training.interface import versions

PACKAGE = "lm_eval"
INSTALL = "pip install 'lm_eval>=0.4.13,<0.5'"
NO_MEAN = re.compile(r"perplexity|bits_per_byte|bleu|chrf|ter|f1|mcc|brier_score|likelihood")
"""Metrics that are no mean over rows where the task does not say how they are put together."""

_NAMED = re.compile(rb"""^["']?(task|group|tag|include)["']?[ \t]*:[ \t]*(.*(?:\n[ \t]*-[ \t]+.*)*)""", re.MULTILINE)
_WORD = re.compile(rb"""["']?([^\s"'#,\[\]\\-][^\s"'#,\[\]\\]*)["']?""")
_DEFAULTS = {
    "multiple_choice": ("acc", "acc_norm"),
    "generate_until": ("exact_match",),
    "loglikelihood": ("acc",),
}
_LOWER = re.compile(r"perplexity|brier|bias|ter\b|wer\b|error", re.IGNORECASE)


class HarnessError(ValueError):
    """A task that there is not, or that cannot be run here; the message says why and what to write."""


@dataclass(frozen=True)
class HarnessTask:
    """A task of the harness: the files of the tasks that it consists of, relative to the package's, by name; the data
    set that they read, and its parts (None: it has none); what they measure, and whether more is better."""

    name: str
    version: str
    files: dict[str, str]
    dataset: str
    parts: list[str | None]
    measures: dict[str, bool] = field(default_factory=dict)


def answers(names: Iterable[str]) -> dict[str, Any]:
    """``tasks``: for each name what was found, or the ``error``; ``places``: what changes where the package does."""
    places = []
    with contextlib.suppress(HarnessError, metadata.PackageNotFoundError):
        about = metadata.distribution(PACKAGE).locate_file(f"{PACKAGE}-{metadata.version(PACKAGE)}.dist-info")
        places = [str(directory()), str(about)]
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        try:
            one = find(name)
            found[name] = {
                "version": one.version,
                "files": one.files,
                "data_set": one.dataset,
                "measures": one.measures,
            }
        except HarnessError as error:
            found[name] = {"error": str(error)}
    return {"tasks": found, "places": places}


@dataclass
class _Index:
    """Where names are: of tasks and groups their file, of tags the files of the tasks that carry them."""

    one: dict[str, str] = field(default_factory=dict)
    tags: dict[str, list[str]] = field(default_factory=dict)


def directory() -> Path:
    """Where the package keeps its tasks.

    Raises:
        HarnessError: it is not installed in this environment.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise HarnessError(f"lm-evaluation-harness is not installed in this environment: {INSTALL}")
    return Path(found.origin).parent / "tasks"


def find(name: str) -> HarnessTask:
    """The task of that name.

    Raises:
        HarnessError: there is none (with the nearest names), or it needs what an offline job does not have.
    """
    place = directory()
    index = _scan(place)
    files = dict(sorted(_members(name, index, place)))
    configs = {task: load(place / file) for task, file in files.items()}
    for task, config in configs.items():
        _refuse(task, config)
    data = sorted({str(config.get("dataset_path")) for config in configs.values()})
    few = ", ".join(list(files)[:5])
    if len(data) > 1:
        raise HarnessError(f"{name!r} reads several data sets ({', '.join(data[:4])}): name its tasks: {few}")
    every = [_measures(config) for config in configs.values()]
    shared = {metric: better for metric, better in every[0].items() if all(metric in one for one in every)}
    if not shared:
        raise HarnessError(f"{name!r}: its tasks share no metric that is a mean over rows; name one of them: {few}")
    parts = sorted({config.get("dataset_name") for config in configs.values()}, key=str)
    return HarnessTask(name, versions(PACKAGE).get(PACKAGE, ""), files, data[0], parts, shared)


def _scan(place: Path) -> _Index:
    index = _Index()
    shared: dict[str, list[bytes]] = {}  # tags of what is included, which is not a task itself
    for root, folders, names in os.walk(place):
        folders[:] = sorted(folder for folder in folders if not folder.startswith((".", "__")))
        for name in sorted(names):
            if not name.endswith(".yaml"):
                continue
            path = os.path.join(root, name)
            with open(path, "rb") as stream:
                text = stream.read()
            file = os.path.relpath(path, place)
            keys = {key: _WORD.findall(values) for key, values in _NAMED.findall(text)}
            own = keys.get(b"group") or keys.get(b"task") or []
            if own:
                index.one.setdefault(own[0].decode(), file)
            if b"group" in keys:
                continue
            tags = keys.get(b"tag")
            if tags is None and (include := keys.get(b"include")):
                other = os.path.join(root, include[0].decode())
                if other not in shared:
                    shared[other] = _tags_of(other)
                tags = shared[other]
            for tag in tags or ():
                index.tags.setdefault(tag.decode(), []).append(file)
    return index


def _tags_of(path: str) -> list[bytes]:
    try:
        with open(path, "rb") as stream:
            return next((_WORD.findall(values) for key, values in _NAMED.findall(stream.read()) if key == b"tag"), [])
    except OSError:
        return []


def _members(name: str, index: _Index, place: Path, above: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """The tasks that a name stands for, with their files."""
    if name in above:
        raise HarnessError(f"the group {name!r} contains itself")
    file = index.one.get(name)
    if file is None and name not in index.tags:
        near = difflib.get_close_matches(name, [*index.one, *index.tags], n=4)
        said = f"nearest: {', '.join(near)}" if near else "lm-eval ls tasks lists all"
        raise HarnessError(f"lm-evaluation-harness {versions(PACKAGE).get(PACKAGE)} has no task {name!r}; {said}")
    if file is None:
        for other in index.tags[name]:
            yield str(load(place / other)["task"]), other
        return
    config = load(place / file)
    if "group" not in config:
        yield str(config.get("task", name)), file
        return
    inside = config.get("task")
    for member in inside if isinstance(inside, list) else [inside]:
        if isinstance(member, str):
            yield from _members(member, index, place, (*above, name))
        else:
            raise HarnessError(f"the group {name!r} changes its tasks ({str(member)[:60]}): name the tasks one by one")


def load(path: Path) -> dict[str, Any]:
    """The settings of a task with what they include; functions are their names.

    Raises:
        HarnessError: the file is none of a task.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads ``!function`` as a text: nothing is imported."""

    Loader.add_constructor("!function", lambda loader, node: f"!function {node.value}")
    try:
        found = yaml.load(path.read_bytes(), Loader=Loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise HarnessError(f"{path}: cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise HarnessError(f"{path}: is not a task")
    merged: dict[str, Any] = {}
    included = found.pop("include", None) or []
    for other in included if isinstance(included, list) else [included]:
        merged.update(load(path.parent / other))
    return {**merged, **found}


def _refuse(task: str, config: Mapping[str, Any]) -> None:
    """Raises HarnessError: what the task needs is not there in an offline job."""
    if "class" in config:
        raise HarnessError(f"{task!r} is a program of its own in the harness, not a file of settings: not supported")
    if config.get("custom_dataset"):
        raise HarnessError(f"{task!r} makes its rows by a program: not supported; write them to a file first")
    if config.get("unsafe_code"):
        raise HarnessError(f"{task!r} runs the code that the model writes: not supported")
    if config.get("doc_to_image") or config.get("doc_to_audio"):
        raise HarnessError(f"{task!r} shows images or sound to the model: not supported")
    if config.get("repeats", 1) != 1:
        raise HarnessError(f"{task!r} draws several answers to each question: not supported")
    if any(one.get("hf_evaluate") for one in config.get("metric_list") or ()):
        raise HarnessError(f"{task!r} scores by a program that is fetched from a hub: not supported")
    if (config.get("generation_kwargs") or {}).get("do_sample"):
        raise HarnessError(f"{task!r} draws its answers by chance: not supported; they could not be compared")
    if not config.get("dataset_path"):
        raise HarnessError(f"{task!r} names no data set: not supported")


def _measures(config: Mapping[str, Any]) -> dict[str, bool]:
    """What a task measures as a mean over its rows, by the names that we use: ``metric``, or ``metric/filter``."""
    listed = config.get("metric_list")
    if listed is None:
        listed = [{"metric": name} for name in _DEFAULTS.get(str(config.get("output_type")), ())]
    filters = [one["name"] for one in config.get("filter_list") or ()] or ["none"]
    found = {}
    for one in listed:
        name = str(one["metric"]).rpartition(".")[2]
        together = one.get("aggregation")
        if together == "mean" or (together is None and not NO_MEAN.fullmatch(name)):
            better = one.get("higher_is_better")
            for kept in filters:
                found[metric_name(name, kept)] = not _LOWER.search(name) if better is None else bool(better)
    return found


def metric_name(metric: str, kept: str) -> str:
    """What we call a metric after a filter of the harness."""
    return metric if kept == "none" else f"{metric}/{kept}"
