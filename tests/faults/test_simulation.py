"""Chains on the simulated site: none breaks an invariant, and an error that is put into the code is found."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from jobs.core import claim, files
from jobs.core.paths import StorePaths
from launch import ledger
from launch.ledger import Fate
from launch.submit import Submitter
from tests.faults import simulate

MENDED = {
    791: "a second copy that waited for a failed parent stayed in the queue for ever",
    857: "likewise, of an attempt that had been replaced",
    20347: "a job waited for an id that another job had by then",
    35: "of a chain of jobs a waiting link was cancelled, and the next one began beside the first, which was at work",
    81: "likewise",
}
"""Seeds that failed once, and why."""


def assert_sound(first: int, count: int, workers: int = 1) -> Counter[str]:
    injected: Counter[str] = Counter()
    failed = []
    for outcome in simulate.many(first, count, workers):
        injected += outcome.injected
        if outcome.violations:
            failed.append(f"seed {outcome.seed} (python -m tests.faults.simulate --seed {outcome.seed})")
            failed += [f"  {text}" for text in dict.fromkeys(outcome.violations)]
    assert not failed, "\n".join(failed)
    return injected


@pytest.mark.failure(5, 8, 10, 12, 13, 18, 22)
def test_some_hundred_chains() -> None:
    injected = assert_sound(0, 200)
    assert set(injected) >= {"node failure", "answer lost", "accepted twice", "two resumes", "ids used again", "purge"}


@pytest.mark.full
@pytest.mark.failure(5, 8, 10, 12, 13, 18, 22)
def test_ten_thousand_chains() -> None:
    assert_sound(300, 10_000, os.cpu_count() or 1)


@pytest.mark.parametrize("seed", MENDED)
def test_seeds_that_failed_once(seed: int) -> None:
    assert_sound(seed, 1)


def test_a_seed_replays() -> None:
    def play() -> tuple[list[str], Counter[str]]:
        outcome = simulate.one(12)
        return outcome.violations, outcome.injected

    assert play() == play()


# Errors put into the code


def _always_takes(store: StorePaths, wanted: claim.Claim) -> None:
    """Ignores that another copy holds the claim."""
    store.claims.mkdir(parents=True, exist_ok=True)
    files.write_atomic(store.claim(wanted.attempt, wanted.link, wanted.restart), f"{_text(wanted)}\n")


def _text(wanted: claim.Claim) -> str:
    import json
    from dataclasses import asdict

    return json.dumps(asdict(wanted))


def _running_is_ended(original: Callable[..., Any]) -> Callable[..., Any]:
    """Takes what does not wait any more for ended."""

    def standing(*given: Any, **named: Any) -> Any:
        found = original(*given, **named)
        if (
            found.fate is Fate.LIVE
            and len(found.rows)
            and all(row.state == "COMPLETING" for row in found.rows.values())
        ):
            return ledger.Standing(found.attempt, Fate.ENDED, found.jobs, found.rows)
        return found

    return standing


_sbatch = Submitter._sbatch

MUTATIONS: dict[str, tuple[Any, str, Any]] = {
    "both copies take the claim": (claim, "take", _always_takes),
    "a job that runs is taken for ended": (ledger, "standing", _running_is_ended(ledger.standing)),
    "a job keeps its old parents": (Submitter, "_repointed", lambda self, stage, found: True),
    "a link waits for the one before it alone": (
        Submitter, "_sbatch",
        lambda self, stage, store, attempt, link, before: _sbatch(self, stage, store, attempt, link, before[-1:]),
    ),
}  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("name", MUTATIONS)
def test_an_error_in_the_code_is_found(name: str) -> None:
    module, attribute, value = MUTATIONS[name]
    with mock.patch.object(module, attribute, value):
        for outcome in simulate.many(0, 1500):
            if outcome.violations:
                return
    raise AssertionError(f"1500 chains did not notice: {name}")
