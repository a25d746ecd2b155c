"""A file that was read as a typed value, each fault at its line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from launch.config.document import secret_scan
from launch.config.document.positions import Positions, failure
from launch.config.document.typed import StrictModel, problems_of

M = TypeVar("M", bound=StrictModel)


def validate(model: type[M], data: Mapping[str, Any], positions: Positions, *, hint: str | None = None) -> M:
    """``data`` as ``model``. Raises InputError: every fault as ``p.yaml:3:5: stages.sft.lerning_rate: unknown key``."""
    secret_scan.refuse(data, positions)
    try:
        return model.read(data)
    except ValueError as error:
        raise failure(problems_of(error), positions, hint=hint) from None
