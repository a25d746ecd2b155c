"""The command of a server that an evaluation starts: what stands in it for what is known only when it starts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

PLACEHOLDERS = ("checkpoint", "port")
"""The directory of the model that is measured, and the port to listen on."""

READY_SECONDS = 900.0
"""How long a server may take to its first answer."""

_NAMED = re.compile(r"\{([A-Za-z_]+)\}")


def problems(command: Sequence[str]) -> Iterator[tuple[int | None, str]]:
    """What is wrong with a command: the place of the part, None for the whole, and why."""
    if not command:
        yield None, "is empty"
        return
    names = set()
    for place, part in enumerate(command):
        for name in _NAMED.findall(part):
            names.add(name)
            if name not in PLACEHOLDERS:
                known = " and ".join(f"{{{one}}}" for one in PLACEHOLDERS)
                yield place, f"{{{name}}} is not a known placeholder; known are {known}"
    for name in PLACEHOLDERS:
        if name not in names:
            yield None, f"no part has {{{name}}}: the server would not know its {name}"


def filled(command: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """The command with values for its placeholders; what is put in is not looked at again."""
    return [_NAMED.sub(lambda found: values[found[1]], part) for part in command]
