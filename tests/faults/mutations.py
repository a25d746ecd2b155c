"""Errors put into the code one by one: the simulation must find each. ``python -m tests.faults.mutations [NAME ...]``.

Some undo what a failing seed had fixed; ``docs/failures.md`` names them. One is replayed by
``python -m tests.faults.simulate --seed N --mutation NAME``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from jobs.core import budget, claim, files, patience
from jobs.core.claim import Claim
from jobs.core.paths import StorePaths
from jobs.core.spec import StageSpec
from jobs.lifecycle import gate, judge, nodes, publish, steps
from jobs.lifecycle.start import output_of
from jobs.training import own_saves, saves
from launch.plan.model import PlannedStage
from launch.runs import attempt_state
from launch.runs.attempt_state import AttemptState, AttemptStatus, QueueView
from launch.runs.journal import Event, Journal
from launch.submit import cancel, reuse, submitter
from launch.submit.submitter import Submitter


@dataclass(frozen=True)
class Mutation:
    """``make`` gets what stands at ``owner.attribute`` and returns what is put there."""

    owner: Any
    attribute: str
    make: Callable[[Any], Any]


def _claim_taken_by_all(original: Any) -> Any:
    def take(store: StorePaths, wanted: Claim, has_begun: bool = False) -> None:
        store.claims.mkdir(parents=True, exist_ok=True)
        text = f"{json.dumps(asdict(wanted))}\n"
        files.write_atomic(store.claim(wanted.attempt, wanted.link, wanted.restart), text)

    return take


def _finished_by_this_run_alone(original: Any) -> Any:
    def finished(spec: StageSpec) -> Iterator[Any]:
        return (found for found in original(spec) if found[0] == publish.result_of(spec))

    return finished


def _later_links_do_not_matter(original: Any) -> Any:
    """A copy of a link that was cancelled while it waited takes its claim beside a later link, which is at work."""

    def take(store: StorePaths, wanted: Claim, has_begun: bool = False) -> Any:
        rival = original(store, wanted, has_begun)
        return None if rival is not None and rival.link > wanted.link else rival

    return take


def _running_is_ended(original: Any) -> Any:
    def standing(*given: Any, **named: Any) -> AttemptState:
        found: AttemptState = original(*given, **named)
        states = {row.state for row in found.rows.values()}
        return (
            replace(found, status=AttemptStatus.ENDED)
            if found.status is AttemptStatus.LIVE and states == {"COMPLETING"}
            else found
        )

    return standing


def _completed_is_sealed(original: Any) -> Any:
    """An exit code is proof: a stage whose output is there is done."""

    def is_sound(store: StorePaths, thorough: bool = False) -> bool:
        return store.output.exists() or bool(original(store, thorough))

    return is_sound


def _link_waits_for_one(original: Any) -> Any:
    def sbatch(self: Submitter, stage: Any, store: Any, attempt: Any, link: int, before: Any) -> Any:
        return original(self, stage, store, attempt, link, before[-1:])

    return sbatch


def _no_intent(original: Any) -> Any:
    def write(self: Journal, event: Event, **facts: Any) -> None:
        if event is not Event.INTENT:
            original(self, event, **facts)

    return write


def _more_edges_are_no_harm(original: Any) -> Any:
    """A job that waits for more than its parents' jobs is let alone: the rest may be of a parent that has failed."""

    def repointed(self: Submitter, stage: PlannedStage, found: AttemptState) -> Any:
        first = found.rows.get(0)
        wanted = {job for parent in stage.parents if (job := self._jobs.get(parent)) is not None}
        if (
            first is not None
            and "failed" not in first.dependency
            and all(f":{job}" in first.dependency for job in wanted)
        ):
            return True
        return original(self, stage, found)

    return repointed


def _keeps_the_oldest(original: Any) -> Any:
    def keep_last(self: saves.Saves, count: int, best: int | None = None) -> None:
        for step in self._store.sealed_steps()[:-1]:
            shutil.rmtree(self._store.save(step), ignore_errors=True)

    return keep_last


def _counts_rows(original: Any) -> Any:
    """The links that live are looked up among rows and not among ids: a link that is added waits for none of them."""

    def adopt(self: Submitter, stage: PlannedStage, store: StorePaths, found: AttemptState) -> Any:
        def sbatch(stage: Any, store: Any, attempt: Any, link: int, before: Any) -> Any:
            return type(self)._sbatch(self, stage, store, attempt, link, [])

        with mock.patch.object(self, "_sbatch", sbatch):
            return original(self, stage, store, found)

    return adopt


def _publishes_early(original: Any) -> Any:
    """``done`` is believed whatever the step."""

    def work(spec: Any, start: Any, result: dict[str, Any], exit_code: int, ended_by: Any) -> Any:
        if result.get("outcome") == "stopped":
            result = {**result, "outcome": "done"}
            (output_of(spec, start) / "text").write_text("early")
            spec = replace(spec, target_step=None)
        return original(spec, start, result, exit_code, ended_by)

    return work


def _seal_by_name(original: Any) -> Any:
    """A start that has digested writes the seal, whatever happened to its directory since."""

    def make(made: Path, target: Path) -> None:
        files.write_atomic(target, made.read_text())

    return make


MUTATIONS: dict[str, Mutation] = {
    # The claim
    "claim-taken-by-all": Mutation(claim, "take", _claim_taken_by_all),
    "claim-never-taken": Mutation(claim, "take", lambda original: lambda store, wanted, has_begun=False: None),
    "later-links-do-not-matter": Mutation(claim, "take", _later_links_do_not_matter),
    "claim-not-checked": Mutation(claim, "check_held", lambda original: lambda store, wanted: None),
    "given-up-without-a-claim": Mutation(claim, "supersede", lambda original: lambda *given, **named: None),
    # What became of an attempt
    "running-is-ended": Mutation(attempt_state, "standing", _running_is_ended),
    "completed-is-sealed": Mutation(reuse, "is_sound", _completed_is_sealed),
    # Submission
    "keeps-old-parents": Mutation(Submitter, "_repointed", lambda original: lambda self, stage, found: True),
    "never-satisfied-is-overlooked": Mutation(submitter, "NEVER_SATISFIED", lambda original: "unheard of"),
    "more-edges-are-no-harm": Mutation(Submitter, "_repointed", _more_edges_are_no_harm),
    "left-over-jobs-stay": Mutation(Submitter, "_cancel_given_up", lambda original: lambda self: None),
    "link-waits-for-the-one-before": Mutation(Submitter, "_sbatch", _link_waits_for_one),
    "added-link-waits-for-none": Mutation(Submitter, "_adopt", _counts_rows),
    "no-look-up-after-silence": Mutation(QueueView, "find", lambda original: lambda self, name, job: None),
    "no-intent": Mutation(Journal, "write", _no_intent),
    "does-not-see-that-it-was-given-up": Mutation(
        Submitter, "_was_given_up", lambda original: lambda self, store, attempt: False
    ),
    # Work
    "begins-from-the-start": Mutation(saves.Saves, "newest_valid", lambda original: lambda self: None),
    "keeps-the-oldest-save": Mutation(saves.Saves, "keep_last", _keeps_the_oldest),
    "sealed-before-its-last-step": Mutation(steps, "_judge", _publishes_early),
    "no-budget": Mutation(budget, "may_go_on", lambda original: lambda history, retries: True),
    "silent-starts-are-not-judged": Mutation(judge, "before", lambda original: lambda spec, start: None),
    "all-others-are-earlier": Mutation(judge, "_earlier", lambda original: lambda spec, start: judge.starts(spec)),
    "earlier-starts-keep-their-directories": Mutation(
        publish, "revoke_earlier", lambda original: lambda spec, start, but=None: None
    ),
    "saves-in-a-shared-place": Mutation(
        own_saves.OwnSaves, "directory", lambda original: property(lambda self: self._store.saves)
    ),
    "verdicts-outlive-their-job": Mutation(steps, "_forget_namesake", lambda original: lambda spec, start: None),
    "temporaries-are-sealed": Mutation(files, "remove_temporaries", lambda original: lambda path: None),
    "finished-is-made-again": Mutation(publish, "seal_finished", lambda original: lambda spec, start: None),
    "finished-by-this-run-alone": Mutation(publish, "_finished", _finished_by_this_run_alone),
    "seal-is-written-over": Mutation(publish, "_make_seal", _seal_by_name),
    "an-error-that-passes-is-the-end": Mutation(
        patience.Patience, "wait", lambda original: lambda self, at=None: False
    ),
    "finished-is-what-can-be-read-at-once": Mutation(publish, "passes", lambda original: lambda error: False),
    "replaced-starts-have-a-say": Mutation(steps, "is_replaced", lambda original: lambda spec, start: None),
    "link-does-not-look-for-copies": Mutation(steps, "_must_wait", lambda original: lambda spec, start: False),
    "bad-nodes-are-not-left": Mutation(nodes, "to_avoid", lambda original: lambda job, strikes, needed: []),
    "gate-lets-all-through": Mutation(gate, "check", lambda original: lambda spec, start: None),
    "cancel-does-not-look-again": Mutation(cancel, "_wait_until_gone", lambda original: lambda gateway, jobs: ()),
}
"""Name -> error."""

SURVIVORS = {
    "temporaries-are-sealed": (
        "tests/jobs/core/test_seal.py::test_what_an_earlier_write_of_the_seal_left_is_not_sealed"
    ),
    "verdicts-outlive-their-job": (
        "tests/jobs/lifecycle/test_publish.py"
        "::test_a_verdict_of_its_life_before_is_not_that_of_a_job_that_is_started_again"
    ),
    "later-links-do-not-matter": (
        "tests/jobs/core/test_claim.py::test_a_copy_of_an_earlier_link_does_not_work_beside_a_later_one"
    ),
    "finished-is-what-can-be-read-at-once": (
        "tests/jobs/lifecycle/test_publish.py::test_a_directory_that_cannot_be_listed_once_is_no_broken_output"
    ),
    "replaced-starts-have-a-say": "tests/jobs/lifecycle/test_publish.py::test_a_start_that_was_replaced_has_no_say",
    "bad-nodes-are-not-left": "tests/jobs/lifecycle/test_nodes.py::test_what_is_left_out_leaves_enough_nodes",
    "gate-lets-all-through": "tests/jobs/lifecycle/test_publish.py::test_a_start_cut_off_between_two_inputs_leaves_the_second_to_verify",
    "cancel-does-not-look-again": "tests/launch/submit/test_cancel.py::test_a_job_that_does_not_go_is_named",
    "does-not-see-that-it-was-given-up": "tests/faults/test_simulation.py::test_who_was_given_up_cancels_its_jobs",
}
"""What no chain notices, since it costs a start or a command and something else stands behind it: the test that does."""


@contextmanager
def applied(name: str) -> Iterator[None]:
    """The error is in the code."""
    mutation = MUTATIONS[name]
    original = getattr(mutation.owner, mutation.attribute)
    with mock.patch.object(mutation.owner, mutation.attribute, mutation.make(original)):
        yield


_IN_PLACE = ExitStack()
"""As long as the process."""


def pytest_configure() -> None:
    """This module as a plugin (``-p tests.faults.mutations``): the error named by ``OVERNIGHT_MUTATION`` is in the code."""
    if name := os.environ.get("OVERNIGHT_MUTATION"):
        _IN_PLACE.enter_context(applied(name))


def fails(test: str, name: str) -> bool:
    """Whether a test fails with an error in the code."""
    argv = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "tests.faults.mutations", test]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        argv, cwd=root, env={**os.environ, "OVERNIGHT_MUTATION": name}, capture_output=True, check=False
    )
    return done.returncode == 1


@dataclass(frozen=True)
class Found:
    """``seed`` is the first chain that noticed, after ``chains``; None: none did. ``text``: what it noticed, or the test
    that did."""

    name: str
    seed: int | None
    chains: int
    text: str = ""


def hunt(name: str, chains: int, first: int = 0) -> Found:
    """Play chains with the error until one breaks an invariant; for one that none does, run the test that does."""
    from tests.faults import simulate

    if name in SURVIVORS:
        test = SURVIVORS[name]
        return Found(name, 0 if fails(test, name) else None, 0, test)
    with applied(name):
        for count, outcome in enumerate(simulate.many(first, chains), start=1):
            if outcome.violations:
                return Found(name, outcome.seed, count, outcome.violations[0])
    return Found(name, None, chains)


def _hunt(given: tuple[str, int, int]) -> Found:
    return hunt(*given)


def main() -> int:
    """Hunt all or some and report; the exit code counts those that were not found."""
    from multiprocessing import Pool

    from tests.faults import simulate

    simulate.fix_hashes("tests.faults.mutations")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(MUTATIONS)}")
    parser.add_argument("--chains", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="of the first chain")
    parser.add_argument("--processes", type=int, default=simulate.cores())
    args = parser.parse_args()
    began = time.monotonic()
    missed = 0
    with Pool(args.processes, simulate.pin) as pool:
        for found in pool.imap_unordered(_hunt, [(name, args.chains, args.seed) for name in args.names or MUTATIONS]):
            missed += found.seed is None
            by = f"seed {found.seed}, after {found.chains} chains: {found.text}" if found.chains else found.text
            print(f"{found.name}: {'NOT FOUND' if found.seed is None else by}", flush=True)
    print(f"{time.monotonic() - began:.0f} s, not found: {missed}")
    return missed


if __name__ == "__main__":
    raise SystemExit(main())
