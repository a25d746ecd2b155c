"""What a container sees of the host, and who makes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from launch.base.errors import InputError
from launch.base.text import control_character

_ASIDE = re.compile(r"[:,]")
_RENAME = "move or rename the directory; a symbolic link to it will do"


class Runtime(StrEnum):
    """Who makes the container."""

    NONE = "none"
    PYXIS = "pyxis"
    APPTAINER = "apptainer"
    ENGINE = "container_engine"


class Gpus(StrEnum):
    """Whose driver apptainer brings into the container; the others find it by themselves."""

    NVIDIA = "nvidia"
    AMD = "amd"


@dataclass(frozen=True)
class Mount:
    """A path of the host that the container sees. Raises InputError: runtimes cannot express it, since they separate by
    commas and colons and quote neither."""

    source: Path
    target: Path
    read_only: bool = False

    def __post_init__(self) -> None:
        for path in (self.source, self.target):
            text = str(path)
            if not path.is_absolute():
                raise InputError(f"mount {text!r} is relative: write the whole path")
            if found := _ASIDE.search(text):
                raise InputError(
                    f"mount {text!r} has a {found[0]!r} in it, by which container runtimes separate mounts",
                    hint=_RENAME,
                )
            if control_character(text) or any(character.isspace() for character in text):
                raise InputError(
                    f"mount {text!r} has white space or a control character in it; enroot's list of mounts has none",
                    hint=_RENAME,
                )

    @classmethod
    def parse(cls, text: str) -> Mount:
        """From ``SOURCE``, ``SOURCE:TARGET`` or ``SOURCE:TARGET:ro``; the default target is the source."""
        parts = text.split(":")
        if len(parts) > 3 or not all(parts) or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
            raise InputError(f"{text!r} is not a mount: write SOURCE, SOURCE:TARGET or SOURCE:TARGET:ro")
        return cls(Path(parts[0]), Path(parts[1] if len(parts) > 1 else parts[0]), parts[2:] == ["ro"])

    def __str__(self) -> str:
        return f"{self.source}:{self.target}" + (":ro" if self.read_only else "")
