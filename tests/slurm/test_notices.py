"""Whom a run tells, and what it is told: mail by Slurm, a command at the end of a job, a signal before the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.chains import Chain
from tests.slurm.helpers import Slurm

pytestmark = pytest.mark.slurm


@pytest.fixture
def mails(slurm: Slurm, tmp_path: Path) -> Iterator[Path]:
    """What Slurm sends, a line a mail: its subject and the address."""
    sent, program = tmp_path / "mails", tmp_path / "mail"
    program.write_text(f'#!/bin/bash\nprintf "%s|%s\\n" "$2" "$3" >>{sent}\n')
    program.chmod(0o755)
    before = slurm.slurm_conf.read_text()
    slurm.slurm_conf.write_text(f"{before}MailProg={program}\n")
    slurm.run(["scontrol", "reconfigure"])
    yield sent
    slurm.slurm_conf.write_text(before)
    slurm.run(["scontrol", "reconfigure"])


@pytest.mark.failure(17)
def test_the_end_of_a_chain_and_every_failure_are_told(slurm: Slurm, tmp_path: Path, mails: Path) -> None:
    told = tmp_path / "told"
    command = f'echo "$OVERNIGHT_EVENT $OVERNIGHT_RUN $OVERNIGHT_STAGE $(hostname)" >>{told}'
    settings = {"prefs": {"min_chars": 100_000}}  # nothing is left of it: it fails
    profile = {"notify": {"mail": "me@example.org", "command": command}}
    chain = Chain(slurm, tmp_path / "work", ("corpus", "prefs", "cpt"), settings=settings, profile=profile)
    chain.fetch()
    run = chain.submit()
    chain.wait()
    lines = sorted(line.rpartition(" ")[0] for line in told.read_text().splitlines())
    assert lines == [f"done {run} cpt", f"failed {run} prefs"]
    assert all(" node" in line for line in told.read_text().splitlines())
    chain.wait_until(lambda: mails.exists() and len(mails.read_text().splitlines()) == 2, "two mails")
    ended, failed = sorted(mails.read_text().splitlines(), key=lambda line: "prefs" in line)
    assert f"Name=on-{run}-cpt" in ended
    assert "Ended" in ended
    assert f"Name=on-{run}-prefs" in failed
    assert "Failed" in failed
    assert ended.endswith("|me@example.org")


@pytest.mark.full
@pytest.mark.failure(2)
def test_the_signal_of_a_preemption_saves_the_work(slurm: Slurm, tmp_path: Path) -> None:
    """With a grace time Slurm sends the job's own signal at the moment of preemption."""
    settings = {"cpt": {"steps": 400, "save_every": 400, "nodes": 1, "options": {"step_seconds": 0.5}}}
    profile = {"partition": "preempt", "signal": {"name": "USR2", "lead": "1:00"}}
    chain = Chain(slurm, tmp_path / "work", ("corpus", "cpt"), settings=settings, profile=profile)
    chain.fetch()
    slurm.run(["scontrol", "update", "PartitionName=preempt", "GraceTime=60"])
    try:
        run = chain.submit()
        chain.wait_until(lambda: chain.stage(run, "cpt").progress.exists(), "the first step")
        urgent = slurm.sbatch("sleep 1", "--partition=batch", "--nodes=4", "--exclusive", "--time=2")
        chain.wait_until(lambda: chain.events("cpt", "saved"), "a save")
        slurm.wait_for_state(urgent, "COMPLETED", timeout=120)
        saved = chain.events("cpt", "saved")[0]
        assert 0 < saved["step"] < 400, chain.story(run, "cpt")
        # Long before the end of its time: nothing but the signal can have asked for it.
        assert slurm.job(next(job.row.job_id for job in chain.jobs() if job.stage == "cpt"))["TimeLimit"] == "00:30:00"
    finally:
        slurm.run(["scontrol", "update", "PartitionName=preempt", "GraceTime=0"])
        chain.cancel(run)
