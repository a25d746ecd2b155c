"""The schema of a pipeline as a page of tables: ``docs/pipeline.md``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from launch.config.fields import RESOURCE_KEYS
from launch.config.schema.kinds import NAME, JsonSchema, under

_HEADER = ("| key | value | where it is not written | what it is for |", "| --- | --- | --- | --- |")
_NOT_SHOWN = ("cluster", "resources")
_HEAD = """\
# Pipelines: every key

This page is made by `overnight schema pipeline --markdown`, of the same classes that read the file. Editors complete
keys and mark faults by the schema:

```bash
mkdir -p ~/.config/overnight
overnight schema pipeline > ~/.config/overnight/pipeline.schema.json
```

and, as the first line of a pipeline (VS Code with the YAML extension, Neovim, Helix, Emacs and others that use
yaml-language-server):

```yaml
# yaml-language-server: $schema=/home/me/.config/overnight/pipeline.schema.json
```

`overnight schema profile` is for profiles, whose keys are [here](profiles.md), and `overnight schema results` for
`evaluation.json`. A schema knows names, types and bounds; what keys must be together, and what names refer to,
`overnight plan` says.

Text that could be something else needs quotes: `time: "90"` is 90 minutes, `time: 4:00:00` needs none, `time: 90` is
refused. `cluster:` takes keys of a profile and `resources:` is that of a profile: both are for this pipeline alone.
`NAME` is a name of your own choice, in `gate` a metric."""


def lines(schema: JsonSchema) -> Iterator[str]:
    """Lines of Markdown."""
    yield from _HEAD.splitlines()
    keys = schema["properties"]
    top = {name: one for name, one in keys.items() if name != "stages"}
    yield from _section("The file", _rows(top, schema["required"], "", leave_out=_NOT_SHOWN))
    cases = keys["stages"]["additionalProperties"]["allOf"]
    stages = {case["if"]["properties"]["kind"]["const"]: case["then"] for case in cases}
    every = ("executor", "seed", *RESOURCE_KEYS)
    yield from _section("Every stage", _rows({name: stages["sft"]["properties"][name] for name in every}, (), ""))
    seen = {*every, "tasks"}
    for title, kinds in (
        ("Data: `corpus`, `instructions`, `preferences`", ("corpus", "instructions", "preferences")),
        ("Training: `cpt`, `sft`, `dpo`", ("cpt", "sft", "dpo")),
        ("`evaluate`", ("evaluate",)),
        ("`curve`", ("curve",)),
        ("`choose`", ("choose",)),
        ("`export`", ("export",)),
    ):
        own: dict[str, JsonSchema] = {}
        required: list[str] = []
        for kind in kinds:
            own |= {name: one for name, one in stages[kind]["properties"].items() if name not in {*seen, "prepare"}}
            required += stages[kind]["required"]
        yield from _section(title, _rows(own, required, "", leave_out=("kind",)))
    for kind in ("corpus", "instructions", "preferences"):
        prepare = stages[kind]["properties"]["prepare"]["anyOf"][1]["properties"]
        yield from _section(f"`prepare` of {kind}", _rows(prepare, (), ""))
    yield from _tasks(schema["$defs"])


_RESULTS_HEAD = """\
# Results of an evaluation

This page is made by `overnight schema results --markdown`. An evaluation leaves `evaluation.json` in the `output` of
its entry in the store; [evaluation.md](evaluation.md) says how each metric is measured and how gates are judged. Beside
it lies `samples.jsonl`, a line for each example, and `overnight report RUN --json` has the metrics of a whole run.
`NAME` is a name of the pipeline's choice, `[]` an entry of a list."""


def of_results(schema: JsonSchema) -> Iterator[str]:
    """Lines of Markdown, of the schema of results."""
    yield from _RESULTS_HEAD.splitlines()
    yield from ("", "| key | value | what it is |", "| --- | --- | --- |")
    yield from _result_rows(schema, "", deeper=True)


def _result_rows(schema: JsonSchema, path: str, deeper: bool) -> Iterator[str]:
    for name, one in schema["properties"].items():
        place = under(path, name)
        always = "" if name in schema.get("required", ()) else " (may be missing)"
        value = f"`{one['const']}`" if "const" in one else _value(one)
        yield f"| `{place}` | {value} | {_cell(one.get('description', ''))}{always} |"
        if "properties" in one:
            yield from _result_rows(one, place, deeper=name != "curve")
        elif "items" in one:
            yield from _result_rows(one["items"], f"{place}[]", deeper=False)
        elif deeper and isinstance(one.get("additionalProperties"), dict):
            yield from _result_rows(one["additionalProperties"], under(place, NAME), deeper=True)


def _tasks(known: dict[str, JsonSchema]) -> Iterator[str]:
    rows = []
    own = known["tasks"]["anyOf"][0]["properties"]
    keys: dict[str, JsonSchema] = {}
    for name, task in known.items():
        if not name.startswith("task-"):
            continue
        kind = name.removeprefix("task-")
        shown = [f"`{key}`" for key in task["properties"] if key not in ("task", "options")]
        rows.append(f"| `{kind}` | {', '.join(shown)} | {own[kind]['description']} |")
        keys |= task["properties"]
    yield from ("", "## Tasks", "", "| task | keys | what it measures |", "| --- | --- | --- |", *rows)
    measures = keys.pop("measure")
    keys["task"] = {**keys["task"], "const": None}
    yield from _section("Keys of tasks", _rows(keys, known["task-harness"]["required"], ""))
    yield from _section("`measure` of a task", _rows(measures["properties"], ("pattern",), ""))


def _section(title: str, rows: Iterable[str]) -> Iterator[str]:
    yield from ("", f"## {title}", "", *_HEADER, *rows)


def _rows(
    keys: dict[str, JsonSchema], required: Iterable[str], path: str, leave_out: Iterable[str] = ()
) -> Iterator[str]:
    for name, one in keys.items():
        place = under(path, name)
        inner, below = _inside(one, place)
        text = one.get("description", "")
        if name in leave_out:
            continue
        if text and (inner is None or below == place):
            default = "required" if name in required else _default(one)
            yield f"| `{place}` | {_value(one) if not inner else ''} | {default} | {_cell(text)} |"
        if inner:
            yield from _rows(inner["properties"], inner.get("required", ()), below)


def _inside(schema: JsonSchema, path: str) -> tuple[JsonSchema | None, str]:
    """The mapping of known keys in a value, and its path."""
    for one in schema.get("anyOf", [schema]):
        if "properties" in one and "allOf" not in one:
            return one, path
        for part, step in (("additionalProperties", NAME), ("items", "")):
            deeper = one.get(part)
            if isinstance(deeper, dict) and "allOf" in deeper and "properties" in deeper:
                return _merged(deeper), under(path, step)
            if isinstance(deeper, dict) and "properties" in deeper:
                return deeper, under(path, step) if step else path
    return None, path


def _merged(tagged: JsonSchema) -> JsonSchema:
    found: dict[str, JsonSchema] = dict(tagged["properties"])
    for case in tagged["allOf"]:
        found |= {name: one for name, one in case["then"]["properties"].items() if name not in found}
    return {"properties": found, "required": tagged["required"]}


def _value(schema: JsonSchema) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(filter(None, map(_value, schema["anyOf"]))))
    if "enum" in schema:
        return ", ".join(dict.fromkeys(f"`{_plain(one)}`" for one in schema["enum"] if one is not None))
    kinds = schema.get("type", "")
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false"}
    words |= {"array": "list", "object": "mapping", "null": ""}
    if "pattern" in schema and r"\d{1,4})-" in schema["pattern"]:
        return "time"
    text = " or ".join(filter(None, (words[one] for one in ([kinds] if isinstance(kinds, str) else kinds) if one)))
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}
    bounds = " and ".join(f"{sign} {schema[name]:g}" for name, sign in signs.items() if name in schema)
    return f"{text} {bounds}".strip()


def _default(schema: JsonSchema) -> str:
    return f"`{_plain(schema['default'])}`" if "default" in schema else ""


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
