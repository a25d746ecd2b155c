"""The specification of a stage, as a job of it finds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.core.spec import StageSpec


def spec_of(root: Path, **more: Any) -> StageSpec:
    """That of a training by ``toy`` whose directories are below ``root``; ``more``: what is otherwise."""
    usual: dict[str, Any] = {
        "run": "abcde",
        "pipeline": "p",
        "stage": "cpt",
        "kind": "cpt",
        "backend": "toy",
        "attempt": "aaaaaa",
        "fingerprint": "0" * 64,
        "stage_dir": str(root / "stage"),
        "store_dir": str(root / "store" / "checkpoint-0"),
        "produces": {"kind": "checkpoint", "format": "toy"},
        "settings": {},
    }
    return StageSpec(**{**usual, **more})
