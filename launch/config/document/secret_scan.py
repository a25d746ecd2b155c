"""Secrets that were written into a pipeline or a profile: refused, for both are copied into every run and script.

Found by the name (``env: {HF_TOKEN: ...}``), or by the form that a provider gives its tokens. A value that is found is
never shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from launch.base.errors import InputError
from launch.config.document.positions import KeyPath, Positions, dotted
from launch.config.secrets import user_file
from launch.slurm.environment import looks_secret

_FORMS = re.compile(
    r"""\bhf_[A-Za-z0-9]{20,} | \bsk-[A-Za-z0-9_-]{20,} | \bgh[pousr]_[A-Za-z0-9]{30,} | \bgithub_pat_\w{30,}
    | \bglpat-[\w-]{20,} | \bxox[abprs]-[\w-]{10,} | \bAKIA[0-9A-Z]{16}\b | \beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.
    | -----BEGIN\ [A-Z ]*PRIVATE\ KEY | ://[^/\s:@]+:[^/\s:@]+@""",
    re.VERBOSE | re.ASCII,
)
"""Hugging Face, OpenAI, GitHub, GitLab, Slack, AWS, a signed web token, a private key, a password in a URL. Not forms
that others have, too: a key of Weights & Biases looks like a commit of git."""

_ASSIGNMENT = re.compile(r"(?<![\w$])([A-Za-z_]\w*)=(?=(\"[^\"]*\"|'[^']*'|[^\s;,]*))", re.ASCII)
_HARMLESS = re.compile(r"(?:[~/$].*|[-+.\d]*|true|false|yes|no|on|off)\Z", re.IGNORECASE | re.DOTALL)
"""A path, a reference to a variable, a number, a switch: ``SSH_KEY: ~/.ssh/id`` holds no secret."""

_LINES = frozenset({"setup", "srun", "options", "command"})
"""Keys whose texts may assign variables."""


def refuse(data: Mapping[str, Any], positions: Positions) -> None:
    """Check every text of a file. Raises InputError: the place, the name and what to write instead, never the value."""
    for path, text in _texts(data, ()):
        name = _secret_in(path, text)
        if name is None:
            continue
        wanted = f"the line  secrets: [{name}]" if name else "the name of a variable under secrets:"
        hint = f"write {wanted} instead, and the value into your environment or {user_file()} (mode 600)"
        raise InputError(
            f"{dotted(path)}: {'the value of ' + name if name else 'this'} looks like a secret; this text is "
            "copied into scripts and runs",
            where=str(positions.value(path)).replace(text, "..."),
            hint=hint,  # that of a --set is its text
        )


def _texts(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _texts(inner, (*path, number))


def _secret_in(path: KeyPath, text: str) -> str | None:
    """Name of the variable whose secret stands in ``text``; empty: a secret without a name; None: no secret."""
    if len(path) > 1 and path[-2] == "env" and _gives_away(str(path[-1]), text):
        return str(path[-1])
    if not _LINES.isdisjoint(path):
        for found in _ASSIGNMENT.finditer(text):
            if _gives_away(found[1], found[2].strip("'\"")):
                return found[1]
    if _FORMS.search(text) is None:
        return None
    return str(path[-1]) if len(path) > 1 and path[-2] == "env" else ""


def _gives_away(name: str, value: str) -> bool:
    return looks_secret(name) and _HARMLESS.match(value) is None
