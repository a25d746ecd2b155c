"""YAML in, plain values and their positions out: the reader of pipeline and profile files.

PyYAML reads YAML 1.1, where an account ``0123`` becomes 83, a time ``1:30:00`` becomes 5400, ``no`` becomes false and
``1e-5`` stays text. We use its scanner and parser and resolve scalars ourselves by the core schema of YAML 1.2,
narrowed: a number with a leading zero, a radix prefix or underscores stays text, because in our files it is a name.
Every key and value keeps its file, line and column, so so that a later check can point at it.

Where PyYAML has libyaml, its scanner and parser do the work in a tenth of the time. They differ from the Python ones in
messages and in a few rare forms: what they refuse is parsed again in Python, and a text with such a form only there.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import Reader

from launch.base.errors import InputError
from launch.config.document.positions import Document, KeyPath, Position, Positions, dotted

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 50_000


_TAG = "tag:yaml.org,2002:"
_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z")
_SPECIAL_FLOAT = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # what PyYAML counts as the end of a line
_DIFFERENT = re.compile(r"[\t\ufeff!?]|[|>][-+0-9]*#")
"""Tags, complex keys, tabs, byte order marks, ``|#``: libyaml accepts some that PyYAML refuses, or at another place."""

_MAX_DIGITS = 40
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


def scalar(text: str) -> Any:
    """The value of an unquoted scalar: None, a bool, an int, a float or text."""
    return _convert(_core_tag(text), text)


def read(path: Path) -> Document:
    """The content of a YAML file. Raises InputError: unreadable, not UTF-8, not YAML as said above, or no mapping."""
    name = str(path)
    if path.is_fifo() and not name.startswith(("/dev/", "/proc/")):  # such as a shell makes has a writer
        raise InputError(f"cannot read {name}: a pipe, not a file")
    try:
        with open(path, "rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror or error}") from error
    if len(raw) > MAX_BYTES:
        raise InputError(f"larger than {MAX_BYTES} bytes: not one of our files", where=name)
    if raw.startswith(_BYTE_ORDER_MARKS):
        raise InputError("starts with a byte order mark: save it as UTF-8 without one", where=f"{name}:1:1")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8")
        line, column = _line_and_column(before)
        raise InputError(f"byte 0x{raw[error.start]:02x} is not UTF-8", where=f"{name}:{line}:{column}") from error
    return parse(text, name)


def parse(text: str, name: str) -> Document:
    """``read`` of a text; ``name`` stands for the file in messages."""
    positions = Positions(name, tuple(_LINE_BREAK.split(text)))
    builder = _Builder(text, positions)
    node = builder.compose()
    if node is None:
        raise InputError("is empty", where=name)
    value = builder.build(node, ())
    if not isinstance(value, dict):
        raise builder.error("expected a mapping (key: value) at the top", node)
    return Document(value, positions)


def parse_value(text: str, name: str) -> Any:
    """A single value in flow style or quotes, as an option gives it."""
    builder = _Builder(text, Positions(name, ()))
    node = builder.compose()
    return None if node is None else builder.build(node, ())


def _line_and_column(before: str) -> tuple[int, int]:
    lines = _LINE_BREAK.split(before)
    return len(lines), len(lines[-1]) + 1


def _core_tag(text: str) -> str:
    if _NULL.match(text):
        return f"{_TAG}null"
    if _BOOL.match(text):
        return f"{_TAG}bool"
    if _INT.match(text):
        return f"{_TAG}int"
    if _FLOAT.match(text) or _SPECIAL_FLOAT.match(text):
        return f"{_TAG}float"
    return f"{_TAG}str"


def _convert(tag: str, text: str) -> Any:
    """``text`` as the type of ``tag``. Raises ValueError: it is of another type or too long, or the tag is unknown."""
    kind = tag.removeprefix(_TAG)
    if kind == "str":
        return text
    if kind == "null" and _NULL.match(text):
        return None
    if kind == "bool" and _BOOL.match(text):
        return text.lower() == "true"
    if kind in ("int", "float") and len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} characters; quote it if it is text")
    if kind == "int" and _INT.match(text):
        return int(text)
    if kind == "float" and (_INT.match(text) or _FLOAT.match(text)):
        value = float(text)
        if math.isinf(value):
            raise ValueError(f"{text} is too large for a number")
        return value
    if kind == "float" and _SPECIAL_FLOAT.match(text):
        return float(text.replace(".", ""))
    if kind in ("null", "bool", "int", "float"):
        raise ValueError(f"{text!r} is no {kind}")
    raise ValueError(f"the tag {tag.replace(_TAG, '!!')} is not supported")


class _Composer(Composer):
    """From a parser's events to the node graph, with our resolution of scalars and a bound on nesting."""

    _depth = 0

    def resolve(self, kind: type[Node], value: str | None, implicit: Any) -> str:
        if kind is ScalarNode:
            return _core_tag(value or "") if implicit[0] else f"{_TAG}str"
        return f"{_TAG}map" if kind is MappingNode else f"{_TAG}seq"

    def descend_resolver(self, *_: Any) -> None:  # of resolvers by path, which we have none of
        pass

    def ascend_resolver(self) -> None:
        pass

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[attr-defined]
            raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} deep", problem_mark=mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Loader(_Composer, yaml.SafeLoader):
    """PyYAML in Python: its messages are what a fault is reported by."""


def _composed_by_libyaml(text: str) -> Node | None:
    """The node graph. Raises ValueError: no libyaml, or it rejects the text or may read it differently from PyYAML."""
    if not yaml.__with_libyaml__ or not text.endswith("\n") or _DIFFERENT.search(text):
        raise ValueError

    class Loader(_Composer, yaml.CSafeLoader):
        def __init__(self) -> None:
            yaml.CSafeLoader.__init__(self, text)
            Composer.__init__(self)

    try:
        return Loader().get_single_node()
    except yaml.YAMLError as error:
        raise ValueError from error


class _Builder:
    """Turns the node graph of one text into plain values and fills in the marks."""

    def __init__(self, text: str, positions: Positions) -> None:
        self._text = text
        self._marks = positions
        self._count = 0
        self._open: set[int] = set()  # nodes being built: meeting one again is an anchor that contains itself

    def compose(self) -> Node | None:
        found = Reader.NON_PRINTABLE.search(self._text)
        if found:
            line, column = _line_and_column(self._text[: found.start()])
            raise self._fault(f"control character U+{ord(found[0]):04X}", line, column)
        try:
            return _composed_by_libyaml(self._text)
        except ValueError:
            pass
        loader = _Loader(self._text)
        try:
            return loader.get_single_node()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            text = (error.problem or error.context or "not valid YAML").strip()
            if text.startswith("but "):  # the second half of a sentence
                text = f"{error.context}, {text}"
            if text == "found character '\\t' that cannot start any token":
                text = "a tab; YAML is indented with spaces"
            if mark is None:
                raise InputError(text, where=self._marks.file) from error
            raise self._fault(text, mark.line + 1, mark.column + 1) from error
        except (ValueError, OverflowError) as error:  # an escape such as \Uffffffff
            raise self._fault(f"not valid YAML: {error}", loader.line + 1, loader.column + 1) from error
        finally:
            loader.dispose()

    def build(self, node: Node, path: KeyPath) -> Any:
        self._count += 1
        if self._count > MAX_NODES:
            raise self.error(f"more than {MAX_NODES} values: are the anchors nested?", node)
        if len(path) > MAX_DEPTH:
            raise self.error(f"nested more than {MAX_DEPTH} deep", node)
        if id(node) in self._open:
            raise self.error("an anchor that contains itself", node)
        self._marks.values[path] = self._position(node)
        self._open.add(id(node))
        try:
            if isinstance(node, MappingNode):
                return self._mapping(node, path)
            if isinstance(node, SequenceNode):
                self._check_tag(node, "seq")
                return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
            return self._scalar(node)
        finally:
            self._open.discard(id(node))

    def error(self, text: str, node: Node) -> InputError:
        position = self._position(node)
        return self._fault(text, position.line, position.column)

    def _fault(self, text: str, line: int | None, column: int | None) -> InputError:
        position = Position(self._marks.file, line, column)
        excerpt = self._marks.excerpt(position)
        return InputError(f"{text}\n{excerpt}" if excerpt else text, where=str(position))

    def _position(self, node: Node) -> Position:
        return Position(self._marks.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def _check_tag(self, node: Node, kind: str) -> None:
        if node.tag != f"{_TAG}{kind}":
            raise self.error(f"the tag {node.tag.replace(_TAG, '!!')} is not supported", node)

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        self._check_tag(node, "map")
        result: dict[str, Any] = {}
        written: dict[str, int] = {}
        merged: list[Node] = []
        for key_node, value_node in node.value:
            if isinstance(key_node, ScalarNode) and key_node.value == "<<" and not key_node.style:
                merged += value_node.value if isinstance(value_node, SequenceNode) else [value_node]
                continue
            key = self._key(key_node, path)
            line = key_node.start_mark.line + 1
            if key in written:
                raise self.error(f"{dotted((*path, key))}: is already set in line {written[key]}", key_node)
            written[key] = line
            self._marks.keys[*path, key] = self._position(key_node)
            result[key] = self.build(value_node, (*path, key))
        for parent in merged:
            self._merge(parent, path, result)
        return result

    def _merge(self, parent: Node, path: KeyPath, result: dict[str, Any]) -> None:
        """Add what ``<<: *anchor`` brings: keys written here, or brought before, stand."""
        if not isinstance(parent, MappingNode):
            raise self.error("<< takes a mapping or a list of mappings", parent)
        apart = _Builder(self._text, Positions(self._marks.file, self._marks.lines))
        apart._count, apart._open = self._count, self._open
        brought = apart.build(parent, path)
        self._count = apart._count
        for key, value in brought.items():
            if key in result:
                continue
            result[key] = value
            place = (*path, key)
            for ours, theirs in ((self._marks.keys, apart._marks.keys), (self._marks.values, apart._marks.values)):
                ours.update({at: mark for at, mark in theirs.items() if at[: len(place)] == place})

    def _key(self, node: Node, path: KeyPath) -> str:
        inside = f"{dotted(path)}: " if path else ""
        if not isinstance(node, ScalarNode):
            raise self.error(f"{inside}a key must be text", node)
        value = self._scalar(node)
        if not isinstance(value, str):
            raise self.error(f"{inside}the key {node.value} is not text; quote it if it is meant", node)
        return value

    def _scalar(self, node: Node) -> Any:
        text = node.value
        if any("\ud800" <= character <= "\udfff" for character in text):
            # JSON, which is YAML too, writes one character as two escapes; PyYAML leaves them as they are.
            try:
                text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
            except UnicodeDecodeError:
                raise self.error("half of a surrogate pair is not a character", node) from None
        for character in text:
            if (character < " " and character not in "\n\t") or "\x7f" <= character <= "\x9f":
                raise self.error(f"control character U+{ord(character):04X} in {text[:40]!r}", node)
        try:
            return _convert(node.tag, text)
        except ValueError as error:
            raise self.error(str(error), node) from error
