"""Exactly-once submission: ``overnight submit`` is killed at every boundary, and ``resume`` makes it good.

Whatever the killed process had got to, afterwards every stage has been worked on once and sealed once, no job is left,
and the journal explains every job that the controller remembers.
"""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from launch.runs import rundir
from launch.runs.journal import Event
from launch.runs.rundir import Run
from launch.slurm.client import Gateway
from launch.submit.submitter import Action, Submitter
from tests.support import tracing
from tests.support.chains import ALL, SHORT, Chain, ended, wrapper
from tests.support.slurm import Slurm
from tests.support.tracing import Boundary

pytestmark = pytest.mark.slurm

needs_strace = pytest.mark.skipif(not tracing.works(), reason="strace is not installed, or may not trace here")

AT_ONCE = 3
"""Chains that are killed and resumed side by side."""

SUBMITIT = {"executors": {"default": "submitit", "training": "submitit"}}
"""Importing nemo_run takes two seconds of CPU: most tests do without."""

TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"


def boundaries(chain: Chain, name: str, *arguments: str) -> list[Boundary]:
    """The calls of a clean command that change what others can see, from the making or the locking of the run on."""
    log = chain.directory / "strace"
    ended(chain.start(name, "--json", *arguments, before=tracing.recording(log)))
    (run,) = chain.runs()
    calls = tracing.recorded(log)
    first = next(index for index, call in enumerate(calls) if call.changes(f"/runs/{run}"))
    return [call for call in calls[first:] if _matters(call)]


def _matters(call: Boundary) -> bool:
    # The copy of our code is renamed into place as a whole; of the writes only the journal's shows before a rename.
    return (
        "/code/partial-" not in call.text
        and " = -1 " not in call.text
        and (call.call != "write" or "/journal.jsonl>" in call.text)
    )


def kill(chain: Chain, boundary: Boundary, name: str, *arguments: str) -> None:
    """Run a command and kill it at the boundary; what it left in the queue is explained."""
    killed = ended(chain.start(name, "--json", *arguments, before=tracing.killing(boundary)), code=None)
    assert killed.returncode == -signal.SIGKILL or not boundary.certain, f"not killed: {killed}"
    chain.assert_queue_explained(alive=True)


def killed_and_resumed(chain: Chain, boundary: Boundary, at_once: bool) -> str:
    """Submit, be killed, resume; the run that is to be whole in the end. ``at_once``: before Slurm can do anything."""
    kill(chain, boundary, "submit")
    if not at_once:
        chain.wait()
    runs = chain.runs()
    if runs and chain.has_plan(runs[0]):
        chain.resume(runs[0])
        return runs[0]
    assert not chain.jobs()
    chain.overnight("list")
    if runs:
        refused = chain.overnight("resume", runs[0], code=2)
        assert "cut off before anything was submitted" in refused.stderr
    return chain.submit()


def sweep(base: Chain, chosen: Sequence[Boundary], survive: Callable[[Chain, Boundary, bool], str]) -> None:
    """Let one chain after the other be killed at its boundary and survive; look at what they made in the end."""
    chains = {boundary: base.clone(base.directory.parent / f"kill-{index}") for index, boundary in enumerate(chosen)}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {
            boundary: pool.submit(survive, chain, boundary, index % 2 == 0)
            for index, (boundary, chain) in enumerate(chains.items())
        }
    failures: dict[str, BaseException] = {}
    for boundary, future in futures.items():
        try:
            chains[boundary].wait()
            chains[boundary].assert_done_once(future.result())
        except AssertionError as error:
            failures[str(boundary)] = error
    assert not failures, "\n\n".join(f"killed at {boundary}: {error}" for boundary, error in failures.items())


def submit_boundaries(slurm: Slurm, directory: Path, **chain: Any) -> tuple[Chain, list[Boundary]]:
    """A fetched chain, and the boundaries of submitting it."""
    base = Chain(slurm, directory / "base", **chain)
    base.fetch()
    return base, boundaries(base.clone(directory / "clean"), "submit")


@needs_strace
@pytest.mark.failure(12)
def test_killed_at_a_sample_of_the_boundaries(slurm: Slurm, tmp_path: Path) -> None:
    base, found = submit_boundaries(slurm, tmp_path, stages=SHORT, profile=SUBMITIT)
    sweep(base, tracing.sample(found, 8), killed_and_resumed)


@needs_strace
def test_killed_around_an_sbatch_with_accounting_and_both_executors(slurm_accounting: Slurm, tmp_path: Path) -> None:
    base, found = submit_boundaries(slurm_accounting, tmp_path, stages=SHORT)
    # Of the second stage, which nemo_run carries: not submitted, and accepted but not recorded.
    sweep(base, [call for call in found if call.call in ("vfork", "rename")][-2:], killed_and_resumed)


@needs_strace
@pytest.mark.full
@pytest.mark.failure(12)
def test_killed_at_every_boundary(slurm: Slurm, tmp_path: Path) -> None:
    base, found = submit_boundaries(slurm, tmp_path, stages=SHORT, profile=SUBMITIT)
    sweep(base, found, killed_and_resumed)


@needs_strace
@pytest.mark.full
def test_killed_at_every_boundary_with_accounting_and_both_executors(slurm_accounting: Slurm, tmp_path: Path) -> None:
    base, found = submit_boundaries(slurm_accounting, tmp_path, stages=SHORT)
    sweep(base, found, killed_and_resumed)


@needs_strace
@pytest.mark.full
def test_the_whole_chain_killed_at_a_sample_of_the_boundaries(slurm: Slurm, tmp_path: Path) -> None:
    base, found = submit_boundaries(slurm, tmp_path, stages=ALL)
    sweep(base, tracing.sample(found, 24), killed_and_resumed)


@needs_strace
@pytest.mark.full
def test_a_chain_of_jobs_killed_at_every_boundary(slurm: Slurm, tmp_path: Path) -> None:
    profile = {**SUBMITIT, "continuation": "chain", "links": 3}
    base, found = submit_boundaries(slurm, tmp_path, stages=SHORT, profile=profile)
    sweep(base, found[max(index for index, call in enumerate(found) if call.call == "link") :], killed_and_resumed)


def resume_killed(slurm: Slurm, directory: Path, at: str, count: int | None) -> None:
    """The submission is killed at the last call of a name, then ``resume`` at each of its boundaries, then resumed."""
    base, found = submit_boundaries(slurm, directory, stages=SHORT, profile={**SUBMITIT, "sbatch": {"hold": True}})
    first = [call for call in found if call.call == at][-1]

    def survive(chain: Chain, boundary: Boundary, at_once: bool) -> str:
        kill(chain, first, "submit")
        (run,) = chain.runs()
        kill(chain, boundary, "resume", run)
        if not at_once:
            chain.release()
            chain.wait()
        chain.resume(run)
        chain.release()
        return run

    clean = base.clone(directory / "clean-resume")
    kill(clean, first, "submit")
    calls = boundaries(clean, "resume", *clean.runs())
    slurm.scancel_all()
    sweep(base, calls if count is None else tracing.sample(calls, count), survive)


@needs_strace
def test_resume_killed_at_a_sample_of_the_boundaries(slurm: Slurm, tmp_path: Path) -> None:
    resume_killed(slurm, tmp_path, "rename", 4)


@needs_strace
@pytest.mark.full
@pytest.mark.parametrize("at", ["vfork", "rename"], ids=["not submitted", "accepted but not recorded"])
def test_resume_killed_at_every_boundary(slurm: Slurm, tmp_path: Path, at: str) -> None:
    resume_killed(slurm, tmp_path, at, None)


@pytest.mark.failure(12, 38)
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
    assert resume.stderr is not None
    assert "waits: its submission by run" in resume.stderr.readline()
    resume.send_signal(signal.SIGINT)  # also now
    ended(resume, code=130)
    resume = chain.start("resume", run)
    with pytest.raises(subprocess.TimeoutExpired):
        resume.wait(timeout=3)
    answer.touch()
    ended(resume)
    chain.wait()
    chain.assert_done_once(run)
    assert len(chain.jobs()) == len(SHORT)


@pytest.mark.failure(10)
def test_a_job_that_shows_up_after_it_was_given_up_does_nothing(slurm: Slurm, tmp_path: Path) -> None:
    chain = Chain(slurm, tmp_path / "chain", SHORT, profile=SUBMITIT)
    chain.fetch()
    # Nothing is submitted; the error says that nobody knows.
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


@pytest.mark.parametrize(
    "ending",
    [f'echo "{TIMED_OUT}" >&2; exit 1', "kill -9 $$", pytest.param("echo; exit 0", marks=pytest.mark.full)],
    ids=["timed out", "killed", "no id"],
)
@pytest.mark.failure(10)
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


@pytest.mark.failure(10)
def test_accepted_but_sbatch_hangs(slurm: Slurm, tmp_path: Path) -> None:
    stages = ("corpus",)
    chain = Chain(slurm, tmp_path / "chain", stages, profile=SUBMITIT)
    chain.fetch()
    # Cut off before anything is submitted, so that the rest can be done with a gateway of less patience.
    lost = wrapper(tmp_path / "bin", "sbatch", f'echo "{TIMED_OUT}" >&2; exit 1')
    chain.overnight("submit", code=4, environment=lost)
    run = Run(chain.workspace, chain.runs()[0])
    hanging = wrapper(tmp_path / "hang", "sbatch", '"$REAL" "$@" >/dev/null; sleep 600')
    gateway = Gateway(slurm.slurm_conf, environment={**chain.environment, **hanging}, sbatch_timeout=5.0)
    with rundir.locked(run):
        steps = Submitter(run, run.plan(), run.profile(), gateway).advance()
    assert [step.action for step in steps] == [Action.SUBMITTED] * len(stages)
    chain.wait()
    chain.assert_done_once(run.id)
    assert len(chain.jobs()) == len(stages)


@pytest.mark.failure(39)
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


@pytest.mark.failure(13)
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
        "corpus": "reused",
        "pairs": "reused",
        "cpt": "submitted",
    }
    chain.release()
    chain.wait()
    chain.assert_done_once(run)


def _limit_jobs(slurm: Slurm, count: str) -> None:
    """Set how many jobs this user may have in the queue."""
    user = pwd.getpwuid(os.geteuid()).pw_name
    slurm.run(["sacctmgr", "-i", "modify", "user", user, "set", f"MaxSubmitJobs={count}"])


def test_a_last_question_without_an_answer_does_not_hide_what_was_submitted(slurm: Slurm, tmp_path: Path) -> None:
    chain = Chain(slurm, tmp_path / "chain", SHORT, profile={**SUBMITIT, "sbatch": {"hold": True}})
    chain.fetch()
    run = chain.submit()
    Run(chain.workspace, run).journal.write(Event.SUPERSEDED, attempt="gone", names=["on-gone"], store="none")
    counted, last = tmp_path / "asked", tmp_path / "last"
    body = f"""echo >>{counted}
if [ "$(wc -l <{counted})" = "$(cat {last})" ]; then
  echo "slurm_load_jobs error: Unable to contact slurm controller (connect failure)" >&2
  exit 1
fi
exec "$REAL" "$@\""""
    last.write_text("never")
    environment = wrapper(tmp_path / "bin", "squeue", body)
    chain.overnight("resume", run, environment=environment)
    last.write_text(str(2 * len(counted.read_text().splitlines())))
    done = chain.overnight("resume", run, "--json", environment=environment)
    said = json.loads(done.stdout)["stages"]
    assert [stage["action"] for stage in said] == ["adopted"] * len(said)
    assert all(stage["job"] for stage in said)
    assert "jobs that nobody waits for could not be looked for" in done.stderr
    assert f"overnight doctor {run}" in done.stderr
    chain.cancel(run)
