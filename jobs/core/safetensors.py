"""The header of a safetensors file, read without the tensors (https://github.com/huggingface/safetensors, "Format")."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jobs.core import strict

MOST = 100_000_000
"""Bytes of a header; the format's own library reads none that is longer."""


@dataclass(frozen=True)
class Header:
    """``dtypes``: of the tensors, in the order of the header. ``bytes``: the size of the whole file."""

    dtypes: tuple[str, ...]
    bytes: int


def header(path: Path) -> Header:
    """What the file says of itself.

    Raises:
        OSError: it cannot be read.
        ValueError: it has no header of safetensors.
    """
    with open(path, "rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        text = stream.read(size) if size <= MOST else b""
    try:
        tensors = [entry for name, entry in strict.parse(text).items() if name != "__metadata__"]
        ends = [int(entry["data_offsets"][1]) for entry in tensors]
        return Header(tuple(str(entry["dtype"]) for entry in tensors), 8 + size + max(ends, default=0))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise ValueError(f"{path} has no header of safetensors") from None


def shards(index: Path) -> list[str]:
    """The files that the index of a model in several files names.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such index.
    """
    try:
        return sorted(set(strict.convert(dict[str, str], strict.read(index)["weight_map"], "weight_map").values()))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error
