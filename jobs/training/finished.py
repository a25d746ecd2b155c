"""Finished Hugging Face directories: what they take over from the model that training started from."""

from __future__ import annotations

from pathlib import Path

from jobs.core import files
from jobs.training import rope, tokenizers

CONFIG = "config.json"
OF_BASE = ("use_cache", "bos_token_id", "eos_token_id", "pad_token_id")
"""Of a configuration: what training changes for itself, and what a finished model has as its base has it."""

OF_WEIGHTS = ("dtype", "torch_dtype", "quantization_config", "auto_map", "architectures", "transformers_version")
"""Of a configuration: what belongs to the files that were written."""


def finish(source: Path, output: Path) -> None:
    """Give a directory that a library has saved what its base ``source`` had, and a configuration that older versions
    of transformers read, too.

    Tokenizer, licences and the like are copied byte by byte. What a trainer has changed in the configuration for itself
    (no cache, other end ids) is as in the base; names that the library has dropped are kept.
    """
    tokenizers.carry_over(source, output)
    base = files.read_json_or_none(source / CONFIG) or {}
    found = files.read_json(output / CONFIG)
    for name in OF_BASE:
        if name in base:
            found[name] = base[name]
        elif base:
            found.pop(name, None)
    kept = {name: value for name, value in base.items() if name not in OF_WEIGHTS and not name.startswith("_")}
    files.write_json(output / CONFIG, rope.with_old_names({**kept, **found}))


def add_old_names(output: Path) -> None:
    """The same for a directory that was made without a base."""
    files.write_json(output / CONFIG, rope.with_old_names(files.read_json(output / CONFIG)))
