"""The model card of an export: what the model is made of, what was measured, and what that does not show.

All texts come from others (names in pipelines, seals, model directories): Markdown shows each as it stands. What says
where something lies on this machine is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.core import files, results, strict
from jobs.core.spec import StageSpec

FILE = "README.md"

_SPECIAL = frozenset("\\`*_{}[]<>()#+-!|~&$@")
_UNSEEN = {0x202A, 0x202B, 0x202C, 0x202D, 0x202E, 0x2066, 0x2067, 0x2068, 0x2069, 0x200B, 0x200E, 0x200F, 0xFEFF}
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}\Z")
_HUB = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@.*)?\Z", re.ASCII)

KINDS = {"cpt": "continued pre-training", "sft": "supervised fine-tuning", "dpo": "preference alignment (DPO)"}
HEADER = (
    "evaluation",
    "task",
    "metric",
    "value",
    "95 % interval",
    "before",
    "change",
    "95 % interval",
    "examples",
    "gate",
)


def write(spec: StageSpec, output: Path, notes: Sequence[str]) -> None:
    """``README.md`` of the export; ``notes``: what was found out while it was made."""
    from huggingface_hub import ModelCard

    measured = _measured(spec)
    content = f"---\n{_metadata(spec, measured).to_yaml()}\n---\n\n{_body(spec, measured, notes)}"
    ModelCard(content)  # raises where its metadata cannot be read
    files.write_atomic(output / FILE, content)


def plain(text: object) -> str:
    """Text of others as Markdown shows it: on one line, and what a reader cannot see made visible."""
    found = []
    for one in str(text):
        if ord(one) in _UNSEEN or (ord(one) < 0x20 and one not in "\n\r\t") or 0x7F <= ord(one) < 0xA0:
            found.append(f"\\[U+{ord(one):04X}\\]")
        else:
            found.append(f"\\{one}" if one in _SPECIAL else " " if one in "\n\r\t" else one)
    return "".join(found)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows of text as a table."""
    made = [head, ["---"] * len(head), *([plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in made)


def _measured(spec: StageSpec) -> dict[str, dict[str, dict[str, Any]]]:
    """Evaluation -> task -> what is known of it.

    Raises:
        ValueError: the file of an evaluation is damaged.
    """
    found = {}
    for role, given in spec.inputs.items():
        if role.startswith("evaluation:") and (path := results.find(given.output)) is not None:
            found[given.stage] = results.read(path)
    return found


def _metrics(measured: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    for evaluation, tasks in measured.items():
        for task, known in tasks.items():
            for metric, entry in known["metrics"].items():
                yield evaluation, task, metric, entry


def _metadata(spec: StageSpec, measured: Mapping[str, Any]) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    base = _HUB.match(str(spec.settings["base"]))
    shown = [
        EvalResult(
            task_type="text-generation",
            dataset_type=_name(task),
            dataset_name=_name(f"{evaluation}: {task}"),
            metric_type=_name(metric),
            metric_name=_name(f"{task} {metric}"),
            metric_value=entry["value"],
        )
        for evaluation, task, metric, entry in _metrics(measured)
    ]
    return ModelCardData(
        base_model=base[1] if base else None,
        license=licence_of(spec),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["overnight", *dict.fromkeys(one["kind"] for one in spec.settings["lineage"])],
        model_name=_name(spec.settings["name"]),
        eval_results=shown or None,
    )


def _name(text: object) -> str:
    """Printable, on one line."""
    return "".join(one if one.isprintable() and ord(one) not in _UNSEEN else " " for one in str(text))[:200]


def licence_of(spec: StageSpec) -> str | None:
    """The licence that the card of the base names; None: it is not known."""
    given = spec.inputs.get("base") or spec.inputs["checkpoint"]
    try:
        text = strict.content(given.output / FILE).decode("utf-8", "replace")
    except (OSError, ValueError):
        return None
    head = text.split("---", 2)[1] if text.startswith("---") else ""
    for line in head.splitlines():
        key, _, value = line.partition(":")
        named = value.strip().strip("'\"").lower()
        if key == "license" and _LICENSE.match(named):
            return named
    return None


def _body(spec: StageSpec, measured: Mapping[str, Any], notes: Sequence[str]) -> str:
    settings = spec.settings
    base = settings["base"].partition(":")[2] or "a model of its authors' own files"
    parts = [
        f"# {plain(settings['name'])}",
        f"Made from {plain(base)} by Overnight, run {plain(spec.run)}, stage {plain(spec.inputs['checkpoint'].stage)}.",
        "## Method",
        *_method(settings["lineage"]),
        "## Data",
        *_data(spec),
        "## What was measured",
        *_results(measured),
        "## Limits",
        *_limits(measured),
        "## Licence",
        _licence(spec),
    ]
    if notes:
        parts += ["## Files", "\n".join(f"- {plain(note)}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def _method(lineage: Sequence[Mapping[str, Any]]) -> list[str]:
    if not lineage:
        return ["The weights of the base, unchanged."]
    rows = [
        (one["stage"], KINDS.get(one["kind"], one["kind"]), one["backend"], one["data"],
         ", ".join(f"{key} {value}" for key, value in one["settings"].items()))
        for one in lineage
    ]  # fmt: skip
    return [table(("stage", "method", "back end", "data", "settings"), rows)]


def _data(spec: StageSpec) -> list[str]:
    rows = []
    packages = {one["data"]: one["packages"] for one in spec.settings["lineage"]}
    for role, given in spec.inputs.items():
        if not role.startswith("data:"):
            continue
        counts = []
        for split in ("train", "validation", "test"):
            path = given.output / f"{split}.jsonl"
            counts.append(str(_lines(path)) if path.is_file() else "")
        said = packages.get(given.stage)
        rows.append((given.stage, given.format, ", ".join(said) if said else "its authors' own files", *counts))
    if not rows:
        return ["No data: nothing was trained."]
    return [table(("data", "kind", "from", "rows for training", "validation", "test"), rows)]


def _lines(path: Path) -> int:
    with open(path, "rb") as stream:
        return sum(1 for _ in stream)


def _results(measured: Mapping[str, Any]) -> list[str]:
    rows = []
    for evaluation, task, metric, entry in _metrics(measured):
        change, gate = entry.get("change"), entry.get("gate") or {}
        rows.append((
            evaluation, task, metric, _number(entry["value"]), interval(entry),
            "" if entry.get("before") is None else _number(entry["before"]),
            "" if change is None else f"{change['value']:+.4g}", "" if change is None else interval(change),
            str(entry.get("n", "")), f"{gate['rule']}: {gate['verdict']}" if "verdict" in gate else "",
        ))  # fmt: skip
    if not rows:
        return ["Nothing was measured."]
    return [table(HEADER, rows), "Before: the model that the evaluation was compared with, on the same examples."]


def _number(value: float) -> str:
    return f"{value:.4g}"


def interval(entry: Mapping[str, Any]) -> str:
    """Its ends, or that there are too few examples for them."""
    if entry.get("low") is None or entry.get("high") is None:
        return "too few"
    return f"[{entry['low']:.4g}, {entry['high']:.4g}]"


def _limits(measured: Mapping[str, Any]) -> list[str]:
    missed = [
        f"{evaluation}: {task}.{metric}"
        for evaluation, task, metric, entry in _metrics(measured)
        if (entry.get("gate") or {}).get("verdict") in ("missed", "undecided")
    ]
    lines = ["- One training run: another seed may differ.", "- What is not in the table was not measured."]
    if missed:
        lines.append(f"- Gates that were not passed: {plain(', '.join(missed))}.")
    return ["\n".join(lines)]


def _licence(spec: StageSpec) -> str:
    named = licence_of(spec)
    if named is None:
        return "The licence of the base is not known here; its terms hold for this model, too."
    return f"The base is under {plain(named)}; its terms hold for this model, too."
