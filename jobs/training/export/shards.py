"""The weights of a Hugging Face directory once more, in files of at most so many bytes; one is in memory at a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from jobs.core import files


def write_shards(source: Path, output: Path, most: int) -> list[str]:
    """The names of the files. Tensors stay as they are, to the bit; a tensor that is larger has a file of its own."""
    from huggingface_hub import split_state_dict_into_shards_factory
    from safetensors import safe_open
    from safetensors.torch import save_file

    places: dict[str, Path] = {}
    sizes: dict[str, int] = {}
    for path in sorted(source.glob("*.safetensors")):
        with safe_open(path, framework="pt") as stream:
            for name in stream.keys():  # noqa: SIM118 - it is not a mapping
                part: Any = stream.get_slice(name)
                places[name], sizes[name] = path, math.prod(part.get_shape()) * _width(part.get_dtype())
    split = split_state_dict_into_shards_factory(
        sizes,
        get_storage_size=lambda size: size,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=most,
    )
    for name, tensors in split.filename_to_tensors.items():
        held: dict[str, Any] = {}
        for path in sorted({places[tensor] for tensor in tensors}):
            with safe_open(path, framework="pt") as stream:
                held |= {tensor: stream.get_tensor(tensor) for tensor in tensors if places[tensor] == path}
        save_file(held, output / name, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        files.write_json(output / "model.safetensors.index.json", index)
    return sorted(split.filename_to_tensors)


def _width(dtype: str) -> int:
    """Bytes of a number, by the name of its type: ``F32``, ``BF16``, ``F8_E4M3``."""
    digits = "".join(letter for letter in dtype.partition("_")[0] if letter.isdigit())
    return max(1, int(digits or 8) // 8)
