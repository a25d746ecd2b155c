"""Whom a run tells, and what it is told: mail by Slurm, a command at the end of a job, a signal before the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chains import Chain
from tests.support.inbox import Inbox, serving
from tests.support.slurm import Slurm

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


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    yield from serving()


@pytest.mark.failure(17)
def test_the_end_of_a_chain_and_every_failure_are_told(
    slurm: Slurm, tmp_path: Path, mails: Path, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    command = f'echo "$OVERNIGHT_EVENT $OVERNIGHT_RUN $OVERNIGHT_STAGE $(hostname)" >>{told}'
    settings = {"prefs": {"min_chars": 100_000}}  # nothing is left of it: it fails
    profile = {"notify": {"mail": "me@example.org", "command": command, "to": ["LETTERS"]}}
    monkeypatch.setenv("LETTERS", inbox.url)
    chain = Chain(slurm, tmp_path / "work", ("corpus", "prefs", "cpt"), settings=settings, profile=profile)
    chain.fetch()
    run = chain.submit()
    chain.wait()
    lines = sorted(line.rpartition(" ")[0] for line in told.read_text().splitlines())
    assert lines == [f"done {run} cpt", f"failed {run} prefs"]
    assert all(" node" in line for line in told.read_text().splitlines())
    # Two stages ended, one of them badly, and the one letter came from inside the last job.
    chain.wait_until(lambda: inbox.got, "a letter")
    assert len(inbox.got) == 1
    assert inbox.got[0]["title"].startswith(f"{chain.plan(run).pipeline} {run}: FAILED, prefs: failed")
    page = chain.workspace.run(run).page
    chain.wait_until(page.exists, "the page that the last job writes")
    chain.wait_until(lambda: "cpt" in page.read_text() and "prefs" in page.read_text(), "all stages on the page")
    chain.wait_until(lambda: mails.exists() and len(mails.read_text().splitlines()) == 2, "two mails")
    ended, failed = sorted(mails.read_text().splitlines(), key=lambda line: "prefs" in line)
    assert f"Name=on-{run}-cpt" in ended
    assert "Ended" in ended
    assert f"Name=on-{run}-prefs" in failed
    assert "Failed" in failed
    assert ended.endswith("|me@example.org")


@pytest.mark.full
@pytest.mark.failure(2)
def test_the_signal_before_the_end_saves_the_work(slurm: Slurm, tmp_path: Path) -> None:
    """It comes long before the deadline that the watcher reads, so nothing else can have asked for the save."""
    cpt = {"steps": 400, "save_every": 400, "nodes": 1, "time": "0:02:00", "options": {"step_seconds": 0.5}}
    profile = {"signal": {"lead": "1:40"}, "lead": "0:05"}
    chain = Chain(slurm, tmp_path / "work", ("corpus", "cpt"), settings={"cpt": cpt}, profile=profile)
    chain.fetch()
    run = chain.submit()
    try:
        chain.wait_until(lambda: chain.events("cpt", "saved"), "a save")
        saved = chain.events("cpt", "saved")[0]
        assert 0 < saved["step"] < 400, chain.story(run, "cpt")
        assert (
            float(chain.stage(run, "cpt").deadline(saved["job"], saved["restart"]).read_text()) - saved["time"] > 20
        ), chain.story(run, "cpt")
    finally:
        chain.cancel(run)
