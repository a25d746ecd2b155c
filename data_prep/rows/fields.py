"""The fields of a row: taken by name, left out, carried along, or not used at all."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_prep.common.errors import leaving_out
from data_prep.rows.messages import Unfit
from data_prep.sources.files import CARRIED

COLUMNS = ("prompt", "completion", "chosen", "rejected", "messages", "system", "history", "tools")
"""The fields that ``columns`` can find under another name."""
_OPTIONAL = ("system", "history", "tools")


def renamed(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The row with our names for the fields that ``columns`` names (ours -> theirs).

    Raises:
        Unfit: a field is missing, or there is another one under our name.
    """
    for name, theirs in columns.items():
        if theirs not in row and name not in _OPTIONAL:
            raise Unfit("missing_field", f'has no field "{theirs}", which columns names, but {_names(row)}')
        if name != theirs and theirs in row and not is_empty(row.get(name)) and name not in columns.values():
            raise Unfit("two_fields", f'has a field "{name}" and also "{theirs}", which columns names as {name}')
    ours = {theirs: name for name, theirs in columns.items()}
    return {ours.get(name, name): value for name, value in row.items() if name in ours or name not in columns}


def _names(row: Mapping[str, Any]) -> str:
    return "the fields " + (", ".join(f'"{name}"' for name in list(row)[:8]) or "(none)")


class Fields:
    """The fields of a row; ``rest`` tells which were not asked for."""

    def __init__(self, row: Mapping[str, Any], ignore: Sequence[str] = (), carry: Sequence[str] = ()) -> None:
        self.ignored: Counter[str] = Counter()
        self._ignore = ignore
        self._row = {name: self._without(value) for name, value in row.items() if not self._is_ignored(name, value)}
        self._carry = (*CARRIED, *carry)
        self._used: set[str] = set()

    def _is_ignored(self, name: str, value: Any) -> bool:
        if name in self._ignore and not is_empty(value):
            self.ignored[name] += 1
        return name in self._ignore

    def _without(self, value: Any) -> Any:
        """A message, or the messages of a list, without the fields that are ignored."""
        if self._ignore and isinstance(value, list | tuple):
            return [self._without(entry) if isinstance(entry, Mapping) else entry for entry in value]
        if self._ignore and isinstance(value, Mapping):
            return {key: one for key, one in value.items() if not self._is_ignored(key, one)}
        return value

    def __contains__(self, name: str) -> bool:
        return not is_empty(self._row.get(name))

    def has(self, *names: str) -> bool:
        """Whether all are there with content."""
        return all(name in self for name in names)

    def form(self, forms: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
        """The first form of which all fields are there: of rows that have the columns of several (null where they have
        none) the one with content. Empty: none."""
        known = list(forms)
        empty = (form for form in known if all(name in self._row for name in form))
        return next((form for form in known if self.has(*form)), next(empty, ()))

    def take(self, name: str) -> Any:
        """A field, which counts as used."""
        self._used.add(name)
        return self._row.get(name)

    def text(self, name: str) -> str:
        """A field that is a text with content.

        Raises:
            Unfit: missing, null, empty or no text.
        """
        value = self.take(name)
        if is_null(value):
            raise Unfit("null_field", f'field "{name}" is {"null" if name in self._row else "missing"}')
        if not isinstance(value, str):
            raise Unfit("not_text", f'field "{name}" is {type(value).__name__}, not a text')
        if not value.strip():
            raise Unfit("empty_text", f'field "{name}" is empty')
        return value

    def names(self) -> str:
        """The names of the fields, for messages."""
        return _names(self._row)

    def unused(self) -> list[str]:
        """The fields with content that are neither used nor carried."""
        rest = (name for name, value in self._row.items() if name not in self._used and not is_empty(value))
        return [name for name in rest if name not in self._carry]

    def carried(self, form: str) -> dict[str, Any]:
        """The fields to keep beside the row.

        Raises:
            Unfit: a field is neither used nor carried.
        """
        for name in self.unused()[:1]:
            leave = leaving_out(name)
            raise Unfit(
                "unknown_field",
                f'field "{name}" is not used by a row of the form {form}: write {leave} to leave it out, '
                f"or {leave.replace('ignore', 'carry', 1)} to keep it with the row",
            )
        found = {}
        for name, value in self._row.items():
            if name in self._used or is_empty(value):
                continue
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise Unfit(
                    "not_json", f'field "{name}" cannot be kept with the row ({error}): write {leaving_out(name)}'
                ) from error
            found[name] = value
        return found


def is_null(value: Any) -> bool:
    """None, or NaN, by which pandas writes it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_empty(value: Any) -> bool:
    """Null, or an empty text, list or object."""
    return is_null(value) or value in ("", [], {})
