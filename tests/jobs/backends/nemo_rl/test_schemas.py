"""What is rendered for NeMo-RL fits the recorded configuration of each version, in both directions.

``schemas/V.json`` holds, for the version that it names, the keys of the stock configurations and of the
declared types of that release (``policy.megatron_cfg``, ``generation`` and LoRA left out), read from its sources:

* ``type``: what is declared, or what the stock file has where nothing is; ``null`` also where the reader takes it
  without declaring it (a chat template, the metric of a save).
* ``required``: the type has no default. ``stock``: what the stock file says (``in_stock`` where that is a list or a map).
* ``both``, ``dpo``, ``sft``: keys that are the same for both kinds of stage, and those of one.
* ``data_set``: what the loader of a data set in a file reads, and fails without.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs.backends.nemo_rl import render, schemas, settings, texts
from tests.jobs.backends.nemo_rl.test_render import REQUIRED, VERSIONS, place
from tests.support.nemo_rl_fake import tree

RECORDED = Path(__file__).parent / "schemas"
KINDS = ("dpo", "sft")
ALL_OPTIONS: dict[str, Any] = {
    "recompute": True, "cpu_offload": True, "tensor_parallel": 2,
    "context_parallel": 2, "sequence_parallel": True, "precision": "bf16", "schedule": "linear", "warmup_steps": 3,
}  # fmt: skip


def recorded(version: str, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keys of a version and kind, and what its loader reads."""
    found = json.loads((RECORDED / f"{version[:3]}.json").read_text(encoding="utf-8"))
    assert found["version"] == version
    return {**found["both"], **found[kind]}, found["data_set"][kind]


def flat(given: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in given.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def written(tmp_path: Path, version: str, kind: str, **changes: Any) -> dict[str, Any]:
    options = {**REQUIRED, **changes}
    checkout = tree(tmp_path / version / kind, version)
    found = render.configuration(settings.read(kind, options), place(tmp_path, must_save_by=100.0), checkout)
    assert found.pop("defaults") == str(checkout.stock(kind))
    return dict(flat(found))


def name_of(value: Any) -> str:
    names = {bool: "bool", int: "int", float: "float", str: "str", list: "list", type(None): "null"}
    return names[type(value)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_key_that_is_written_is_read(tmp_path: Path, version: str, kind: str) -> None:
    keys, loader = recorded(version, kind)
    reads = {*loader["required"], *loader["optional"]}
    for name, value in written(tmp_path, version, kind, **ALL_OPTIONS).items():
        if name in reads and name not in keys:
            continue
        allowed = keys[name]["type"].split("|")
        if "float" in allowed:
            allowed.append("int")
        assert name_of(value) in allowed, f"{name} is {value!r}, {version} wants {keys[name]['type']}"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_is_needed_is_left_out(tmp_path: Path, version: str, kind: str) -> None:
    """It is written, or the stock file that ours inherits from has it."""
    keys, loader = recorded(version, kind)
    found = written(tmp_path, version, kind)
    assert [name for name in loader["required"] if name not in found] == []
    for name, key in keys.items():
        if key["required"] and name not in found:
            # A section counts as there where one of its keys is.
            inherited = "stock" in key or "in_stock" in key or any(each.startswith(name + ".") for each in found | keys)
            assert inherited, name


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_data_set_of_the_stock_file_is_left_in_place(tmp_path: Path, version: str, kind: str) -> None:
    keys, _ = recorded(version, kind)
    found = written(tmp_path, version, kind)
    stock = {name: key["stock"] for name, key in keys.items() if name.endswith("dataset_name") and "stock" in key}
    assert set(stock.values()) == {{"dpo": "HelpSteer3", "sft": "squad"}[kind]}
    for name in stock:
        section = name.rpartition(".")[0]
        assert found.get(name, "HelpSteer3") not in ("HelpSteer3", "squad") or found.get(section, "there") is None, name


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_keys_that_may_be_written_are_recorded_ones(version: str, kind: str) -> None:
    """A key that only another version knows would be let through by the check before a submission."""
    keys, loader = recorded(version, kind)
    schema = schemas.of(version)
    assert schema is not None
    known = {"defaults", *keys, *loader["required"], *loader["optional"]}
    assert {name for name in schema.keys[kind] if name not in known} == set()


def test_what_differs_between_the_versions_is_recorded() -> None:
    def has(kind: str, name: str) -> list[str]:
        return [version[:3] for version in VERSIONS if name in recorded(version, kind)[0]]

    assert has("dpo", "checkpointing.checkpoint_must_save_by") == ["0.4", "0.5", "0.6", "0.7"]
    assert has("sft", "policy.dtensor_cfg._v2") == ["0.4", "0.5", "0.6", "0.7"]
    assert has("sft", "data.train.data_path") == ["0.6", "0.7"]
    assert has("dpo", "checkpointing.save_optimizer") == ["0.6", "0.7"]
    assert has("dpo", "data.shuffle") == ["0.4", "0.5", "0.6", "0.7"]
    second = [
        version for version in VERSIONS if recorded(version, "sft")[0].get("policy.dtensor_cfg._v2", {}).get("stock")
    ]
    assert second == ["0.5.0", "0.6.0", "0.7.0"]  # the worker that writes another layout


def test_the_fields_of_0_3_are_those_that_it_reads() -> None:
    _, loader = recorded("0.3.1", "dpo")
    assert [texts._of_0_3(name) for name in render.FIELDS["dpo"]] == loader["fields"]
