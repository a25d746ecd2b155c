"""The header of a safetensors file."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from jobs.core import safetensors
from jobs.training import checkpoints


def written(path: Path, header: object, body: bytes = b"") -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def test_it_says_types_and_the_size_of_the_file(tmp_path: Path) -> None:
    tensors = {
        "__metadata__": {"format": "pt"},
        "b": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
    }
    path = written(tmp_path / "model.safetensors", tensors, bytes(8))
    found = safetensors.header(path)
    assert found.dtypes == ("BF16", "F32")
    assert found.bytes == path.stat().st_size
    (tmp_path / "config.json").write_text("{}")
    assert checkpoints.hugging_face(tmp_path).problem is None
    path.write_bytes(path.read_bytes()[:-1])
    assert f"its header says {found.bytes}" in str(checkpoints.hugging_face(tmp_path).problem)


@pytest.mark.parametrize("header", [[], {"a": 3}, {"a": {}}, {"a": {"dtype": "F32", "data_offsets": [0]}}, "text"])
def test_another_file_is_refused_by_its_path(tmp_path: Path, header: object) -> None:
    path = written(tmp_path / "x", header)
    with pytest.raises(ValueError, match=f"{path} has no header of safetensors"):
        safetensors.header(path)


@pytest.mark.parametrize("content", [b"", b"\0", struct.pack("<Q", 1 << 60)])
def test_a_file_that_is_cut_in_its_header_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="has no header of safetensors"):
        safetensors.header(tmp_path / "x")
