"""What the preparations of the user's own files are given beside their sources, and what a card says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from data_prep.common.settings import SplitSettings
from data_prep.sources.layout import Layout

PhaseReport = Callable[[str], Callable[[int, int], None]]
"""Given the name of a phase it returns what is given the steps that are done and all of them."""

LISTED = 1000
"""So many files are named in a card."""

EXAMPLES = 3
"""So many rows of each split are shown in a card."""


@dataclass(frozen=True, kw_only=True)
class PreparedRequest:
    """``layout``: the splits that the sources have; ``split``: how the rest is split."""

    split: SplitSettings = field(default_factory=SplitSettings)
    limits: dict[str, int] = field(default_factory=dict)
    min_chars: int = 1
    max_chars: int | None = None
    layout: Layout = field(default_factory=Layout)

    def facts(self, prepare: Mapping[str, Any], group: str, sources: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The part of a card about settings, splits and files. ``group``: what of the sources is not divided."""
        return {
            "split": asdict(self.split),
            "splits_from": self.layout.facts(self.split, group),
            "left_out": dict(list(self.layout.left_out.items())[:LISTED]),
            "sources": list(sources[:LISTED]),
            "more_sources": max(0, len(sources) - LISTED),
            "settings": {
                "prepare": prepare,
                "min_chars": self.min_chars,
                "max_chars": self.max_chars,
                "limit": self.limits,
            },
        }
