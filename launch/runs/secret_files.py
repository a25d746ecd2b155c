"""The one file of secrets that the jobs of a run source."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from jobs.core import files, redaction
from jobs.core.paths import RunPaths
from launch.config.secrets import collect, user_file


def write(run: RunPaths, values: Mapping[str, str]) -> None:
    """Write what the jobs of a run source; nothing where there are none.

    Raises:
        OSError: as ``files.write_atomic``; what was there before stays.
    """
    if not values:
        return
    run.private.mkdir(mode=0o700, exist_ok=True)
    run.private.chmod(0o700)  # the creation mask may only have taken from it, an older directory may have more
    files.write_atomic(run.secrets, redaction.text_of(values), mode=0o600)


def renew(run: RunPaths, names: Sequence[str]) -> None:
    """Bring the values of a run up to date before more of it is submitted: a token may have been replaced.

    Raises:
        InputError: one has no value any more.
    """
    wanted = {name: str(run.pipeline) for name in names}
    write(run, collect(wanted, os.environ, user_file(), redaction.read(run.secrets)))


def redactor(*runs: RunPaths) -> redaction.Redactor:
    """For what our commands print about runs. A file that cannot be read takes nothing out."""
    values: dict[str, str] = {}
    for run in runs:
        try:
            values |= redaction.read(run.secrets)
        except (OSError, ValueError):
            continue
    return redaction.Redactor(values)
