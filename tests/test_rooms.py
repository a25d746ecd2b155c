"""Rooms: each says what it holds and what it may import, and hands on names that exist."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = sorted(
    ".".join(path.parent.relative_to(ROOT).parts)
    for top in ("launch", "jobs", "data_prep")
    for path in (ROOT / top).glob("*/__init__.py")
    if path.parent.parent != ROOT / "jobs/backends"
)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_holds_and_its_public_names_exist(room: str) -> None:
    package = importlib.import_module(room)
    assert package.__doc__
    getter = vars(package).get("__getattr__")
    names = dict(zip(getter.__code__.co_freevars, getter.__closure__, strict=True)) if getter else {}
    for name in names["names"].cell_contents if names else ():
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = package.no_such_name


def test_a_light_import_stays_light() -> None:
    code = "import sys, launch.config, launch.plan, launch.submit; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
