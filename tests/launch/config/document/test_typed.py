"""Plain data as classes: what is read, and the errors for what is not."""

import math
from dataclasses import FrozenInstanceError
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from launch.config.document.positions import Problem
from launch.config.document.typed import Before, StrictModel, TaggedBy, fields_of, key, problems_of


def even(value: int) -> int:
    if value % 2:
        raise ValueError(f"{value} is odd")
    return value


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(StrictModel):
    number: Annotated[int, even]
    part: float = 0.5

    def _check(self) -> None:
        if self.part > self.number:
            raise ValueError("the part is more than the whole")


class Circle(StrictModel):
    kind: Literal["circle"]
    radius: float


class Square(StrictModel):
    kind: Literal["square", "box"]
    side: float


class Outer(StrictModel):
    source: str = key(alias="from")
    inner: Annotated[Inner, Before(lambda value: {"number": value} if isinstance(value, int) else value)] = Inner(
        number=2
    )
    shape: Annotated[Circle | Square, TaggedBy("kind")] | None = None
    colours: tuple[Colour, ...] = ()
    places: dict[Annotated[str, str.strip], Path] = key(default_factory=dict)
    either: bool | tuple[int, ...] | None = None
    rest: Any = None


def said(**values: Any) -> list[tuple[Any, ...]]:
    with pytest.raises(ValueError, match=r".") as caught:
        Outer.read({"from": "x", **values})
    return [tuple(one) for one in problems_of(caught.value)]


def test_values_are_of_the_annotated_types() -> None:
    found = Outer.read(
        {
            "from": "x", "inner": {"number": 4, "part": 3}, "shape": {"kind": "box", "side": 2}, "colours": ["red"],
            "places": {" a ": "/b"}, "either": [1, 2], "rest": {"as": ["it", "is"]},
        }
    )  # fmt: skip
    assert found.inner == Inner(number=4, part=3.0)
    assert isinstance(found.inner.part, float)
    assert found.shape == Square(kind="box", side=2.0)
    assert found.colours == (Colour.RED,)
    assert found.colours[0] is Colour.RED
    assert found.places == {"a": Path("/b")}
    assert found.either == (1, 2)
    assert found.plain() == {
        "from": "x", "inner": {"number": 4, "part": 3.0}, "shape": {"kind": "box", "side": 2.0}, "colours": ["red"],
        "places": {"a": "/b"}, "either": [1, 2], "rest": {"as": ["it", "is"]},
    }  # fmt: skip
    assert Outer.read(found.plain()) == found


def test_what_is_not_written_has_its_default_and_shares_nothing() -> None:
    one, other = Outer.read({"from": "x"}), Outer.read({"from": "x"})
    assert one == other
    assert one.inner == Inner(number=2)
    one.places["a"] = Path("/b")
    assert other.places == {}


def test_values_are_frozen_and_changed_in_a_copy() -> None:
    found = Outer.read({"from": "x"})
    with pytest.raises(FrozenInstanceError):
        found.rest = 1  # type: ignore[misc]
    assert found.changed(rest=1).rest == 1
    assert found.rest is None


def test_inner_names_come_in_the_order_of_the_bases() -> None:
    class More(Inner):
        part: float = 1.0
        last: int = 0

    assert list(fields_of(More)) == ["number", "part", "last"]
    assert More(number=2).part == 1.0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"inner": {"number": 3}}, [(("inner", "number"), "3 is odd", False)]),
        ({"inner": {"number": 2, "part": 3.5}}, [(("inner",), "the part is more than the whole", False)]),
        ({"inner": 3}, [(("inner",), "3 is odd", False)]),
        ({"inner": {}}, [(("inner", "number"), "this key is required", True)]),
        ({"inner": {"number": True}}, [(("inner", "number"), "expected a whole number, got true", False)]),
        ({"inner": {"number": 2.0}}, [(("inner", "number"), "expected a whole number, got 2.0", False)]),
        ({"inner": {"number": 2, "part": "1"}}, [(("inner", "part"), "expected a number, got '1'", False)]),
        ({"inner": {"number": 2, "part": math.nan}}, [(("inner", "part"), "expected a finite number, got nan", False)]),
        ({"inner": []}, [(("inner",), "expected a mapping (key: value), got a list", False)]),
        (
            {"inner": {"numbr": 2}},
            [
                (("inner", "number"), "this key is required", True),
                (("inner", "numbr"), "unknown key; nearest: number (value: 2)", True),
            ],
        ),
        ({"shape": {"side": 1}}, [(("shape",), "the key kind is required", True)]),
        ({"shape": {"kind": "bx"}}, [(("shape", "kind"), "got 'bx'; nearest: box", False)]),
        ({"shape": {"kind": ["box"]}}, [(("shape", "kind"), "got a list; nearest: box", False)]),
        ({"shape": {"kind": "box"}}, [(("shape", "side"), "this key is required", True)]),
        ({"colours": ["red", "bleu"]}, [(("colours", 1), "got 'bleu'; nearest: blue", False)]),
        ({"colours": "red"}, [(("colours",), "expected a list, got 'red'", False)]),
        ({"places": {"a": 1}}, [(("places", "a"), "expected a path, got 1", False)]),
        (
            {"places": {1: "/b"}},
            [(("places", 1), 'expected text, got 1; quote this value: "1"', True)],
        ),
        (
            {"either": "x"},
            [
                (("either",), "expected true or false, got 'x'", False),
                (("either",), "expected a list, got 'x'", False),
            ],
        ),
    ],
)
def test_every_fault_has_its_place(values: dict[str, Any], expected: list[tuple[Any, ...]]) -> None:
    assert said(**values) == expected


def test_all_faults_are_found_at_once() -> None:
    assert [one[0] for one in said(inner=1, colours=["x", 3], shape=4)] == [
        ("inner",),
        ("shape",),
        ("colours", 0),
        ("colours", 1),
    ]


def test_a_number_that_is_too_large_for_one_is_refused() -> None:
    assert said(inner={"number": 2, "part": 10**400})[0][1].startswith("expected a finite number")


def test_what_is_constructed_is_checked_too() -> None:
    with pytest.raises(ValueError, match=r"number: 3 is odd") as caught:
        Inner(number=3)
    assert problems_of(caught.value) == [Problem(("number",), "3 is odd")]
    with pytest.raises(ValueError, match="unknown key"):
        Inner(number=2, other=1)  # type: ignore[call-arg]
