"""What ``--json`` prints: one object a line, whose first key names its schema: ``overnight/COMMAND/VERSION``.

A version goes up when a key changes its meaning or goes; a further key is no new version. Times are seconds since 1970
in UTC, or text with a Z.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

KEY = "schema"
VERSIONS = {"list": 2, "fetch": 2, "profile/list": 2}
"""Of those that are no longer 1."""

_command = ""


def begin(command: str, action: str | None = None) -> None:
    """From now on answers are those of this command."""
    global _command
    _command = command if action is None else f"{command}/{action}"


def schema() -> str:
    """The name of the schema of the answers of the command that runs."""
    return f"overnight/{_command}/{VERSIONS.get(_command, 1)}"


def dumps(value: Mapping[str, Any], *, ascii_only: bool = True) -> str:
    """One line of JSON. ``ascii_only``: names of files that are no UTF-8 can be printed, too."""
    rest = {name: one for name, one in value.items() if name != KEY}
    return json.dumps({KEY: schema(), **rest}, ensure_ascii=ascii_only)
