"""A workspace without room: a plain error with its path, and nothing of the run is left."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from launch.base.errors import InputError
from launch.inputs import toolkit
from tests.support import made_runs


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("where", ["a copy", "a write"])
def test_a_full_workspace_is_a_plain_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, where: str
) -> None:
    def full(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number), "a file")

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    if where == "a copy":
        monkeypatch.setattr(shutil, "copyfile", full)
    else:
        monkeypatch.setattr(toolkit, "take", full)
    with pytest.raises(InputError, match=os.strerror(number)) as caught:
        made_runs.make(tmp_path / "ws", made_runs.stage("cpt"))
    assert str(tmp_path / "ws") in caught.value.message
    assert "make room" in str(caught.value.hint)
    assert len(caught.value.message.splitlines()) == 1
    assert list((tmp_path / "ws" / "runs").iterdir()) == []
