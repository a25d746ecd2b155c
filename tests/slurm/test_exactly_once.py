"""Exactly-once submission: ``overnight submit`` is killed at every boundary, and ``resume`` makes it good.

Whatever the killed process had got to, afterwards every stage has been worked on once and sealed once, no job is left,
and the journal explains every job that the controller remembers.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from launch import rundir
from launch.rundir import Run
from launch.slurm.gateway import Gateway
from launch.submit import Action, Submitter
from tests.slurm import tracing
from tests.slurm.chains import SHORT, Chain, ended, wait_for_all, wrapper
from tests.slurm.helpers import Slurm
from tests.slurm.tracing import Boundary

pytestmark = pytest.mark.slurm

needs_strace = pytest.mark.skipif(not tracing.works(), reason="strace is not installed, or may not trace here")

AT_ONCE = 3
"""Chains that are killed and resumed side by side."""

SUBMITIT = {"executors": {"default": "submitit", "training": "submitit"}}
"""Importing nemo_run takes two seconds of CPU: most tests do without."""

TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"


def boundaries(base: Chain, directory: Path) -> list[Boundary]:
    """The calls of a clean submit that change what others can see, from the making of the run on."""
    chain = base.clone(directory)
    log = directory / "strace"
    ended(chain.start("submit", "--json", before=tracing.recording(log)))
    chain.wait()
    (run,) = chain.runs()
    calls = tracing.recorded(log)
    first = next(index for index, call in enumerate(calls) if call.call.startswith("mkdir") and f"/{run}" in call.text)
    return [call for call in calls[first:] if _matters(call)]


def _matters(call: Boundary) -> bool:
    # The copy of our code is renamed into place as a whole; of the writes only the journal's shows before a rename.
    return (
        "/toolkit.partial/" not in call.text
        and " = -1 " not in call.text
        and (call.call != "write" or "/journal.jsonl>" in call.text)
    )


def survive(base: Chain, directory: Path, boundary: Boundary, *, at_once: bool) -> tuple[Chain, str]:
    """Submit, be killed, resume; the run that is to be whole in the end. ``at_once``: before Slurm can do anything."""
    chain = base.clone(directory)
    killed = ended(chain.start("submit", "--json", before=tracing.killing(boundary)), code=None)
    assert killed.returncode == -signal.SIGKILL or not boundary.certain, f"not killed: {killed}"
    if not at_once:
        chain.wait()
    chain.assert_queue_explained(alive=True)
    runs = chain.runs()
    if runs and chain.has_plan(runs[0]):
        chain.resume(runs[0])
        return chain, runs[0]
    assert not chain.jobs()
    if runs:
        refused = chain.overnight("resume", runs[0], code=2)
        assert "cut off before anything was submitted" in refused.stderr
    return chain, chain.submit()


def sweep(base: Chain, directory: Path, chosen: Iterable[Boundary]) -> None:
    """Kill one submission at each of these boundaries, resume all, and look at what they made."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {
            boundary: pool.submit(survive, base, directory / str(index), boundary, at_once=index % 2 == 0)
            for index, boundary in enumerate(chosen)
        }
    failures = {str(boundary): error for boundary, future in futures.items() if (error := future.exception())}
    done = [future.result() for future in futures.values() if not future.exception()]
    wait_for_all([chain for chain, _ in done])
    for boundary, future in futures.items():
        if not future.exception():
            chain, run = future.result()
            try:
                chain.assert_done_once(run)
            except AssertionError as error:
                failures[str(boundary)] = error
    assert not failures, "\n\n".join(f"killed at {boundary}: {error}" for boundary, error in failures.items())


@needs_strace
def test_killed_at_a_sample_of_the_boundaries(slurm: Slurm, tmp_path: Path) -> None:
    base = Chain(slurm, tmp_path / "base", SHORT, profile=SUBMITIT)
    base.fetch()
    sweep(base, tmp_path, tracing.sample(boundaries(base, tmp_path / "clean"), 24))


@needs_strace
@pytest.mark.full
def test_killed_at_every_boundary(slurm: Slurm, tmp_path: Path) -> None:
    base = Chain(slurm, tmp_path / "base", SHORT, profile=SUBMITIT)
    base.fetch()
    sweep(base, tmp_path, boundaries(base, tmp_path / "clean"))


def test_killed_while_its_sbatch_is_on_the_way(slurm: Slurm, tmp_path: Path) -> None:
    """The answer comes when nobody listens any more; resume waits for it and adopts the job."""
    chain = Chain(slurm, tmp_path / "chain", SHORT, profile=SUBMITIT)
    chain.fetch()
    asked, answer = tmp_path / "asked", tmp_path / "answer"
    slow = wrapper(
        tmp_path / "bin", "sbatch", f'touch {asked}; until [ -e {answer} ]; do sleep 0.1; done; exec "$REAL" "$@"'
    )
    submit = chain.start("submit", environment=slow)
    chain.wait_until(asked.exists, "sbatch to be called")
    submit.kill()
    ended(submit, code=-signal.SIGKILL)
    (run,) = chain.runs()
    resume = chain.start("resume", run)
    with pytest.raises(subprocess.TimeoutExpired):
        resume.wait(timeout=3)
    answer.touch()
    ended(resume)
    chain.wait()
    chain.assert_done_once(run)
    assert len(chain.jobs()) == len(SHORT)


def test_a_job_that_shows_up_after_it_was_given_up_does_nothing(slurm: Slurm, tmp_path: Path) -> None:
    chain = Chain(slurm, tmp_path / "chain", SHORT, profile=SUBMITIT)
    chain.fetch()
    # Nothing is submitted; we are told that nobody knows.
    lost = wrapper(tmp_path / "bin", "sbatch", f'echo "{TIMED_OUT}" >&2; exit 1')
    silent = chain.overnight("submit", code=4, environment=lost)
    assert "Socket timed out" in silent.stderr
    (run,) = chain.runs()
    (intent,) = [entry for entry in chain.journal(run) if entry["event"] == "intent"]
    assert chain.resume(run)["corpus"][0] == "submitted"
    late = chain.sbatch_again(run, "corpus", intent["attempt"])
    chain.wait()
    chain.assert_done_once(run)
    assert late not in chain.workers("corpus")


@pytest.mark.parametrize("ending", [f'echo "{TIMED_OUT}" >&2; exit 1', "kill -9 $$", "echo; exit 0"])
def test_accepted_but_the_answer_is_lost(slurm: Slurm, tmp_path: Path, ending: str) -> None:
    chain = Chain(slurm, tmp_path / "chain", SHORT, profile=SUBMITIT)
    chain.fetch()
    lossy = wrapper(tmp_path / "bin", "sbatch", f'"$REAL" "$@" >/dev/null || exit; {ending}')
    chain.overnight("submit", environment=lossy)
    (run,) = chain.runs()
    assert [entry["event"] for entry in chain.journal(run)].count("silent") == len(SHORT)
    chain.wait()
    chain.assert_done_once(run)
    assert len(chain.jobs()) == len(SHORT)


def test_accepted_but_sbatch_hangs(slurm: Slurm, tmp_path: Path) -> None:
    chain = Chain(slurm, tmp_path / "chain", SHORT, profile=SUBMITIT)
    chain.fetch()
    # Cut off before anything is submitted, so that the rest can be done with a gateway of less patience.
    lost = wrapper(tmp_path / "bin", "sbatch", f'echo "{TIMED_OUT}" >&2; exit 1')
    chain.overnight("submit", code=4, environment=lost)
    run = Run(chain.workspace, chain.runs()[0])
    hanging = wrapper(tmp_path / "hang", "sbatch", '"$REAL" "$@" >/dev/null; sleep 600')
    gateway = Gateway(slurm.slurm_conf, environment={**chain.environment, **hanging}, sbatch_timeout=5.0)
    with rundir.locked(run):
        steps = Submitter(run, run.plan(), run.profile(), gateway).advance()
    assert [step.action for step in steps] == [Action.SUBMITTED] * len(SHORT)
    chain.wait()
    chain.assert_done_once(run.id)
    assert len(chain.jobs()) == len(SHORT)


def test_ctrl_c_finishes_recording_and_cancels_nothing(slurm: Slurm, tmp_path: Path) -> None:
    chain = Chain(slurm, tmp_path / "chain", SHORT, profile=SUBMITIT)
    chain.fetch()
    asked = tmp_path / "asked"
    slow = wrapper(tmp_path / "bin", "sbatch", f'touch {asked}; sleep 2; exec "$REAL" "$@"')
    submit = chain.start("submit", environment=slow)
    chain.wait_until(asked.exists, "sbatch to be called")
    submit.send_signal(signal.SIGINT)
    said = ended(submit, code=130)
    (run,) = chain.runs()
    (job,) = chain.jobs()
    assert job.stage == "corpus"
    assert job.row.job_id in said.stdout
    assert "1 of 2 stages" in said.stdout
    assert f"overnight cancel {run}" in said.stdout
    assert f"overnight resume {run}" in said.stdout
    assert [entry["event"] for entry in chain.journal(run)] == ["created", "intent", "submitted", "interrupted"]
    actions = chain.resume(run)
    assert actions["corpus"][0] in ("adopted", "reused")
    assert actions["cpt"][0] == "submitted"
    chain.wait()
    chain.assert_done_once(run)


def test_a_submit_limit_is_named_and_resume_goes_on_later(slurm_accounting: Slurm, tmp_path: Path) -> None:
    held = {**SUBMITIT, "sbatch": {"hold": True}}
    chain = Chain(slurm_accounting, tmp_path / "chain", ("corpus", "pairs", "cpt"), profile=held)
    chain.fetch()
    _limit_jobs(slurm_accounting, "2")
    try:
        refused = chain.overnight("submit", code=3)
        (run,) = chain.runs()
        ids = [job.row.job_id for job in chain.jobs()]
        assert len(ids) == 2
        assert "limit" in refused.stderr
        assert "jobs" in refused.stderr
        assert all(job in refused.stderr for job in ids), "says what was submitted"
        assert f"overnight resume {run}" in refused.stderr
        again = chain.overnight("resume", run, code=3)
        assert all(job in again.stderr for job in ids)
        chain.release()
        chain.wait()
    finally:
        _limit_jobs(slurm_accounting, "-1")
    assert {stage: action for stage, (action, _) in chain.resume(run).items()} == {
        "corpus": "reused", "pairs": "reused", "cpt": "submitted",
    }  # fmt: skip
    chain.release()
    chain.wait()
    chain.assert_done_once(run)


def _limit_jobs(slurm: Slurm, count: str) -> None:
    """Set how many jobs the user may have in the queue, and wait until the controller knows."""
    slurm.run(["sacctmgr", "-i", "modify", "user", "root", "set", f"MaxSubmitJobs={count}"])
