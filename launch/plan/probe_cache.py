"""Answers of back ends that were asked before, kept in the workspace.

An answer is used again while every file and directory that it was made from is the same: those that the interpreter
opened, listed or could import from, its own, and ours. Installing or removing a package changes a directory, editing a
module changes a file. Where that cannot be known, nothing is kept:

* a back end that is the user's code may look at anything;
* what changed within the last seconds may change once more and keep its time of change;
* an interpreter that is started by a script may be another one next time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.core import files, strict
from launch import __version__

Answers = dict[str, dict[str, Any]]

_SETTLED_NS = files.SETTLED_NS
_KEPT = 20
_DECIDING = ("PYTHON", "LD_", "DYLD_")
"""Beginnings of the names of variables that decide what an interpreter finds; HOME does, too."""


class ProbeCache:
    """A missing or broken file is only slower."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._asked = time.time_ns()

    def get(self, python: str, names: Sequence[str], boot: Path, environment: Mapping[str, str]) -> Answers | None:
        """What this interpreter said of these back ends, where it would say the same now."""
        found = self._load().get(_key(python, names, boot, environment))
        try:
            made_from = {} if found is None else found["made_from"]
            if found is not None and all(
                files.state(path) == (kept and tuple(kept)) for path, kept in made_from.items()
            ):
                answers: Answers = strict.convert(dict[str, dict[str, Any]], found["answers"], "answers")
                return answers
        except (KeyError, TypeError, AttributeError, ValueError):
            pass
        self._asked = time.time_ns()
        return None

    def put(
        self,
        python: str,
        names: Sequence[str],
        boot: Path,
        environment: Mapping[str, str],
        answers: Answers,
        evidence: Mapping[str, Any],
    ) -> None:
        """Keep the answers to what ``get`` did not know; silently not where they cannot be kept."""
        executable = shutil.which(python, path=environment.get("PATH"))
        paths = evidence["paths"]
        if paths is None or executable is None or any("error" in answer for answer in answers.values()):
            return
        if os.path.realpath(executable) != os.path.realpath(evidence["executable"]):
            return
        made_from = {path: _state(path) for path in paths}
        if any(state is not None and max(state[2:]) > self._asked - _SETTLED_NS for state in made_from.values()):
            return
        known = self._load()
        key = _key(python, names, boot, environment)
        known.pop(key, None)
        known[key] = {"made_from": made_from, "answers": answers}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Not sorted: the oldest go first.
            files.write_atomic(self._path, json.dumps(dict(list(known.items())[-_KEPT:])) + "\n")
        except OSError:
            pass

    def _load(self) -> dict[str, Any]:
        try:
            known = strict.read(self._path)
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


def _state(path: str) -> list[int] | None:
    """As JSON has it."""
    found = files.state(path)
    return None if found is None else list(found)


def _key(python: str, names: Sequence[str], boot: Path, environment: Mapping[str, str]) -> str:
    deciding = {name: value for name, value in environment.items() if name.startswith(_DECIDING) or name == "HOME"}
    found = shutil.which(python, path=environment.get("PATH"))
    if found != python:
        deciding["python"] = str(found)
    text = json.dumps([__version__, python, sorted(names), str(boot), deciding], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
