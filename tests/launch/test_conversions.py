"""The way from one checkpoint format to another, over what the back ends of a pipeline can convert."""

from __future__ import annotations

import pytest

from launch.plan import BackEndFacts, conversions


def able(*converts: tuple[str, str]) -> BackEndFacts:
    return BackEndFacts({}, frozenset({"convert"}), (), (), "python", False, "python3", converts)


ABLE = {
    "convert": able(("gguf", "hf")),
    "nemo": able(("hf", "nemo"), ("nemo", "hf")),
    "nemo_rl": able(("dcp", "hf")),
}


@pytest.mark.parametrize(
    ("given", "wanted", "way"),
    [
        ("hf", ("hf",), []),
        ("gguf", ("hf",), [("convert", "hf")]),
        ("gguf", ("nemo",), [("convert", "hf"), ("nemo", "nemo")]),
        ("nemo", ("hf",), [("nemo", "hf")]),
        ("dcp", ("nemo",), [("nemo_rl", "hf"), ("nemo", "nemo")]),
        ("hf", ("dcp",), None),
        ("wheels", ("hf",), None),
    ],
)
def test_shortest_way(given: str, wanted: tuple[str, ...], way: list[tuple[str, str]] | None) -> None:
    assert conversions(ABLE, given, wanted) == way
