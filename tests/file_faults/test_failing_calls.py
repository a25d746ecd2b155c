"""A job of which one call after the other fails: full disk, broken disk, stale handle, a listing that is old."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.core import attempts, claim, seal, verdict
from jobs.core.attempts import Attempt
from jobs.core.claim import ClaimLost
from jobs.core.verdict import Outcome
from jobs.lifecycle import steps
from jobs.lifecycle.start import Start, claim_of
from jobs.lifecycle.steps import Entry
from tests.file_faults.job import WEIGHTS, carry, content, prepare, spec_of


def fail_at(patch: pytest.MonkeyPatch, number: int, code: int) -> list[str]:
    """Let the ``number``-th call that changes the disk fail; of a write half gets through. The list: those made."""
    made: list[str] = []

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            changes = name != "open" or arguments[1] & os.O_ACCMODE != os.O_RDONLY
            if changes:
                made.append(name)
            if changes and len(made) == number:
                if name == "write":
                    real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                raise OSError(code, os.strerror(code))
            return real(*arguments, **options)

        patch.setattr(os, name, call)

    for name in ("open", "write", "fsync", "replace", "rename", "link", "mkdir"):
        wrap(name)
    return made


def check_failing_calls(place: Path, code: int, every: int, first: int = 1) -> int:
    """The job with each call failing in turn, and then started again. The number of calls there were."""
    number = first
    while True:
        shutil.rmtree(place)
        place.mkdir()
        spec = spec_of(place)
        prepare(spec)
        with pytest.MonkeyPatch.context() as patch:
            made = fail_at(patch, number, code)
            try:
                decision = carry(spec, 0)
            except OSError as error:  # the work ends with it; host.sh then asks ``finish``
                assert error.errno == code
                decision = ""
        if number > len(made):
            assert decision == "done"
            return len(made)
        what = f"{os.strerror(code)} at call {number}, {made[number - 1]}"
        if not decision:
            decision = steps.finish(spec, Start("100", 0, 0, "node1"), 1)
        if decision == "done":
            assert spec.store_paths.seal.exists(), what
        if spec.store_paths.seal.exists():
            seal.verify(spec.store_paths.output, spec.store_paths.seal)
        assert decision in ("done", "requeue", "fail", "FAIL"), what
        if decision == "fail":  # for good, with a verdict that says why: the user makes room and resumes
            said = verdict.read(spec.stage_paths.verdict("100", 0))
            assert said is not None, what
            assert said.outcome is not Outcome.DONE, what
            spec = replace(spec, attempt="bbbbbb")
            attempt = Attempt(2, "bbbbbb", spec.run, spec.stage, spec.stage_dir, "slurm", ("on-b",))
            assert attempts.open_next(spec.store_paths, attempt)
        assert carry(spec, 1) in ("done", "SEALED"), what
        assert content(spec.store_paths.output) == WEIGHTS
        number += every


@pytest.mark.failure(35, 37)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_job_of_which_a_sample_of_calls_fails(place: Path, code: int) -> None:
    assert check_failing_calls(place, code, every=9, first=1 + code % 9) > 60


@pytest.mark.full
@pytest.mark.failure(35, 37)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.ESTALE])
def test_a_job_of_which_every_call_fails(place: Path, code: int) -> None:
    assert check_failing_calls(place, code, every=1) > 60


@pytest.mark.failure(36, 22)
def test_a_listing_that_is_old_does_not_let_an_old_start_publish(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS: this node's listing of the claims is from before the other start, until it changes the directory."""
    spec = spec_of(place)
    prepare(spec)
    old, new = Start("100", 0, 0, "node1"), Start("100", 1, 0, "node2")
    assert steps.prologue(spec, old) is Entry.WORK
    seen, real_listing, real_open = os.listdir(spec.store_paths.claims), os.listdir, os.open
    assert steps.prologue(spec, new) is Entry.WORK
    asked_again = False

    def listing(path: Any = ".") -> list[str]:
        stale = Path(path) == spec.store_paths.claims and not asked_again
        return list(seen) if stale else real_listing(path)

    def opening(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        nonlocal asked_again
        asked_again = asked_again or (Path(path).parent == spec.store_paths.claims and bool(flags & os.O_CREAT))
        return real_open(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "listdir", listing)
    monkeypatch.setattr(os, "open", opening)
    with pytest.raises(ClaimLost, match="restart 1 on node2"):
        claim.check_held(spec.store_paths, claim_of(spec, old))
    claim.check_held(spec.store_paths, claim_of(spec, new))
