"""Executors carry: each wraps the same two scripts into a Slurm job in the way of its library.

Importing this package imports neither nemo_run (two seconds) nor submitit.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from launch.base.errors import InputError
from launch.render.request import Executor, JobRequest, missing

__all__ = ["NAMES", "Executor", "JobRequest", "carrier", "refuse_missing"]

NAMES = ("nemo_run", "submitit")


def carrier(name: str) -> Executor:
    """The executor of this name. Raises InputError: there is none, or its library is missing or of another version."""
    if name == "nemo_run":
        from launch.render.executors.nemo_run import NemoRunCarrier

        return NemoRunCarrier()
    if name == "submitit":
        from launch.render.executors.submitit import SubmititCarrier

        return SubmititCarrier()
    raise InputError(f"there is no executor {name!r}", hint=f"executors: {', '.join(NAMES)}")


def refuse_missing(names: Iterable[str]) -> None:
    """Raises InputError: the library of one of these executors is not installed. Imports none of them."""
    for name in NAMES:
        if name in names and importlib.util.find_spec(name) is None:
            raise missing(name, name.replace("_", "-"), ImportError(f"No module named {name!r}"))
