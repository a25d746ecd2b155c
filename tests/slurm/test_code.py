"""``code:`` through a real submit: what is taken, what jobs import, a back end of the user's own, and gc beside it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.core.paths import Workspace
from tests.support import tracing
from tests.support.chains import SHORT, Chain, ended, make_inputs
from tests.support.slurm import Slurm

pytestmark = pytest.mark.slurm

BACK_END = '''
"""A back end of the user's: the toy with a note of which version of the user's code ran."""
from jobs.backends import toy
from pkg import mine

NAME = "own_toy"
CAPABILITIES = toy.CAPABILITIES


def probe():
    return {"helper": str(mine.VALUE)}


def behaviour(checkpoint):
    return toy.behaviour(checkpoint)


def run(spec, context):
    context.event("own", value=mine.VALUE, file=mine.__file__)
    return toy.run(spec, context)
'''

SUBMITIT = {"executors": {"default": "submitit", "training": "submitit"}}


def git(tree: Path, *arguments: str) -> None:
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", str(tree), *arguments]
    subprocess.run(command, check=True, capture_output=True)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def with_code(slurm: Slurm, directory: Path, **profile: Any) -> Chain:
    """A chain whose pipeline lies in a work tree under git, with data and an environment in it that git does not
    ignore."""
    make_inputs(directory)
    for name in ("sft.jsonl", "prefs.jsonl"):
        (directory / name).unlink()  # not of these stages
    write(directory / "own_toy.py", BACK_END)
    write(directory / "pkg" / "mine.py", "VALUE = 1\n")
    write(directory / "env" / "pyvenv.cfg", "")
    write(directory / "env" / "lib" / "x.py", "")
    write(directory / "conda" / "conda-meta" / "history", "")
    write(directory / "conda" / "bin" / "python", "")
    write(directory / ".gitignore", "workspace/\nstate/\npipeline-*\nprofile-*\nstrace\n")
    git(directory, "init", "-q")
    git(directory, "add", "own_toy.py", "pkg", ".gitignore")
    git(directory, "commit", "-qm", "one")
    made = Chain(
        slurm, directory, stages=SHORT, settings={"cpt": {"backend": "own_toy"}}, profile={**SUBMITIT, **profile}
    )
    value = yaml.safe_load(made.pipeline.read_text())
    made.pipeline.write_text(yaml.safe_dump({**value, "code": "."}, sort_keys=False))
    made.fetch()
    return made


def taken(workspace: Workspace) -> set[str]:
    """Snapshots of users' trees; that of our packages lies beside them."""
    found = workspace.code.iterdir() if workspace.code.is_dir() else ()
    return {path.name for path in found if not (path / "overnight_job.py").exists()}


def names(path: Path) -> set[str]:
    return {str(entry.relative_to(path)) for entry in path.rglob("*") if not entry.is_dir()}


@pytest.mark.failure(41)
def test_what_is_in_the_tree_runs_committed_or_not(slurm: Slurm, tmp_path: Path) -> None:
    chain = with_code(slurm, tmp_path / "chain")
    write(chain.directory / "pkg" / "mine.py", "VALUE = 2\n")
    said = chain.overnight("submit", "--json")
    run = json.loads(said.stdout)["run"]
    write(chain.directory / "pkg" / "mine.py", "VALUE = 'edited after submit'\n")
    assert "not committed as they are" in said.stderr
    chain.wait()
    chain.assert_done_once(run)
    (own,) = chain.events("cpt", "own")
    snapshot = chain.workspace.run(run).user_code
    assert own["value"] == 2, "as it was at submit, committed or not"
    assert Path(own["file"]).resolve().is_relative_to(snapshot.resolve())
    assert names(snapshot.resolve()) == {"own_toy.py", "pkg/mine.py", ".gitignore"}, (
        "no data, no model, no environment of Python, nothing of git"
    )
    plan = json.loads(chain.workspace.run(run).plan.read_text())
    assert plan["code"] == chain.journal(run)[0]["code"] == snapshot.resolve().name
    assert taken(chain.workspace) == {plan["code"]}

    # The same tree once more: the snapshot is shared, and so are the results.
    write(chain.directory / "pkg" / "mine.py", "VALUE = 2\n")
    again = chain.submit()
    assert {event["event"] for event in chain.journal(again)} >= {"reused"}
    assert taken(chain.workspace) == {plan["code"]}
    # Other code is another back end: its stage is made anew, what is before it is not.
    write(chain.directory / "pkg" / "mine.py", "VALUE = 3\n")
    other = chain.submit()
    actions = {event.get("stage"): event["event"] for event in chain.journal(other) if event["event"] != "created"}
    assert actions["corpus"] == "reused"
    assert actions["cpt"] == "submitted"
    chain.wait()
    assert [event["value"] for event in chain.events("cpt", "own")] == [2, 3]
    assert len(taken(chain.workspace)) == 2


def test_a_back_end_that_is_none_is_refused_with_its_file(slurm: Slurm, tmp_path: Path) -> None:
    chain = with_code(slurm, tmp_path / "chain")
    write(chain.directory / "own_toy.py", "NAME = 'own_toy'\n")
    assert "own_toy.py is not a back end" in chain.overnight("submit", code=2).stderr
    (chain.directory / "own_toy.py").unlink()
    assert "no back end 'own_toy'" in chain.overnight("plan", code=2).stderr
    assert not chain.runs()
    # A name must not bring in what is installed under it.
    value = yaml.safe_load(chain.pipeline.read_text())
    value["stages"]["cpt"]["backend"] = "antigravity"
    chain.pipeline.write_text(yaml.safe_dump(value))
    assert "no back end 'antigravity'" in chain.overnight("plan", code=2).stderr


def gc(chain: Chain, *before: str) -> dict[str, Any]:
    process = subprocess.Popen(
        [*before, *chain.command("gc", "--keep-days", "0", "--json")],
        cwd=chain.directory,
        env=chain.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    found: dict[str, Any] = json.loads(ended(process).stdout)
    return found


def unneeded(chain: Chain, numbers: Collection[int]) -> None:
    """Snapshots that no run names, as of runs whose directories were removed."""
    from launch.inputs import user_code

    for number in numbers:
        tree = chain.directory.parent / "trees" / str(number)
        write(tree / "a.py", f"VALUE = {number}\n")
        user_code.take(tree, chain.workspace)


def test_gc_beside_a_live_queue(slurm: Slurm, tmp_path: Path) -> None:
    """What a queued job needs stays, whatever gc is killed at; two at once get in nobody's way."""
    chain = with_code(slurm, tmp_path / "chain", sbatch={"hold": True})
    run = chain.submit()
    (digest,) = taken(chain.workspace)
    unneeded(chain, range(8))
    removed = gc(chain)
    assert len(removed["removed"]) == 8
    assert taken(chain.workspace) == {digest}
    unneeded(chain, range(40))
    both = [chain.start("gc", "--keep-days", "0", "--json") for _ in range(2)]
    found = [json.loads(ended(process).stdout)["removed"] for process in both]
    paths = [entry["path"] for entries in found for entry in entries]
    assert len(paths) == len(set(paths)) == 40, "each thing is removed by one of them"
    assert taken(chain.workspace) == {digest}
    if tracing.works():
        unneeded(chain, range(4))
        log = tmp_path / "strace"
        gc(chain, *tracing.recording(log))
        calls = [call for call in tracing.recorded(log) if "/code/" in call.text and call.certain]
        for call in tracing.sample(calls, 6):
            unneeded(chain, range(4))
            killed = ended(chain.start("gc", "--keep-days", "0", "--json", before=tracing.killing(call)), code=None)
            assert killed.returncode in (-signal.SIGKILL, 0), killed
            assert digest in taken(chain.workspace), f"killed at {call}"
        gc(chain)
    # The worst moment: moved aside because no run named it, and killed before the run that came was seen.
    (chain.workspace.code / digest).rename(chain.workspace.code / f"gc-abc-{digest}")
    gc(chain)
    assert digest in taken(chain.workspace)
    chain.release()
    chain.wait()
    chain.assert_done_once(run)
