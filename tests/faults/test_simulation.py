"""Chains on the simulated site: none breaks an invariant, and an error that is put into the code is found."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from unittest import mock

import pytest

from jobs.core import attempts, claim
from launch.render.request import JobRequest
from launch.submit import submitter
from tests.faults import mutations, simulate
from tests.faults.site import Carrier, Gateway

FOUND_SOON = (
    "finished-is-made-again",
    "saves-in-a-shared-place",
    "claim-never-taken",
    "claim-not-checked",
    "keeps-old-parents",
    "no-intent",
    "sealed-before-its-last-step",
)
"""Errors that a few dozen chains notice."""

MENDED = {
    81: "link-waits-for-the-one-before",
    35: "added-link-waits-for-none",
    791: "left-over-jobs-stay",
    857: "left-over-jobs-stay",
    16061: "more-edges-are-no-harm",
    20347: "more-edges-are-no-harm",
    1313: "link-does-not-look-for-copies",
    4213: "link-does-not-look-for-copies",
    4519: "link-does-not-look-for-copies",
    5474: "link-does-not-look-for-copies",
    7323: "replaced-starts-have-a-say",
    20065: "later-links-do-not-matter",
    20920: "later-links-do-not-matter",
    30494: "finished-by-this-run-alone",
    32455: "finished-by-this-run-alone",
    32641: "finished-by-this-run-alone",
    60257: "finished-is-what-can-be-read-at-once",
    70994: "replaced-starts-have-a-say",
    100132: "all-others-are-earlier",
    100416: "all-others-are-earlier",
    100758: "all-others-are-earlier",
}
"""Seeds that failed once, and the error that undoes what fixed them (docs/failures.md)."""


def assert_sound(first: int, count: int, processes: int = 1) -> Counter[str]:
    injected: Counter[str] = Counter()
    failed = []
    for outcome in simulate.many(first, count, processes):
        injected += outcome.injected
        if outcome.violations:
            failed.append(f"seed {outcome.seed} (python -m tests.faults.simulate --seed {outcome.seed})")
            failed += [f"  {text}" for text in dict.fromkeys(outcome.violations)]
    assert not failed, "\n".join(failed)
    return injected


@pytest.mark.failure(5, 8, 10, 12, 13, 18, 22)
def test_a_hundred_chains() -> None:
    injected = assert_sound(0, 100) + assert_sound(101, 1)
    assert set(injected) >= {f"replaced while it {what}" for what in ("begins", "saves", "seals")}
    assert set(injected) >= {"file system away", "call fails once", "answer of a server lost", "slow digest"}
    assert set(injected) >= {"name not yet visible", "old listing", "no hard links"}
    assert set(injected) >= {"first link cancelled", "one of two copies cancelled"}
    assert set(injected) >= {"node failure", "answer lost", "accepted twice", "two resumes", "ids used again", "purge"}


@pytest.mark.full
@pytest.mark.failure(5, 8, 10, 12, 13, 18, 22)
def test_ten_thousand_chains() -> None:
    assert_sound(300, 10_000, simulate.cores())


@pytest.mark.parametrize("seed", MENDED)
def test_seeds_that_failed_once(seed: int) -> None:
    assert_sound(seed, 1)


def test_who_was_given_up_cancels_its_jobs(tmp_path: Path) -> None:
    """Another ``overnight`` took an attempt for dead while its sbatch was on its way, and gave it up."""
    simulation = simulate.Simulation(0, tmp_path)
    cancelled: list[str] = []

    class Slow(Carrier):
        def submit(self, request: JobRequest, gateway: Gateway) -> str:
            for planned in simulation.plan.stages:
                found = attempts.current(simulation.store(planned))
                if found is not None and found.number == 1:
                    claim.supersede(simulation.store(planned), found.token, "other", found.links)
            return super().submit(request, gateway)

    with simulation.patched(), mock.patch.object(submitter, "carrier", return_value=Slow(simulation.site)):
        simulation.runs = [simulation._make_run("run0")]
        with mock.patch.object(simulation.gateway, "scancel", lambda ids: cancelled.extend(ids)):
            simulation._process(simulation._advance, simulation.runs[0], "login1", None)
            simulation.world.after(0.4, simulation._calm)
            simulation.world.run()
    assert "1" in cancelled


def test_a_seed_replays_to_the_letter(tmp_path: Path) -> None:
    """Also in another process, with everything that was written down."""
    code = (
        "import sys; from pathlib import Path; from tests.faults.simulate import Simulation\n"
        "for seed in (12, 59):\n"
        "    played = Simulation(seed, Path(sys.argv[1]) / str(seed)); print(played.play().injected); print(played.story())"
    )
    root = Path(simulate.__file__).parents[2]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(root)}
    said = set()
    for _ in range(2):
        (tmp_path / "12").mkdir()
        (tmp_path / "59").mkdir()
        argv = [sys.executable, "-c", code, str(tmp_path)]
        done = subprocess.run(argv, cwd=root, env=environment, capture_output=True, text=True, timeout=600, check=True)
        said.add(done.stdout)
        for name in ("12", "59"):
            (tmp_path / name).rename(tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}")
    assert len(said) == 1
    assert "event=start" in said.pop()


@pytest.mark.parametrize("name", FOUND_SOON)
def test_an_error_in_the_code_is_found_soon(name: str) -> None:
    assert mutations.hunt(name, 150).seed is not None


@pytest.mark.full
@pytest.mark.parametrize("name", mutations.MUTATIONS)
def test_an_error_in_the_code_is_found(name: str) -> None:
    """Among them those that undo what fixed a failing seed."""
    assert set(MENDED.values()) <= mutations.MUTATIONS.keys()
    assert mutations.hunt(name, 6000).seed is not None
