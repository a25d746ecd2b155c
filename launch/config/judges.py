"""``judges:`` of a pipeline: models that judge the answers of others."""

from typing import Annotated, Any, Literal

from launch.config.document.typed import StrictModel
from launch.config.fields import Count, Line, NotNegative
from launch.config.measuring import address


class JudgeModelKeys(StrictModel):
    """Who judges: a ``server`` (what the model is called there: ``name``; ``key``: a secret), a ``checkpoint`` of the
    chain or its base model, or another ``base``, as ``model.base``."""

    server: Annotated[Line, address] | None = None
    name: Line | None = None
    key: Line | None = None
    checkpoint: Line | None = None
    base: Line | None = None

    def _check(self) -> None:
        if sum(one is not None for one in (self.server, self.checkpoint, self.base)) != 1:
            raise ValueError("write {server: URL, name: NAME}, {checkpoint: STAGE} or {base: MODEL}")
        if self.server is None and (self.name is not None or self.key is not None):
            raise ValueError("name and key are for a server")
        if self.server is not None and self.name is None:
            raise ValueError("the server needs name: NAME, too: what the model is called there")


class PriceKeys(StrictModel):
    """Of a million tokens that the judge reads (``input``) and writes (``output``), in any unit."""

    input: NotNegative
    output: NotNegative


class JudgeKeys(StrictModel):
    """A judge. ``calibrate_on``: a stage of preferences, on whose test split it is measured, and ``calibrate_limit``
    on how many pairs at the most. ``max_new_tokens``: of what a server says."""

    model: JudgeModelKeys
    form: Literal["pairwise", "score"] = "pairwise"
    rubric: Line | None = None
    calibrate_on: Line | None = None
    calibrate_limit: Count = 200
    max_new_tokens: Count = 16
    price: PriceKeys | None = None

    def settings(self) -> dict[str, Any]:
        """As the job side reads it, without the rubric, which is a file."""
        found = {
            "form": self.form,
            "server": self.model.server,
            "model": self.model.name,
            "key": self.model.key,
            "calibrate_on": self.calibrate_on,
            "calibrate_limit": self.calibrate_limit if self.calibrate_on else None,
            "max_new_tokens": self.max_new_tokens if self.model.server else None,
        }
        return {name: value for name, value in found.items() if value is not None}
