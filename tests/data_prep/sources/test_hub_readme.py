"""The front matter of a README of the hub: configs, their files, and what cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_prep.common.errors import DataError
from data_prep.sources import hub_readme


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"---\nlicense: mit\n---\n# Data", {"license": "mit"}),
        (b"\xef\xbb\xbf---\r\nlicense: mit\r\n---\r\n", {"license": "mit"}),
        (b"# Data\n---\nlicense: mit\n---\n", {}),  # not at the beginning
        (b"---\n- mit\n---\n", {}),
        (b"---\na: [\n---\n", {}),
        (b"---\nday: 2024-13-45\n---\n", {}),  # no day
        (b"---\na: " + b"[" * 5000 + b"\n---\n", {}),
    ],
)
def test_front_matter_is_what_can_be_read_of_it(content: bytes, found: dict[str, Any]) -> None:
    assert hub_readme.front_matter(content) == found


@pytest.mark.parametrize("front", [{}, {"configs": None}, {"configs": "en"}, {"configs": ["en"]}])
def test_what_is_no_config_is_none(front: dict[str, Any]) -> None:
    assert hub_readme.configs(front) == {}


def test_the_config_is_the_wanted_the_only_or_the_default_one() -> None:
    en, de = {"config_name": "en"}, {"config_name": "de", "default": True}
    assert hub_readme.choose(hub_readme.configs({"configs": [en, de]}), "en", "README.md") == "en"
    assert hub_readme.choose(hub_readme.configs({"configs": [en, de]}), None, "README.md") == "de"
    assert hub_readme.choose(hub_readme.configs({"configs": [en]}), None, "README.md") == "en"
    assert hub_readme.choose(hub_readme.configs({"configs": [en, {}]}), None, "README.md") == "default"
    with pytest.raises(DataError, match=r"README\.md: has the configs en, fr: choose one with split: \{config: en\}"):
        hub_readme.choose({"en": {}, "fr": {}}, None, "README.md")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (None, []),
        ("a.csv", [("train", ["a.csv"])]),
        (["a.csv", "b.csv"], [("train", ["a.csv", "b.csv"])]),
        ({"train": "a.csv", "test": ["b.csv", "c.csv"]}, [("train", ["a.csv"]), ("test", ["b.csv", "c.csv"])]),
        ([{"split": "test", "path": "b.csv"}, {"path": ["a.csv"]}], [("test", ["b.csv"]), ("train", ["a.csv"])]),
    ],
)
def test_files_are_named_in_all_forms_of_the_hub(given: Any, found: list[tuple[str, list[str]]]) -> None:
    assert hub_readme.data_files({"data_files": given}) == found


def test_a_pattern_stays_below_the_readme(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    assert hub_readme.files(tmp_path, "./*.csv", "README.md") == [str(tmp_path / "a.csv")]
    with pytest.raises(DataError, match=r"README\.md: names /etc/\*, which is not a path below it"):
        hub_readme.files(tmp_path, "/etc/*", "README.md")
