"""How recipes of the installed NeMo spread a model: ``python nemo_recipes.py``; run among the starts of NeMo."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

TRAINING = {"steps": 4, "lr": 1e-3, "batch_size": 8, "sequence_length": 32}


def main() -> None:
    """Print one JSON line."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    from nemo.collections import llm

    from jobs.backends.nemo import compat, recipes
    from jobs.backends.nemo.settings import NemoSettings
    from jobs.training.settings import BadSettings

    def read(recipe: str, kind: str, **more: Any) -> NemoSettings:
        return NemoSettings.read({**TRAINING, "recipe": recipe, **more}, kind)

    def spread(recipe: str, kind: str, world: int = 8, **more: Any) -> list[int]:
        found = recipes.parallel(read(recipe, kind, **more), kind, world, world)
        return [found.tensor, found.pipeline, found.context]

    def refused(settings: NemoSettings, **more: Any) -> str:
        try:
            recipes.parallel(settings, "cpt", 1, 1, **more)
        except BadSettings as error:
            return str(error)
        return ""

    with compat.local_configs():
        fitting = SimpleNamespace(config=llm.Llama32Config1B())
        other = SimpleNamespace(config=llm.Llama32Config1B(num_layers=2))
    print(
        json.dumps(
            {
                "llama32_1b cpt": spread("llama32_1b", "cpt"),
                "llama3_8b cpt": spread("llama3_8b", "cpt"),
                "llama3_8b cpt own": spread("llama3_8b", "cpt", context_parallel=1),
                "llama3_8b sft": spread("llama3_8b", "sft"),
                "llama3_70b cpt": spread("llama3_70b", "cpt", 32),
                "llama3_70b sft": spread("llama3_70b", "sft", 32),
                "llama3_70b sft lora": spread("llama3_70b", "sft", 32, lora_rank=8),
                "fitting": refused(read("llama32_1b", "cpt"), network=fitting),
                "mismatch": refused(read("llama32_1b", "cpt"), network=other),
                "unknown": refused(read("nosuch", "cpt")),
            }
        )
    )


if __name__ == "__main__":
    main()
