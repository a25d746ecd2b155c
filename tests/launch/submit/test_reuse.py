"""A finished result is moved aside only for what is wrong with it, and not on one look."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from jobs.core import seal, strict
from jobs.core.paths import StorePaths
from launch.base.errors import InputError
from launch.submit import reuse


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StorePaths:
    monkeypatch.setattr(reuse, "LOOK_AGAIN_SECONDS", 0.3)
    made = StorePaths(tmp_path / ("checkpoint-" + "0" * 16))
    made.output.mkdir(parents=True)
    (made.output / "model").write_text("model")
    facts: dict[str, Any] = {"kind": seal.SealKind.CHECKPOINT, "format": "toy", "fingerprint": "0" * 64}
    seal.seal_directory(made.output, made.seal, **facts)
    return made


def fail(patch: pytest.MonkeyPatch, error: Exception, times: int) -> None:
    real, made = seal.check_sizes, list[int]()

    def check(*given: Any) -> Any:
        made.append(1)
        if len(made) <= times:
            raise error
        return real(*given)

    patch.setattr(seal, "check_sizes", check)


@pytest.mark.failure(36)
def test_one_stale_look_moves_nothing(store: StorePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, seal.SealBroken(store.output / "model", "has 0 bytes, sealed with 5"), 1)
    assert reuse.is_sound(store)


@pytest.mark.failure(36)
@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO, errno.EACCES])
def test_what_cannot_be_read_is_said_and_stays(store: StorePaths, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def unreadable(path: Path) -> bytes:
        raise OSError(code, os.strerror(code), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(strict, "content", unreadable)
        with pytest.raises(InputError, match=os.strerror(code)):
            reuse.is_sound(store)
    assert reuse.is_sound(store)


@pytest.mark.failure(30)
def test_what_is_wrong_on_every_look_is_moved_aside_and_said(
    store: StorePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    (store.output / "model").write_text("")
    assert not reuse.is_sound(store)
    assert not store.root.exists()
    assert "model: has 0 bytes, sealed with 5; moved aside" in capsys.readouterr().err


@pytest.mark.failure(30)
def test_a_link_to_another_entry_is_not_this_result(store: StorePaths) -> None:
    other = StorePaths(store.root.with_name("checkpoint-" + "1" * 16))
    other.root.symlink_to(store.root)
    assert not reuse.is_sound(other)
    assert reuse.is_sound(store)
