"""Letters of a run, or of a family, on disk, and how far each got: written once, sent once to each address.

``outbox/KEY.json`` is a letter, made with exclusive creation. ``outbox/KEY.NAME.trying`` is made the same way before it
is sent to the address NAME, and becomes ``.sent``; where the address refused it, it is removed, and the next try may
follow. A ``.trying`` whose process is gone stays: nobody knows whether that letter arrived, so it is not sent again
unasked.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs.core import files
from jobs.core.paths import FamilyPaths, RunPaths
from launch.notify.letter import Letter

LettersOf = RunPaths | FamilyPaths
"""Whose letters: what ended."""

SECONDS = 15.0
"""How long an address may take."""


@dataclass(frozen=True)
class Delivery:
    """What became of a letter at one address: ``sent``, ``refused`` (with ``why``), or ``unknown``."""

    letter: str
    to: str
    state: str
    why: str = ""


def post(owner: LettersOf, letter: Letter) -> bool:
    """Put the letter into the outbox; False: it is there already."""
    directory = owner.outbox
    directory.mkdir(exist_ok=True)
    text = json.dumps({**asdict(letter), "time": time.time()}, ensure_ascii=False) + "\n"
    return files.create_exclusive(directory / f"{letter.key}.json", text)


def deliver(owner: LettersOf, addresses: Mapping[str, str], again: bool = False) -> list[Delivery]:
    """Send every letter to every address (name -> URL) that does not have it yet; ``again``: also those whose sending
    was cut off."""
    found = []
    for path in letters(owner):
        letter = files.read_json(path)
        for name, url in addresses.items():
            trying, sent = (path.with_suffix(f".{name}.{state}") for state in ("trying", "sent"))
            if sent.exists():
                continue
            if again:
                trying.unlink(missing_ok=True)
            if not files.create_exclusive(trying, json.dumps({"time": time.time()}) + "\n"):
                found.append(Delivery(letter["key"], name, "unknown", "it was being sent when that was cut off"))
                continue
            why = _send(url, letter["subject"], letter["body"], owner.page)
            if why is None:
                trying.rename(sent)
                found.append(Delivery(letter["key"], name, "sent"))
            else:
                trying.unlink(missing_ok=True)
                found.append(Delivery(letter["key"], name, "refused", why.replace(url, f"${name}")))
    return found


def letters(owner: LettersOf) -> Iterator[Path]:
    """All letters, oldest first."""
    yield from sorted(owner.outbox.glob("*.json"), key=lambda path: path.stat().st_mtime)


def _send(url: str, subject: str, body: str, page: Path) -> str | None:
    """None: sent; else why not. In a process of its own: an address that does not answer is left after ``SECONDS``."""
    letter = {"url": url, "subject": subject, "body": body, "page": str(page) if page.is_file() else None}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "launch.notify.send"],
            input=json.dumps(letter),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {SECONDS:.0f} s"
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return None
    return (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
