"""Hugging Face directories as the transformers of NeMo's environment reads them.

transformers 5 writes the base of rotary positions into ``rope_parameters``. transformers 4.57, which NeMo 2.7 needs,
and NeMo's importers read ``rope_theta`` and ``rope_scaling``, and take 10000 without a word where these are missing: on
both sides of a comparison of logits.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

CONFIG = "config.json"


def readable(source: Path) -> Path:
    """``source``, or a directory of this process with the same files and both ways of writing rotary positions."""
    written = json.loads((source / CONFIG).read_text())
    both = with_old_names(written)
    if both == written:
        return source
    private = Path(tempfile.mkdtemp(prefix="overnight-hf-"))
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    for path in source.iterdir():
        if path.name != CONFIG:
            (private / path.name).symlink_to(path.absolute())
    (private / CONFIG).write_text(json.dumps(both, indent=2, sort_keys=True) + "\n")
    return private


def with_old_names(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with ``rope_theta`` and ``rope_scaling`` beside ``rope_parameters``; unchanged without these."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict) or "rope_theta" not in rope:
        return config
    scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
    found = {**config, "rope_theta": rope["rope_theta"]}
    if scaling.get("rope_type", "default") != "default":
        found["rope_scaling"] = scaling
    return found
