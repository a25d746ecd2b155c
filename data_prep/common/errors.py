"""What is wrong with the user's data or settings. Each error says where and carries its failure class."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.core.verdict import FailureClass


class DataError(Exception):
    """A source is not what it has to be. ``str()`` starts with ``file:line`` where these are known."""

    failure = FailureClass.DATA_ERROR

    def __init__(self, message: str, path: Path | str | None = None, line: int | None = None) -> None:
        place = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        super().__init__(place + message)
        self.message = message
        self.path = path
        self.line = line


class SettingsError(DataError):
    """The stage's settings name something that does not exist or does not fit together."""

    failure = FailureClass.BAD_CONFIGURATION


def of_extra(module: str, what: str) -> Any:
    """A module that comes with the extra ``data``, which ``what`` needs.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SettingsError(f'{what} needs the extra "data": pip install "overnight[data]" ({error})') from error


def leaving_out(name: str) -> str:
    """What to write to leave a field out of rows, as YAML that names it."""
    return f"ignore: [{name if re.fullmatch(r'[A-Za-z_][A-Za-z0-9_.-]*', name) else json.dumps(name)}]"


class SourceMissing(DataError):
    """A file that was planned with is not there any more."""

    failure = FailureClass.MISSING_INPUT


@dataclass(frozen=True)
class Flaw:
    """Why a row is bad input. ``place`` is ``file:line`` (or a file); ``text`` says what is wrong, or shows the row."""

    reason: str
    place: str
    text: str
