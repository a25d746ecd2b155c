"""Digests are what ``sha256sum`` prints, of large files by blocks."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from jobs.core import hashing


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(hashing, "BLOCK_BYTES", 1000)
    return 1000


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 2000, 5500])
def test_a_large_file_is_the_digest_of_the_digests_of_its_blocks(tmp_path: Path, small_blocks: int, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(b"another")
    seen: list[int] = []
    found = hashing.digest_files(tmp_path, ["b", "a"], on_bytes=seen.append)
    blocks = [hashlib.sha256(content[at : at + small_blocks]).digest() for at in range(0, size, small_blocks)]
    expected = hashlib.sha256(b"".join(blocks)) if len(blocks) > 1 else hashlib.sha256(content)
    assert [entry.digest for entry in found] == [hashlib.sha256(b"another").hexdigest(), expected.hexdigest()]
    assert sum(seen) == size + 7
    whole = hashing.digest_files(tmp_path, ["a"], algorithm=hashing.WHOLE)
    assert whole[0].digest == hashlib.sha256(content).hexdigest() == hashing.digest_file(tmp_path / "a")


def test_a_light_digest_is_of_the_size_and_of_both_ends(tmp_path: Path) -> None:
    path, content = tmp_path / "a", bytearray(os.urandom(3 << 20))
    path.write_bytes(content)
    first = hashing.digest_file(path, hashing.Depth.LIGHT)
    ends = bytes(content[: 1 << 20] + content[-1 << 20 :])
    assert first == hashlib.sha256(str(3 << 20).encode() + ends).hexdigest()
    assert hashing.digest_files(tmp_path, ["a"], hashing.Depth.LIGHT)[0].digest == first
    content[3 << 19] ^= 1
    path.write_bytes(content)
    assert hashing.digest_file(path, hashing.Depth.LIGHT) == first
    content[-1] ^= 1
    path.write_bytes(content)
    assert hashing.digest_file(path, hashing.Depth.LIGHT) != first
