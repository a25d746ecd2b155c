"""A save of the trainer as a Hugging Face directory like a finished one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from jobs.core import files
from jobs.training import finished
from jobs.training.checkpoints import ADAPTER
from jobs.training.settings import BadSettings

_WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")


def write(save: Path, source: Path, target: Path) -> None:
    """Make ``target`` of a save of a training that began with ``source``. Weights that lie in the save as they are
    become hard links where the file system has them.

    Raises:
        BadSettings: the weights lie in parts of several processes.
    """
    target.mkdir(parents=True, exist_ok=True)
    weights = [path for pattern in _WEIGHTS for path in sorted(save.glob(pattern))]
    if weights:
        for path in weights:
            link(path, target / path.name)
        shutil.copyfile(save / finished.CONFIG, target / finished.CONFIG)
    elif (save / ADAPTER).is_file():
        from peft import PeftModel

        from jobs.training.models import load_model

        merged = PeftModel.from_pretrained(load_model(source), str(save)).merge_and_unload()
        merged.save_pretrained(target)
    else:
        raise BadSettings(f"{save}: its weights are spread over processes (shard: full): no model can be made of it")
    finished.finish(source, target)


def link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in files.NO_LINKS:
            raise
        shutil.copyfile(source, target)
