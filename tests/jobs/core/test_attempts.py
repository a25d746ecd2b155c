"""Attempts at a store entry: one submitter has a number, the highest is current, and job ids are remembered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.core import attempts
from jobs.core.attempts import Attempt
from jobs.core.paths import StorePaths

FIRST = Attempt(1, "aaaaaa", "abcde", "cpt", "/run/stages/cpt", "slurm", ("on-a-0", "on-a-1"))


@pytest.mark.failure(10)
def test_a_number_is_given_once(tmp_path: Path) -> None:
    store = StorePaths(tmp_path / "entry")
    assert attempts.current(store) is None
    assert attempts.open_next(store, FIRST)
    assert not attempts.open_next(store, replace(FIRST, token="bbbbbb")), "two submitters cannot both be next"
    for fresh in (False, True):
        assert attempts.current(store, fresh) == FIRST
    second = replace(FIRST, number=2, token="cccccc")
    assert attempts.open_next(store, second)
    assert attempts.current(store) == second
    assert second.links == 2


def test_job_ids_are_remembered_by_link_and_attempt(tmp_path: Path) -> None:
    store = StorePaths(tmp_path)
    attempts.open_next(store, FIRST)
    assert attempts.job_ids(store, FIRST) == {}
    attempts.record_job(store, FIRST, 0, "7")
    attempts.record_job(store, FIRST, 1, "8")
    assert attempts.job_ids(store, FIRST) == {0: "7", 1: "8"}
    assert attempts.job_ids(store, replace(FIRST, number=2)) == {}
    assert attempts.current(store) == FIRST, "a file of job ids is no attempt"


def test_a_file_that_is_no_attempt_is_named_and_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = StorePaths(tmp_path)
    attempts.open_next(store, FIRST)
    store.attempt(2).write_text('{"number": 2}')
    found = attempts.current(store)
    assert found is not None
    assert (found.number, found.token) == (2, ""), "no job holds it, and the next attempt is the third"
    assert "0002.json: not an attempt: lacks 'token'" in capsys.readouterr().err


def test_tokens_are_fit_for_names() -> None:
    tokens = {attempts.new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all((len(token) == 6 and token.isalnum() and token.islower()) or token.isdigit() for token in tokens)
