"""Hugging Face directories as transformers before 5 reads them, on which NeMo 2.7 and NeMo-RL up to 0.5 are built.

transformers 5 writes the base of rotary positions into ``rope_parameters``. Its predecessors, and NeMo's importers,
read ``rope_theta`` and ``rope_scaling``, and silently take 10000 where these are missing: on both sides of a
comparison of logits. Checkpoints that users get have both (``jobs.training.finished``).
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from jobs.core import files

CONFIG = "config.json"


def readable(source: Path) -> Path:
    """``source`` where the transformers that is installed here understands it, else a directory of this process with
    the same files and both ways of writing rotary positions."""
    both = _both(source)
    if both is None:
        return source
    private = Path(tempfile.mkdtemp(prefix="overnight-hf-"))
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    return _write(source, both, private)


def readable_at(source: Path, place: Path) -> Path:
    """The same for all processes of a stage: in ``place``, which one of them makes anew at every start."""
    both = _both(source)
    if both is None:
        return source
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return _write(source, both, place)


def _both(source: Path) -> dict[str, Any] | None:
    """The configuration to be written, or None where it can be read as it is."""
    if int(metadata.version("transformers").partition(".")[0]) >= 5:
        return None
    written: dict[str, Any] = json.loads((source / CONFIG).read_text())
    both = with_old_names(written)
    return None if both == written else both


def _write(source: Path, config: dict[str, Any], place: Path) -> Path:
    for path in source.iterdir():
        if path.name != CONFIG:
            (place / path.name).symlink_to(path.absolute())
    files.write_json(place / CONFIG, config)
    return place


def with_old_names(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with the names of before beside ``rope_parameters`` (``rope_theta``, ``rope_scaling`` and those
    of single architectures); unchanged without these."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict):
        return config
    found = dict(config)
    if isinstance(rope.get("sliding_attention"), dict):  # by the type of a layer: full attention had the plain names
        found["rope_local_base_freq"] = rope["sliding_attention"].get("rope_theta")
    rope = rope.get("full_attention", rope)
    if not isinstance(rope, dict) or "rope_theta" not in rope:
        return config
    found["rope_theta"] = rope["rope_theta"]
    if "partial_rotary_factor" in rope:
        found["partial_rotary_factor"] = rope["partial_rotary_factor"]
    if config.get("model_type") == "gpt_neox":
        found |= {"rotary_emb_base": rope["rope_theta"], "rotary_pct": rope.get("partial_rotary_factor", 0.25)}
    scaling = {name: value for name, value in rope.items() if name not in ("rope_theta", "partial_rotary_factor")}
    if scaling.get("rope_type", "default") != "default":
        found["rope_scaling"] = scaling
    return found
