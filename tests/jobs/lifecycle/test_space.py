"""Room for two checkpoints is counted before the work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.core import seal
from jobs.core.paths import StorePaths
from jobs.core.spec import Input, StageSpec
from jobs.lifecycle import space
from jobs.training.saves import Saves
from tests.support import stages


def spec_of(tmp_path: Path, **more: Any) -> StageSpec:
    parent = StorePaths(tmp_path / "store" / "checkpoint-parent")
    parent.output.mkdir(parents=True)
    (parent.output / "model.json").write_bytes(bytes(1_000_000))
    seal.seal_directory(parent.output, parent.seal, kind=seal.SealKind.CHECKPOINT, format="toy", fingerprint="p" * 64)
    (tmp_path / "store" / "checkpoint-own").mkdir()
    given = Input("cpt", str(parent.root), "checkpoint", "toy", "p" * 64)
    own = {"stage_dir": str(tmp_path), "store_dir": str(tmp_path / "store" / "checkpoint-own")}
    return stages.spec_of(tmp_path, **own, inputs={"checkpoint": given}, target_step=10, **more)


@pytest.mark.failure(35)
def test_a_quota_that_cannot_hold_two_checkpoints_is_said_with_numbers(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, quota_bytes=2_900_000)
    said = space.lack(spec)
    assert said is not None
    assert "2 checkpoint(s) of 1.0 MB" in said
    assert "quota of 2.9 MB" in said
    assert "1.9 MB left" in said


@pytest.mark.failure(35)
def test_the_best_save_needs_room_of_its_own(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, quota_bytes=3_900_000, settings={"select": "best"})
    assert "3 checkpoint(s) of 1.0 MB" in str(space.lack(spec))
    assert space.lack(replace(spec, settings={})) is None


@pytest.mark.failure(35)
def test_the_size_is_measured_once_there_is_a_save(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, quota_bytes=4_000_000)
    assert space.lack(spec) is None
    save = spec.store_paths.save(5)
    save.mkdir(parents=True)
    (save / "state").write_bytes(bytes(2_500_000))
    Saves(spec.store_paths, spec.fingerprint, None, lambda name, **facts: None).seal(5)
    said = space.lack(spec)
    assert said is not None
    assert "1 checkpoint(s) of 2.5 MB (as its save at step 5)" in said
