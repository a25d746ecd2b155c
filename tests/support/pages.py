"""Shell blocks of pages: ``bash`` and ``console`` are run, in order; others say in a comment before them why not.

A block ``text`` behind one that is run holds lines that its output must have, in this order; in a ``console`` block
they stand behind their command. ``...`` is anything, and a number, a run id or a directory may be another one.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 900.0
PATIENCE = 300.0
"""How long ``overnight status`` is asked again until it shows what a page expects."""

SHELL = ("sh", "bash", "console", "shell")
RUN = ("bash", "console")
_BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A shell block. ``reason``: why it is not run; ``expected``: lines of its output."""

    page: Path
    line: int
    language: str
    text: str
    reason: str
    expected: tuple[str, ...]

    @property
    def is_run(self) -> bool:
        return self.language in RUN and not self.reason

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """READMEs and everything below docs/."""
    return [ROOT / "README.md", ROOT / "README.ko.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The shell blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = list(_BLOCK.finditer(text))
    made = []
    for number, one in enumerate(found):
        looks = one["text"].startswith(("$ ", "overnight ", "make ", "pip "))
        if one["language"] not in SHELL and not (looks and not one["language"]):
            continue
        after = found[number + 1] if number + 1 < len(found) else None
        follows = after is not None and after["language"] == "text" and not text[one.end() : after.start()].strip()
        expected = tuple(after["text"].splitlines()) if follows and after is not None else ()
        line = text.count("\n", 0, one.start("language")) + 1
        made.append(Block(page, line, one["language"], one["text"], one["reason"] or "", expected))
    return made


class Session:
    """A bash that keeps variables and directory from block to block, in a home of its own."""

    def __init__(self, home: Path, environment: Mapping[str, str] | None = None) -> None:
        self._home = home
        self._state = home / ".state"
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("OVERNIGHT_", "XDG_", "SLURM_"))
        }
        path = f"{Path(sys.executable).parent}:{kept.get('PATH', '')}"
        own = {"HOME": str(home), "PATH": path, "PYTHONPATH": str(ROOT), "TERM": "dumb", "NO_COLOR": "1"}
        self.environment = {**kept, **own, **(environment or {})}
        self._state.write_text(f"cd {shlex.quote(str(home))}\n")

    def run(self, block: Block) -> None:
        """Raises AssertionError: a command fails, or the output lacks a line."""
        for command, expected in _commands(block):
            shown = self._shown(command, block)
            end = time.monotonic() + PATIENCE
            while missing(expected, shown) is not None and _may_change(command) and time.monotonic() < end:
                time.sleep(3)
                shown = self._shown(command, block)
            lacking = missing(expected, shown)
            assert lacking is None, f"{block}: {lacking!r} is not in the output of\n{command}\n{shown}"

    def _shown(self, command: str, block: Block) -> str:
        keep = f'export -p >{self._state}; printf "cd %q\\n" "$PWD" >>{self._state}'
        script = f"set -eo pipefail\nsource {self._state}\n{command}\n{keep}\n"
        done = subprocess.run(
            ["bash", "-c", script], env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}: exit {done.returncode} of\n{command}\n{done.stdout}"
        return done.stdout


def _may_change(command: str) -> bool:
    return command.startswith("overnight status")


def _commands(block: Block) -> Iterator[tuple[str, tuple[str, ...]]]:
    if block.language != "console":
        yield block.text, block.expected
        return
    for part in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
        command, *expected = part.rstrip("\n").split("\n")
        yield command, tuple(expected)


def missing(expected: tuple[str, ...], shown: str) -> str | None:
    """The first expected line that does not follow the ones before; None: all are there."""
    lines = iter(shown.splitlines())
    for one in expected:
        if one.strip() and one.strip() != "...":
            pattern = re.compile(_pattern(one))
            if not any(pattern.search(line) for line in lines):
                return one
    return None


_VARYING = re.compile(r"\.\.\.|/home/me\S*|\b(?=[a-z]*\d)(?=\d*[a-z])[a-z0-9]{5}\b|[-+]?\d[\d.:,]*|\s+|-{3,}")


def _pattern(line: str) -> str:
    made, at = "", 0
    for found in _VARYING.finditer(line.strip()):
        made += re.escape(line.strip()[at : found.start()])
        word = found[0]
        if word == "...":
            made += ".*"
        elif word.startswith("/home/me"):
            made += r"/\S+"
        elif word.isspace():
            made += r"\s+"
        elif set(word) == {"-"}:
            made += "-+"
        elif word[0].isdigit() or word[0] in "+-":
            made += r"(?:[-+]?\d[\d.:,]*|[a-z0-9]{5})" if len(word) == 5 else r"[-+]?\d[\d.:,]*"
        else:
            made += "[a-z0-9]{5}"
        at = found.end()
    return made + re.escape(line.strip()[at:])
