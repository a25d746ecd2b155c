"""``overnight publish`` against a hub on this machine: private, asked once, and not past a gate unsaid."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.core import files, seal
from jobs.core.seal import SealKind
from launch.cli.main import main
from launch.runs.rundir import Run
from tests.launch.status.test_results import evaluation, number
from tests.support.made_runs import make, sealed, stage, store_of
from tests.support.upload_hub import UploadHub

pytest.importorskip("huggingface_hub")

TOKEN = "hf_verySecretToken0123456789"
CARD = "---\nlicense: mit\n---\n\n# mine\n"
OUTPUT = {
    "README.md": CARD.encode(),
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": b"first" * 100,
    "model-00002-of-00002.safetensors": b"second" * 100,
    "model.safetensors.index.json": b"{}",
}
REPO = "org/mine"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[UploadHub]:
    from huggingface_hub import constants

    with UploadHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # else it sends large files by another protocol
        yield server


def made(directory: Path, verdict: str = "passed", tier: str = "critical", output: Any = OUTPUT) -> Run:
    """A run with an evaluation whose gate has this verdict, and an export."""
    gate = {"rule": "must fall", "tier": tier, "verdict": verdict}
    final = replace(evaluation("final"), settings={"gate": {"loss": {"must": "fall", "tier": tier}}})
    out = replace(stage("out", resumable=False, executor="local"), kind="convert", settings={"export": {}})
    run = make(directory / "ws", final, out, profile={"executor": "local"})
    sealed(run, "final", SealKind.EVALUATION, {"held": {"loss": {**number(2.0), "gate": gate}}})
    store = store_of(run, "out")
    store.output.mkdir(parents=True)
    for name, content in output.items():
        (store.output / name).write_bytes(content)
    print_of = run.plan().stage("out").fingerprint
    seal.seal_directory(store.output, store.seal, kind=SealKind.CHECKPOINT, format="hf", fingerprint=print_of)
    return run


def publish(directory: Path, run: Run, *more: str, code: int = 0, to: str = f"hf:{REPO}") -> None:
    assert main(["publish", run.id, "--to", to, "--workspace", str(directory / "ws"), *more]) == code


def test_everything_arrives_in_a_private_repository(
    hub: UploadHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made(tmp_path)
    publish(tmp_path, run, "--yes", "--json")
    out, error = capsys.readouterr()
    said = json.loads(out)
    assert (said["repo"], said["private"], said["files"], said["despite"]) == (REPO, True, 5, [])
    assert hub.private == {REPO: True}
    assert hub.commits[REPO][said["commit"]] == OUTPUT
    assert hub.messages == [f"Overnight, run {run.id}, stage out"]
    assert f"Bearer {TOKEN}" in hub.tokens
    assert TOKEN not in out + error
    # Once more, as after a kill: nothing large goes over again.
    before = list(hub.uploads)
    publish(tmp_path, run, "--yes")
    assert hub.uploads == before
    assert len(before) == 2


def test_the_calls_are_those_of_a_private_repository_and_one_commit(hub: UploadHub, tmp_path: Path) -> None:
    """By huggingface_hub's own client: looked up, made private, large files first, then all names in one commit."""
    run = made(tmp_path)
    publish(tmp_path, run, "--yes")
    (asked,) = hub.created
    assert (asked["organization"], asked["name"]) == ("org", "mine")
    assert asked.get("visibility") == "private" or asked.get("private") is True
    changes = [path for verb, path, _ in hub.requests if verb in ("POST", "PUT")]
    order = [next(number for number, path in enumerate(changes) if part in path)
             for part in ("repos/create", "preupload/main", "lfs/objects/batch", "/blob/", "commit/main")]  # fmt: skip
    assert order == sorted(order)
    assert sum("/commit/" in path for path in changes) == 1


def broken_off(hub: UploadHub, then: Callable[[], None]) -> None:
    """The first large file is taken, and at the second one ``then`` happens."""
    taken: list[int] = []

    def on_blob() -> bool:
        taken.append(1)
        if len(taken) == 2:
            then()
        return len(taken) != 2

    hub.on_blob = on_blob


@pytest.mark.parametrize("how", ["killed", "refused"])
def test_one_that_broke_off_half_way_goes_on(hub: UploadHub, tmp_path: Path, how: str) -> None:
    """Nobody sees half of it: there is no commit; what has arrived does not go over again."""
    run = made(tmp_path)
    words = ["publish", run.id, "--to", f"hf:{REPO}", "--workspace", str(tmp_path / "ws"), "--yes"]
    # One file after the other, so that one has arrived.
    program = ("import sys; from huggingface_hub import _commit_api as api; api.UPLOAD_BATCH_MAX_NUM_FILES = 1; "
               "from launch.cli.main import main; sys.exit(main(sys.argv[1:]))")  # fmt: skip
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", program, *words], env=environment, stderr=subprocess.PIPE)
    broken_off(hub, process.kill if how == "killed" else lambda: None)
    _, error = process.communicate(timeout=120)
    assert process.returncode == (-signal.SIGKILL if how == "killed" else 4), error.decode()
    assert TOKEN not in error.decode()
    assert hub.heads.get(REPO, {}) == {}
    assert len(hub.uploads) == 1
    before = list(hub.uploads)
    hub.on_blob = lambda: True
    publish(tmp_path, run, "--yes")
    assert hub.uploads[:1] == before
    assert len(hub.uploads) == len(set(hub.uploads)) == 2
    assert hub.commits[REPO][hub.heads[REPO]["main"]] == OUTPUT


def test_weights_of_before_go_and_what_is_the_users_stays(
    hub: UploadHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.private[REPO] = True
    hub.push(REPO, {"model.safetensors": b"old", "old-f16.gguf": b"old", "notes.txt": b"mine"})
    publish(tmp_path, made(tmp_path), "--yes")
    assert "removed there: model.safetensors, old-f16.gguf" in capsys.readouterr().out
    assert hub.commits[REPO][hub.heads[REPO]["main"]] == {**OUTPUT, "notes.txt": b"mine"}


def test_a_public_repository_has_to_be_meant(
    hub: UploadHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.private[REPO] = False
    first = hub.push(REPO, {".gitattributes": b""})
    run = made(tmp_path)
    publish(tmp_path, run, "--yes", code=2)
    assert f"{REPO} is public on {hub.url}" in capsys.readouterr().err
    assert hub.heads[REPO]["main"] == first
    publish(tmp_path, run, "--yes", "--public")
    assert "org/mine, public, commit" in capsys.readouterr().out


def test_a_hub_that_makes_it_public_gets_nothing(
    hub: UploadHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.opens = True
    publish(tmp_path, made(tmp_path), "--yes", code=2)
    assert f"{REPO} is public on {hub.url}" in capsys.readouterr().err
    assert not hub.commits
    assert not hub.uploads


@pytest.mark.parametrize("verdict", ["missed", "undecided"])
def test_a_gate_that_was_not_passed_stops_it_or_stands_in_the_card(
    hub: UploadHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], verdict: str
) -> None:
    run = made(tmp_path, verdict)
    publish(tmp_path, run, "--yes", code=2)
    error = capsys.readouterr().err
    assert f"final.held.loss: must fall: {verdict}" in error
    assert "--despite GATE" in error
    publish(tmp_path, run, "--yes", "--despite", "final.held.los", code=2)
    assert "nearest: final.held.loss" in capsys.readouterr().err
    assert not hub.requests
    publish(tmp_path, run, "--yes", "--despite", "final.held.loss")
    card = hub.commits[REPO][hub.heads[REPO]["main"]]["README.md"].decode()
    assert card.startswith(CARD.rstrip())
    assert card.endswith(f"not passed\n\n- final.held.loss: must fall: {verdict}\n")
    # The sealed one is as it was.
    seal.verify(store_of(run, "out").output, store_of(run, "out").seal)


def test_an_advisory_gate_and_one_that_was_passed_stop_nothing(hub: UploadHub, tmp_path: Path) -> None:
    run = made(tmp_path, "missed", tier="advisory")
    publish(tmp_path, run, "--yes")
    publish(tmp_path, run, "--yes", "--despite", "final.held.loss", code=2)


def test_a_gate_that_nobody_judged_is_not_passed(
    hub: UploadHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made(tmp_path)
    files.take_away(store_of(run, "final").root)
    publish(tmp_path, run, "--yes", code=2)
    assert "final.loss: not judged" in capsys.readouterr().err


def test_it_asks_once_and_no_is_no(
    hub: UploadHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(tmp_path)
    publish(tmp_path, run, code=2)
    assert "there is nobody to ask" in capsys.readouterr().err
    asked: list[str] = []

    def answer(text: str) -> str:
        asked.append(text)
        return "no" if len(asked) == 1 else "y"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", answer)
    publish(tmp_path, run, code=1)
    assert not hub.requests
    publish(tmp_path, run)
    assert len(asked) == 2
    assert f"5 files, 0.0 MB of stage out to {REPO} (private) on {hub.url}" in asked[0]


def test_what_is_damaged_or_missing_is_not_published(
    hub: UploadHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made(tmp_path)
    path = store_of(run, "out").output / "model-00001-of-00002.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"x")
    publish(tmp_path, run, "--yes", code=2)
    assert "model-00001-of-00002.safetensors" in capsys.readouterr().err
    path.write_bytes(whole)
    for to in ("mine", "hf:mine", "hf:a/b/c", "hf:../x", "hf:a/../b", "s3:a/b", "hf:a/b\n"):
        publish(tmp_path, run, "--yes", code=2, to=to)
        assert "write hf:ORG/NAME" in capsys.readouterr().err
    publish(tmp_path, run, "--yes", "--stage", "outt", code=2)
    assert "nearest: out" in capsys.readouterr().err
    store_of(run, "out").seal.unlink()
    publish(tmp_path, run, "--yes", code=2)
    assert "is not sealed" in capsys.readouterr().err
    assert not hub.requests
    other = make(tmp_path / "ws", stage("cpt"))
    publish(tmp_path, other, "--yes", code=2)
    assert "the run has no export" in capsys.readouterr().err


@pytest.mark.parametrize("code", [401, 403, 500])
def test_what_the_hub_says_is_told_without_the_token(
    hub: UploadHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    hub.refuse = code
    publish(tmp_path, made(tmp_path), "--yes", code=4)
    out, error = capsys.readouterr()
    assert TOKEN not in out + error
    assert "the hub cannot be reached or broke off" in error
    assert str(code) in error


def test_a_hub_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    with UploadHub() as server:
        url = server.url
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    publish(tmp_path, made(tmp_path), "--yes", code=4)
    assert TOKEN not in capsys.readouterr().err
