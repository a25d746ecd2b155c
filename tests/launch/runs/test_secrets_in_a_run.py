"""A whole run on the real Slurm with planted canaries: the work has them, and nothing else ever shows one."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from jobs.core import redaction
from tests.slurm.conftest import slurm as slurm
from tests.support.chains import Chain
from tests.support.slurm import Slurm

CANARY = "canary-7f3a-it's $HOME"
LICENCE = "canary-9b1c-licence"


class Watch(threading.Thread):
    """Looks at the command line of every process, and at the environment of those that are no part of a job's work."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.seen: set[str] = set()
        self.looks = 0

    def run(self) -> None:
        while not self.over.wait(0.02):
            self.looks += 1
            for entry in Path("/proc").iterdir():
                if not entry.name.isdigit() or int(entry.name) == os.getpid():
                    continue
                try:
                    command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
                except OSError:
                    continue
                if b"canary-" in command:
                    self.seen.add(f"argv: {command!r}")
                ours = b"launch.cli" in command  # the user's own command was started with it by the user
                if b"canary-" in environment and b"SLURM_STEP_ID=" not in environment and not ours:
                    self.seen.add(f"environ of {command!r}")


@pytest.mark.slurm
@pytest.mark.full
@pytest.mark.failure(25, 26)
def test_no_value_is_anywhere_but_in_the_work(slurm: Slurm, tmp_path: Path) -> None:
    pytest.importorskip("nemo_run")
    pytest.importorskip("submitit")
    given = tmp_path / "given"
    given.write_text(f"HF_TOKEN={CANARY}\n")
    given.chmod(0o600)
    probe = tmp_path / "probe"
    # A set-up line that traces and hands tracing on; BASH_ENV is not read by interactive shells only.
    profile = {
        "secrets": ["HF_TOKEN", "my_licence"],
        "setup": ["export SHELLOPTS", "set -x"],
        "executors": {"default": "submitit", "training": "nemo_run"},
    }
    chain = Chain(slurm, tmp_path / "chain", ("corpus", "cpt"), profile=profile)
    chain.fetch()
    chain.overnight("submit", code=2)  # without a value nothing is made
    assert chain.runs() == []
    environment = {"OVERNIGHT_SECRETS": str(given), "my_licence": LICENCE}
    watch = Watch()
    watch.start()
    said = chain.overnight("submit", environment=environment)
    run = chain.runs()[-1]
    chain.wait()
    watch.over.set()
    watch.join()
    assert watch.looks > 3
    assert watch.seen == set()
    chain.assert_done_once(run)
    private = chain.workspace.run(run).secrets
    assert redaction.read(private) == {"HF_TOKEN": CANARY, "my_licence": LICENCE}
    for place in (chain.directory, slurm.directory):
        for path in place.rglob("*"):
            if path.is_file() and path != private:
                assert b"canary-" not in path.read_bytes(), path
    assert "canary-" not in said.stdout + said.stderr
    # The work of both executors has them: the very scripts, their last line replaced.
    for name in ("corpus", "cpt"):
        node = next(chain.stage(run, name).root.glob("attempts/*/node.sh")).read_text()
        body = node.replace("exec ", "printenv HF_TOKEN my_licence; exit; ")
        probe.write_text(body)
        done = slurm.run(["bash", probe], environment={"SLURM_JOB_ID": "1", "OVERNIGHT_ENTERED": "1.0"})
        assert done.stdout == f"{CANARY}\n{LICENCE}\n", name
    # What the trainer itself prints is taken out where we show it.
    log = next(chain.stage(run, "cpt").logs.glob("*_0.log"))
    with open(log, "a") as stream:
        stream.write(f"token={CANARY}\n")
    shown = chain.overnight("logs", run, "cpt").stdout
    assert "token=[HF_TOKEN]\n" in shown
    assert "canary-" not in shown
