"""Secrets by name: where their values come from, and the one file that the jobs of a run source.

Pipeline and profile name them (``secrets: [HF_TOKEN]``). A value comes from the environment of the user who submits,
else from the user's own file, which must be his and closed to others (0600). It is written to ``private/secrets.sh`` of
the run (0600 in a directory of mode 0700) and to nothing else: not to a script, plan, journal, log, or command line.
"""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from launch.base.errors import InputError
from launch.base.text import control_character, user_place
from launch.config.allowed import allows, pattern_of

VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)\Z", re.ASCII)
_ALLOWED = "\t\n"
"""A key of several lines has line breaks."""

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_MAX_BYTES = 1 << 20


def _secret_name(name: str) -> str:
    if not VARIABLE_NAME.match(name):
        raise ValueError(f"{name!r} is not the name of an environment variable; values do not belong here")
    if name.startswith(("OVERNIGHT_", "SLURM_", "LD_", "BASH")) or name in ("PATH", "HOME", "SHELLOPTS", "IFS"):
        raise ValueError(f"{name!r} is a variable that runs the job itself")
    return name


allows(_secret_name, pattern=pattern_of(VARIABLE_NAME))
SecretName = Annotated[str, _secret_name]


def user_file() -> Path:
    """``$OVERNIGHT_SECRETS``, else ``~/.config/overnight/secrets``."""
    chosen = os.environ.get("OVERNIGHT_SECRETS")
    return Path(chosen) if chosen else user_place("CONFIG", ".config") / "secrets"


def read_user_file(path: Path) -> dict[str, str]:
    """Values of ``NAME=value`` lines, parsed and never run: ``$``, backticks and backslashes are literal, one pair of
    quotes is removed, empty lines and # comments are ignored. Empty without a file. Raises InputError: others may read
    it, it is not this user's, or a line is malformed; never shows a value."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"cannot read the file of secrets: {error.strerror}", where=str(path)) from error
    with os.fdopen(handle, "rb") as stream:
        about = os.fstat(stream.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise InputError("the secrets file is not a regular file", where=str(path))
        if about.st_uid != os.geteuid():
            raise InputError(f"the file of secrets belongs to user {about.st_uid}, not to you", where=str(path))
        if about.st_mode & _OTHERS:
            mode = stat.S_IMODE(about.st_mode)
            raise InputError(
                f"the file of secrets has mode {mode:04o}: others may read or write it",
                where=str(path),
                hint=f"chmod 600 {path}; and if others did read it, replace what is in it",
            )
        raw = stream.read(_MAX_BYTES + 1)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError("the file of secrets is not UTF-8", where=str(path)) from None
    return _parsed(text, path)


def _parsed(text: str, path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None:
            raise InputError("expected NAME=value", where=f"{path}:{number}")
        name, value = match[1], match[2].strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        if name in found:
            raise InputError(f"{name} is set twice", where=f"{path}:{number}")
        if control_character(value, _ALLOWED):
            raise InputError(f"the value of {name} has a control character", where=f"{path}:{number}")
        found[name] = value
    return found


def collect(
    wanted: Mapping[str, str], environment: Mapping[str, str], path: Path, before: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Values of the secrets ``wanted`` (name -> ``file:line:column`` that asks for it): from the ``environment`` of the
    user, else the user's file ``path``, else, for a ``resume``, from ``before``. Raises InputError: one has no value,
    or the file may not be used."""
    if not wanted:
        return {}
    given = read_user_file(path)
    found: dict[str, str] = {}
    for name, where in wanted.items():
        value = environment.get(name) or given.get(name) or (before or {}).get(name)
        if not value:
            raise InputError(
                f"secret {name} has no value: it is neither in your environment nor in {path}",
                where=where,
                hint=f"export {name}, or write the line {name}=... into {path} (mode 600)",
            )
        if control_character(value, _ALLOWED):
            raise InputError(f"secret {name}: its value has a control character or is not UTF-8", where=where)
        found[name] = value
    return found
