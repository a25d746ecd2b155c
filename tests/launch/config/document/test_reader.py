"""The loader: YAML 1.2 scalars, positions, and everything it refuses."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from launch.base.errors import InputError
from launch.base.text import nearest
from launch.config.document import reader
from launch.config.document.positions import MAX_SHOWN, Position, Positions, Problem, dotted, failure
from launch.config.document.reader import MAX_DEPTH, parse, read, scalar


def value_of(text: str) -> Any:
    return parse(f"key: {text}\n", "f.yaml").data["key"]


def refused(text: str) -> InputError:
    with pytest.raises(InputError) as caught:
        parse(text, "f.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        ("+.5", 0.5),
        ("1.", 1.0),
        ("-0.25", -0.25),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("0", 0),
        ("-12", -12),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("null", None),
        ("", None),
    ],
)
def test_core_schema_scalars(text: str, value: object) -> None:
    assert value_of(text) == value
    assert type(value_of(text)) is type(value)
    assert scalar(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "0123",
        "007",
        "00.5",
        "-01",
        "1:30:00",
        "190:20:30",
        "0o17",
        "0x1F",
        "0b11",
        "1_000",
        "1_0.5",
        "yes",
        "no",
        "on",
        "off",
        "y",
        "N",
        "Yes",
        "tRue",
        "2026-11-24",
        "2026-11-24T05:00:00Z",
        "=",
        "1e",
        "e5",
        "1.2.3",
        ".",
        "-",
        "+",
        "0.26.6",
        "nan",
        "inf",
        "Null_",
        "1 2",
    ],
)
@pytest.mark.failure(15)
def test_names_that_look_like_yaml_1_1_values_stay_text(text: str) -> None:
    assert scalar(text) == text
    if text not in ("-",):  # a dash alone starts a list
        assert value_of(text) == text


@pytest.mark.parametrize("quoted", ['"1"', "'1'", '"true"', '"null"', '"1e-5"'])
def test_quotes_make_text(quoted: str) -> None:
    assert value_of(quoted) == quoted[1:-1]


def test_not_a_number_is_read_as_one() -> None:
    assert math.isnan(value_of(".nan"))


def test_explicit_tags() -> None:
    assert value_of("!!str 0123") == "0123"
    assert value_of("!!str 12") == "12"
    assert value_of("!!float 1") == 1.0
    assert "is no int" in refused("key: !!int abc\n").message
    for tag in (
        "!!python/object/apply:os.system [ls]",
        "!!timestamp 2026-01-01",
        "!!binary aGk=",
        "!mine x",
        "!!set {a}",
    ):
        error = refused(f"key: {tag}\n")
        assert "is not supported" in error.message
        assert error.where is not None
        assert error.where.startswith("f.yaml:1:6")


def test_marks_of_keys_values_and_items() -> None:
    document = parse("a: 1\nb:\n  c: [x, {d: y}]\n  'e f': |\n    text\n", "f.yaml")
    assert document.data == {"a": 1, "b": {"c": ["x", {"d": "y"}], "e f": "text\n"}}
    positions = document.positions
    assert str(positions.key(("b", "c"))) == "f.yaml:3:3"
    assert str(positions.value(("b", "c"))) == "f.yaml:3:6"
    assert str(positions.value(("b", "c", 1, "d"))) == "f.yaml:3:14"
    assert str(positions.key(("b", "e f"))) == "f.yaml:4:3"
    # What is not there is at the nearest thing around it that is.
    assert str(positions.value(("b", "missing", "deep"))) == "f.yaml:2:1"
    assert str(Positions("g.yaml").value(("x",))) == "g.yaml"
    assert positions.excerpt(positions.value(("b", "c"))).splitlines()[1].endswith("     ^")


def test_caret_stays_in_view_on_a_long_line() -> None:
    document = parse(f"key: {{a: {'x' * 500}, b: 1}}\n", "f.yaml")
    lines = document.positions.excerpt(document.positions.value(("key", "b"))).splitlines()
    assert all(len(line) < 130 for line in lines)
    assert lines[0][lines[1].index("^")] == "1"


def test_duplicate_keys() -> None:
    error = refused("a: 1\nb: {x: 1, 'x': 2}\n")
    assert error.where == "f.yaml:2:11"
    assert "b.x: is already set in line 2" in error.message


@pytest.mark.parametrize("key", ["1", "true", "~", "1.5"])
def test_keys_are_text(key: str) -> None:
    assert "is not text; quote it" in refused(f"a:\n  {key}: x\n").message
    assert parse(f'a:\n  "{key}": x\n', "f.yaml").data == {"a": {key: "x"}}


def test_compound_keys() -> None:
    assert "a key must be text" in refused("? [a, b]\n: c\n").message


def test_anchors_and_merge_keys() -> None:
    text = "base: &b {steps: 4, lr: 1e-5}\ncpt:\n  <<: *b\n  lr: 2e-5\nsft: {<<: [*b, {kind: sft}], same: *b}\n"
    document = parse(text, "f.yaml")
    assert document.data["cpt"] == {"steps": 4, "lr": 2e-5}
    assert document.data["sft"] == {"steps": 4, "lr": 1e-5, "kind": "sft", "same": {"steps": 4, "lr": 1e-5}}
    assert str(document.positions.value(("cpt", "steps"))) == "f.yaml:1:18"  # where it is written
    assert str(document.positions.value(("cpt", "lr"))) == "f.yaml:4:7"
    assert "<< takes a mapping" in refused("a: &a 1\nb: {<<: *a}\n").message
    assert parse('a: {"<<": 1}\n', "f.yaml").data == {"a": {"<<": 1}}


def test_alias_bombs_and_rings() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "are the anchors nested" in refused("\n".join(lines)).message
    assert "contains itself" in refused("a: &a {b: *a}\n").message
    assert "contains itself" in refused("a: &a\n  <<: *a\n").message
    deep = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 100)]
    assert "deep" in refused("\n".join(deep)).message


def test_unknown_alias() -> None:
    error = refused("a: *nope\n")
    assert "nope" in error.message
    assert error.where == "f.yaml:1:4"


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting_is_refused_where_it_gets_too_deep(opening: str) -> None:
    error = refused("a: " + opening * 5000 if opening != "- " else "a:\n" + "- " * 5000)
    assert f"nested more than {MAX_DEPTH} deep" in error.message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("---\n...\n", "expected a mapping"),
        ("- a\n", "expected a mapping"),
        ("just text\n", "expected a mapping"),
        ("a: 1\n---\nb: 2\n", "single document"),
        ("a:\n\tb: 1\n", "a tab"),
        ("a: b: c\n", "mapping values are not allowed"),
        ("a: [1, 2\n", "expected"),
        ('a: "x\n', "end of stream"),
        ("a: @x\n", "cannot start any token"),
        ('a: "\\Uffffffff"\n', "not valid YAML"),
        ('a: "\\ud800"\n', "surrogate"),
        ('a: "\\x1b[31m"\n', "control character U+001B"),
        ('a: "\\0"\n', "control character U+0000"),
        ('a: "\\x9b"\n', "control character U+009B"),
        ("a: x\x07y\n", "control character U+0007"),
        ("a: x\ud800\n", "control character U+D800"),
        (f"a: {'9' * 5000}\n", "a number of 5000 characters"),
        ("a: 1e999\n", "too large for a number"),
        (f"{'k' * 2000}: 1\n", "mapping values are not allowed"),
    ],
)
def test_refused(text: str, part: str) -> None:
    error = refused(text)
    assert part in error.message
    assert error.where is not None
    assert error.where.startswith("f.yaml")


@pytest.mark.parametrize(
    ("raw", "part", "where"),
    [
        (b"\xef\xbb\xbfa: 1\n", "byte order mark", ":1:1"),
        ("a: 1\n".encode("utf-16"), "byte order mark", ":1:1"),
        (b"a: 1\nb: \xe9\n", "byte 0xe9 is not UTF-8", ":2:4"),
        (b"a: 1\n" * 300_000, "larger than", ""),
        (b"\x00", "control character U+0000", ":1:1"),
    ],
)
def test_bytes_that_are_no_text(tmp_path: Path, raw: bytes, part: str, where: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=re.escape(part)) as caught:
        read(path)
    assert caught.value.where == f"{path}{where}"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="Is a directory"):
        read(tmp_path)


def test_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"a: 1\r\nb:\r\n  c: x\r\n")
    document = read(path)
    assert document.data == {"a": 1, "b": {"c": "x"}}
    assert document.positions.value(("b", "c")) == Position(str(path), 3, 6)


def test_failure_lists_in_the_order_of_the_file_and_stops() -> None:
    document = parse("".join(f"k{n}: {n}\n" for n in range(30)), "f.yaml")
    error = failure([Problem((f"k{n}",), "wrong") for n in reversed(range(30))], document.positions, hint="do this")
    assert error.where == "f.yaml:1:5"
    assert error.hint == "do this"
    assert str(error).startswith("f.yaml:1:5: k0: wrong\n    1 | k0: 0\n      |     ^\nf.yaml:2:5: k1: wrong")
    assert str(error).count(": wrong") == MAX_SHOWN
    assert str(error).endswith("and 20 more")


def test_dotted() -> None:
    assert dotted(("stages", "cpt", "tasks", 0, "x")) == "stages.cpt.tasks[0].x"
    assert dotted(()) == ""


def test_nearest() -> None:
    assert nearest("lerning_rate", ["lr", "steps"], {"learning_rate": "lr"}) == "lr"
    assert nearest("Batch-Size", ["batch_size"]) == "batch_size"
    assert nearest("qqq", ["lr", "steps"]) is None


_TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=30)
_KEYS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=30)
"""YAML ends a line where JSON has a line or paragraph separator, and a key stands on one line."""
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(_KEYS, _JSON, max_size=4), st.booleans(), st.sampled_from([None, 2]))
@settings(max_examples=150, deadline=None)
def test_json_is_yaml(data: dict[str, Any], ascii_only: bool, indent: int | None) -> None:
    """JSON is YAML 1.2: what a program writes comes back unchanged, types included."""
    document = parse(json.dumps(data, ensure_ascii=ascii_only, indent=indent), "f.json")
    assert json.dumps(document.data) == json.dumps(data)


@given(st.text(max_size=60) | st.text("{}[]:,-&*!|>'\"%@#?<~ \n\t01eE.", max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    try:
        document = parse(text, "f.yaml")
    except InputError as error:
        assert str(error).startswith("f.yaml")
    else:
        assert isinstance(document.data, dict)


@given(st.text(max_size=20))
@settings(max_examples=300, deadline=None)
def test_scalar_gives_a_value_or_says_why_not(text: str) -> None:
    try:
        value = scalar(text)
    except ValueError as error:
        assert str(error)
    else:
        assert value is None or isinstance(value, bool | int | float | str)
        if isinstance(value, str):
            assert value == text


def answer(text: str) -> Any:
    """What a text is read as, with all positions; else the message."""
    try:
        document = parse(text, "f.yaml")
    except InputError as error:
        return str(error)
    return repr((document.data, document.positions.keys, document.positions.values))


_PIECES = [
    *"{}[]:,-&*!|>'\"%@#?<~` \n\ta0.e\u20ac",
    "\n",
    "\n  ",
    "\n    ",
    "\n- ",
    "a: ",
    "b: ",
    "- ",
    ": ",
    " #c",
    "? ",
]
_PIECES += [
    "!!str ",
    "&x ",
    "*x",
    '"a\\n"',
    "'it''s'",
    "|\n  ",
    ">-\n  ",
    "---",
    "...",
    "%YAML 1.1\n",
    "\u2028",
    "\x85",
    "\r\n",
]
_PIECES += ["\r", "<<: ", "\ufeff", "\\u0041", '"\\x41"', "1e3", "key: value\n", "\U0001f600", "\ud83d", '"\\ud83d"']

_ROOT = Path(__file__).parents[4]
_OUR_FILES = sorted([*_ROOT.glob("pipelines/*.yaml"), *_ROOT.glob("cluster_profiles/*.yaml")])


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="PyYAML without libyaml: there is one parser")
@given(st.lists(st.sampled_from(_PIECES), max_size=14).map("".join), st.sampled_from(["\n", ""]))
@settings(max_examples=1500, deadline=None)
@example("---", "")
@example("?", "\n")
@example("a: !", "\n")
@example("a: >#", "\n")
@example("a: 1\t", "\n")
@example('a: "x\\ud83d"', "\n")
@example("- a\n\ufeffb: 1", "\n")
@example("a: {b: [1, x: 2], c: *x}", "\n")
def test_both_parsers_read_the_same_or_refuse_it_at_the_same_place(text: str, end: str) -> None:
    found = answer(text + end)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(yaml, "__with_libyaml__", False)
        assert found == answer(text + end)


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="PyYAML without libyaml: there is one parser")
@pytest.mark.parametrize("path", _OUR_FILES, ids=lambda path: path.name)
def test_our_files_are_parsed_by_libyaml(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(yaml, "__with_libyaml__", False)
        in_python = read(path)

    def refused(text: str) -> None:
        raise AssertionError("parsed in Python")

    monkeypatch.setattr(reader, "_Loader", refused)
    assert read(path) == in_python


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.yaml")
    with pytest.raises(InputError, match="a pipe, not a file"):
        read(tmp_path / "p.yaml")
    done = subprocess.run(["bash", "-c", f"exec 3< <(echo 'a: 1'); {sys.executable} -c 'from pathlib import Path; "
                           "from launch.config.document.reader import read; print(read(Path(\"/dev/fd/3\")).data)' 3<&3"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.stdout == "{'a': 1}\n", done.stderr
