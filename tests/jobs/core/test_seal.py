"""A seal is the proof: whatever is done to a sealed directory, verification names the file."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from jobs.core import hashing, patience, seal


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    directory = tmp_path / "output"
    (directory / "deep").mkdir(parents=True)
    (directory / "model.safetensors").write_bytes(bytes(range(256)) * 20000)
    (directory / "deep" / "config.json").write_text("{}")
    seal.seal_directory(
        directory, tmp_path / "seal.json", kind=seal.SealKind.CHECKPOINT, format="hf", fingerprint="f" * 64, step=7
    )
    return tmp_path


def broken(root: Path) -> seal.SealBroken:
    with pytest.raises(seal.SealBroken) as caught:
        seal.verify(root / "output", root / "seal.json")
    return caught.value


def test_untouched_directory_passes(sealed: Path) -> None:
    found = seal.verify(sealed / "output", sealed / "seal.json")
    assert found.step == 7
    assert found.bytes == 256 * 20000 + 2


@pytest.mark.failure(30)
def test_a_cut_file_is_named_before_anything_is_read(sealed: Path) -> None:
    path = sealed / "output" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    error = broken(sealed)
    assert error.path == path
    assert "5119999 bytes, sealed with 5120000" in error.reason


def test_an_emptied_file_is_named(sealed: Path) -> None:
    path = sealed / "output" / "deep" / "config.json"
    path.write_bytes(b"")
    assert broken(sealed).path == path


@pytest.mark.parametrize("offset", [0, 2_500_000, 5_119_999])
def test_one_flipped_bit_is_named(sealed: Path, offset: int) -> None:
    path = sealed / "output" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    error = broken(sealed)
    assert error.path == path
    assert "content differs" in error.reason


def test_a_missing_and_an_added_file_are_named(sealed: Path) -> None:
    added = sealed / "output" / "extra.bin"
    added.write_bytes(b"x")
    assert broken(sealed).path == added
    added.unlink()
    (sealed / "output" / "deep" / "config.json").unlink()
    assert "missing" in broken(sealed).reason


@pytest.mark.failure(30)
def test_a_torn_or_foreign_seal_does_not_pass(sealed: Path) -> None:
    path = sealed / "seal.json"
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    assert "unreadable" in broken(sealed).reason
    path.write_text("[]")
    assert "not a seal" in broken(sealed).reason
    path.write_text(text.replace("deep/config.json", "../../etc/passwd"))
    assert "outside" in broken(sealed).reason
    path.unlink()
    assert "no seal" in broken(sealed).reason


def test_links_and_nothing_cannot_be_sealed(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    facts = {"kind": seal.SealKind.DATASET, "format": "corpus", "fingerprint": "0" * 64}
    with pytest.raises(seal.SealBroken, match="nothing to seal"):
        seal.seal_directory(empty, tmp_path / "a.json", **facts)
    (empty / "link").symlink_to("/etc/hostname")
    with pytest.raises(seal.SealBroken, match="regular files"):
        seal.seal_directory(empty, tmp_path / "a.json", **facts)


def test_light_is_labelled_and_misses_a_flip_in_the_middle(sealed: Path) -> None:
    """The reason why it is opt-in: it says what it does not see."""
    found = seal.seal_directory(
        sealed / "output",
        sealed / "seal.json",
        depth=hashing.Depth.LIGHT,
        kind=seal.SealKind.CHECKPOINT,
        format="hf",
        fingerprint="f" * 64,
    )
    assert found.depth is hashing.Depth.LIGHT
    path = sealed / "output" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[2_500_000] ^= 1
    path.write_bytes(content)
    assert seal.verify(sealed / "output", sealed / "seal.json").depth is hashing.Depth.LIGHT
    content[10] ^= 1
    path.write_bytes(content)
    assert "content differs" in broken(sealed).reason


def test_content_id_depends_on_content_alone(tmp_path: Path) -> None:
    facts = {"kind": seal.SealKind.DATASET, "format": "corpus", "fingerprint": "0" * 64}
    ids = []
    for name, text in (("a", "same"), ("b", "same"), ("c", "other")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.jsonl").write_text(text)
        ids.append(seal.seal_directory(tmp_path / name, tmp_path / f"{name}.json", **facts).content)
    assert ids[0] == ids[1] != ids[2]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(hashing, "BLOCK_BYTES", 1000)
    return 1000


def test_a_seal_of_whole_files_is_still_read_and_an_unknown_one_is_not(sealed: Path, small_blocks: int) -> None:
    """The seal names its algorithm; a reader that does not know it must not guess."""
    path, content = sealed / "seal.json", (sealed / "output" / "model.safetensors").read_bytes()
    value = json.loads(path.read_text())
    assert value["algorithm"] == hashing.BLOCKS == "sha256-64MiB"
    assert "content differs" in broken(sealed).reason, "it was sealed by other blocks"
    for entry in value["files"]:
        if entry["path"] == "model.safetensors":
            entry["digest"] = hashlib.sha256(content).hexdigest()
    path.write_text(json.dumps({**value, "algorithm": "sha256"}))
    assert seal.verify(sealed / "output", path).algorithm == "sha256"
    path.write_text(json.dumps({**value, "algorithm": "md5"}))
    assert "digests by md5" in broken(sealed).reason


def facts() -> dict[str, Any]:
    return {"kind": seal.SealKind.DATASET, "format": "corpus", "fingerprint": "0" * 64}


@pytest.mark.failure(1, 30)
def test_a_link_to_a_directory_is_neither_sealed_nor_missed(sealed: Path, tmp_path: Path) -> None:
    """What lies behind it could change, and another could be added."""
    (tmp_path / "elsewhere").mkdir()
    (sealed / "output" / "shards").symlink_to(tmp_path / "elsewhere")
    assert broken(sealed).path == sealed / "output" / "shards"
    with pytest.raises(seal.SealBroken, match="shards: only regular files can be sealed"):
        seal.seal_directory(sealed / "output", tmp_path / "b.json", **facts())


@pytest.mark.failure(1, 30)
def test_a_directory_that_cannot_be_listed_is_not_left_out(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("deep"):
            raise OSError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(seal.SealBroken, match="deep: cannot be listed") as caught:
        seal.seal_directory(sealed / "output", sealed / "b.json", **facts())
    assert patience.passes(caught.value)
    assert patience.passes(broken(sealed))


def test_a_file_that_comes_while_the_directory_is_sealed_is_not_left_out(
    sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = hashing.digest_files

    def digest(*given: Any, **named: Any) -> Any:
        (sealed / "output" / "late").write_text("late")
        return real(*given, **named)

    monkeypatch.setattr(hashing, "digest_files", digest)
    with pytest.raises(seal.SealBroken, match="late: came or went while"):
        seal.seal_directory(sealed / "output", sealed / "b.json", **facts())


@pytest.mark.failure(36)
def test_a_size_that_is_old_once_is_looked_at_again(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS shows a size as it was up to a minute ago."""
    real, asked = Path.stat, list[Path]()

    def stat(self: Path, **named: Any) -> Any:
        found = real(self, **named)
        if self.name == "config.json" and not asked:
            asked.append(self)
            return os.stat_result((*found[:6], 0, *found[7:]))
        return found

    monkeypatch.setattr(Path, "stat", stat)
    assert seal.verify(sealed / "output", sealed / "seal.json", patience=patience.Patience(5.0)).step == 7
    assert asked
    asked.clear()
    assert "has 0 bytes" in broken(sealed).reason


def test_what_an_earlier_write_of_the_seal_left_is_not_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of names failed, and the removal after it, too; the next write has the same temporary name."""
    save = tmp_path / "save"
    save.mkdir()
    (save / "weights").write_text("w")
    failing = [True]
    replace, unlink = os.replace, Path.unlink

    def fails(call: Any) -> Any:
        def first(*given: Any, **named: Any) -> Any:
            if failing[0]:
                raise OSError(errno.EIO, "Input/output error")
            return call(*given, **named)

        return first

    monkeypatch.setattr(os, "replace", fails(replace))
    monkeypatch.setattr(Path, "unlink", fails(unlink))
    facts: dict[str, Any] = {"kind": seal.SealKind.SAVE, "format": "trainer", "fingerprint": "f", "step": 3}
    with pytest.raises(OSError, match="Input/output"):
        seal.seal_directory(save, save / "seal.json", **facts)
    failing[0] = False
    assert [path.name for path in save.glob(".*.tmp")], "this is what is left"
    seal.seal_directory(save, save / "seal.json", **facts)
    assert [entry.path for entry in seal.verify(save, save / "seal.json").files] == ["weights"]
