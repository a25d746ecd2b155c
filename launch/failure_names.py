"""Names of failure classes as a profile may use them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Strict

from jobs.core.budget import RETRIES
from launch.base.text import suggest


def _failure_name(name: str) -> str:
    known = [failure.value for failure in RETRIES]
    if name not in known:
        raise ValueError(f"{name!r} is no class of failure that may be tried again; {suggest(name, known)}")
    return name


FailureName = Annotated[str, Strict(), AfterValidator(_failure_name)]
