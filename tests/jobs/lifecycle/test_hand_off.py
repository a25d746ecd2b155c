"""The hand-off: nothing but a sealed, unchanged checkpoint passes; what is unchanged is never run twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.core import progress, seal
from jobs.lifecycle import steps
from tests.support.toy_chain import ROOT, Chain

CPT = """\
  corpus: {{kind: corpus, from: ./raw, document_chars: 400}}
  cpt: {{kind: cpt, backend: toy, checkpoint: base, data: corpus, steps: 40, lr: 0.5, batch_size: 8, {}}}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A chain that has run to its end; tests that change it work on their own copy of a stage."""
    chain = Chain.make(tmp_path_factory.mktemp("chain") / "work")
    chain.fetch()
    chain.start()
    return chain


def test_every_stage_is_sealed_on_its_parents_seal(done: Chain) -> None:
    plan = done.plan()
    for name, stage in plan.items():
        sealed = done.seal(name)
        assert sealed.fingerprint == stage["fingerprint"]
        for role, parent in stage["inputs"].items():
            entry = done.workspace.entry(parent["kind"], parent["fingerprint"])
            assert sealed.parents[role] == seal.digest_of(entry.seal)
    assert done.seal("dpo").step == 12


def test_touch_runs_nothing_and_a_byte_runs_that_stage_and_those_below(done: Chain) -> None:
    path = done.directory / "sft.jsonl"
    os.utime(path)
    done.start()
    assert done.started() == set()
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"2"', b'"3"', 1))
    try:
        done.start()
        assert done.started() == {"pairs", "sft", "dpo"}
    finally:
        path.write_bytes(content)
    done.start()
    assert done.started() == set(), "the earlier result is still in the store"


def test_another_beta_reuses_cpt_and_sft(done: Chain) -> None:
    done.start("--set", "stages.dpo.beta=0.2")
    assert done.started() == {"dpo"}


def test_a_setting_that_does_not_change_the_result_runs_nothing(done: Chain) -> None:
    done.start("--set", "stages.cpt.keep_saves=5", "--set", "stages.cpt.save_every=3")
    assert done.started() == set()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _half_write(path: Path) -> None:
    """As a stage leaves it that was killed before its seal."""
    (path.parent.parent / "seal.json").unlink()


def _prologue(chain: Chain, stage: str, job: str, patience: float) -> subprocess.CompletedProcess[str]:
    """What the batch host does first, with a torch that cannot be imported, into a store entry of its own."""
    paths = chain.stage(stage, chain.first_run)
    spec = json.loads(next(paths.root.glob("attempts/*/spec.json")).read_text())
    store = chain.workspace.store / f"checkpoint-{job}"
    store.mkdir()
    own = paths.root / f"{job}.json"
    own.write_text(json.dumps({**spec, "store_dir": str(store), "attempt": "".join(filter(str.isalnum, job))}))
    code = (
        "import sys; sys.modules['torch'] = None; from jobs import __main__; from jobs.lifecycle import gate;"
        f"gate.WAIT_SECONDS = {patience}; sys.exit(__main__.main(['prologue', sys.argv[1]]))"
    )
    env = {**os.environ, "OVERNIGHT_JOB_ID": job, "OVERNIGHT_RESTART": "0", "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code, str(own)], env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("damage", [_cut, _empty, _flip, Path.unlink, _half_write])
@pytest.mark.failure(1)
def test_a_damaged_checkpoint_never_passes_the_file_gate(done: Chain, damage: Callable[[Path], None]) -> None:
    """The parent is damaged between two jobs: the child ends before its work, and says which file."""
    store = done.entry("sft")
    model = store.output / "model.json"
    content, sealed = model.read_bytes(), store.seal.read_bytes()
    name = getattr(damage, "__name__", "damage").strip("_")
    damage(model)
    try:
        result = _prologue(done, "dpo", f"job-{name}", patience=0.5)
    finally:
        model.write_bytes(content)
        store.seal.write_bytes(sealed)
    assert result.returncode == steps.Entry.FAIL, result.stderr
    verdict = json.loads(done.stage("dpo", done.first_run).verdict(f"job-{name}", 0).read_text())
    blamed = store.seal if damage is _half_write else model
    assert verdict["outcome"] == "fail"
    assert str(blamed) in verdict["evidence"]
    assert verdict["failure"] == ("missing_input" if damage in (Path.unlink, _half_write) else "broken_input")
    sound = _prologue(done, "dpo", f"job-sound-{name}", patience=0.5)
    assert sound.returncode == steps.Entry.WORK, "fixed, it passes"


def test_resume_makes_a_broken_parent_again(tmp_path: Path) -> None:
    """A bit flip at rest: the child's gate finds it, resume reads the parent in full and runs it again."""
    stages = """\
  pairs: {kind: instructions, from: ./sft.jsonl}
  prefs: {kind: preferences, from: ./prefs.jsonl}
  sft: {kind: sft, backend: toy, checkpoint: base, data: pairs, steps: 3, lr: 0.5, batch_size: 8}
  dpo: {kind: dpo, backend: toy, checkpoint: sft, data: prefs, steps: 3, lr: 0.5, batch_size: 8, beta: 0.1}
"""
    chain = Chain.make(tmp_path / "work", stages)
    chain.fetch()
    chain.start("--set", "stages.dpo.steps=2")
    model = next(path for path in chain.entry("sft").output.iterdir() if path.suffix == ".json")
    good = model.read_bytes()
    _flip(model)
    failed = chain.start(check=False)
    assert failed.returncode == 1
    assert str(model) in failed.stderr
    assert "overnight" in failed.stderr
    chain.overnight("resume")
    assert chain.started() == {"sft", "dpo"}
    assert model.read_bytes() == good, "the same bytes came out again"


@pytest.mark.failure(30)
def test_the_newest_save_is_cut_and_resume_goes_on_from_the_one_before(tmp_path: Path) -> None:
    """A running stage is killed with -9, its newest save cut: the one before is used, and it is said."""
    chain = Chain.make(tmp_path / "work", CPT.format("save_every: 5, keep_saves: 3, options: {step_seconds: 0.1}"))
    chain.fetch()
    process = subprocess.Popen(
        [sys.executable, "-m", "launch.cli", "run", str(chain.pipeline)],
        cwd=ROOT,
        env=chain.variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    store = chain.entry("cpt")
    _wait(lambda: sum((store.save(step) / "seal.json").exists() for step in store.save_steps()) >= 2)
    work = subprocess.run(
        ["pgrep", "-f", f"work {chain.stage('cpt').root}"], capture_output=True, text=True, check=True
    )
    process.kill()
    for pid in work.stdout.split():
        os.kill(int(pid), signal.SIGKILL)
    process.wait()
    newest, before = store.save_steps()[:2]
    cut = next(path for path in store.save(newest).iterdir() if path.name != "seal.json")
    _cut(cut)
    chain.overnight("resume")
    events = chain.events("cpt")
    skipped = next(line for line in events if line["event"] == "save_skipped")
    resumed = next(line for line in events if line["event"] == "resumed")
    assert skipped["step"] == newest
    assert str(cut) == skipped["path"]
    assert resumed["step"] == before
    assert chain.seal("cpt").step == 40


def _wait(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.05)


@pytest.mark.failure(34)
def test_ctrl_c_saves_and_resume_continues_bit_by_bit(tmp_path: Path) -> None:
    chain = Chain.make(tmp_path / "work", CPT.format("options: {step_seconds: 0.1}"))
    chain.fetch()
    process = subprocess.Popen(
        [sys.executable, "-m", "launch.cli", "run", str(chain.pipeline)],
        cwd=ROOT,
        env=chain.variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait(lambda: chain.workspace.runs.exists() and any(chain.workspace.runs.glob("*/stages/cpt/progress.jsonl")))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "resume continues from there" in err
    chain.overnight("resume")
    interrupted = _losses(chain)
    whole = Chain.make(tmp_path / "other", CPT.format("keep_saves: 2"))
    whole.fetch()
    whole.start()
    assert interrupted == _losses(whole)
    assert chain.seal("cpt").content == whole.seal("cpt").content


def _losses(chain: Chain) -> list[tuple[int, float]]:
    return [(found.step, found.metrics["loss"]) for found in progress.read(chain.stage("cpt").progress)]
