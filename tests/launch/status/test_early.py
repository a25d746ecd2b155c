"""A stage that stopped early on purpose is sealed, and every command says so; validation decides the fingerprint where
something follows from it."""

from __future__ import annotations

from pathlib import Path

from tests.support.toy_chain import Chain

STAGES = """\
  pairs: {kind: instructions, from: ./sft.jsonl}
  sft: {kind: sft, backend: toy, checkpoint: base, data: pairs, steps: 40, lr: 1.0, batch_size: 8%s}
"""
EARLY = ", validate_every: 4, early_stopping: {patience: 2, min_change: 1.0, min_steps: 10}"


def fingerprint(chain: Chain, more: str) -> str:
    chain.write(STAGES % more)
    return str(chain.plan()["sft"]["fingerprint"])


def test_an_early_end_is_sealed_and_told(tmp_path: Path) -> None:
    chain = Chain.make(tmp_path, STAGES % EARLY)
    chain.fetch()
    notes = chain.overnight("plan", str(chain.pipeline), "--cluster", "local").stdout
    assert "stage sft: may stop early; its steps and its time are the most that it takes" in notes
    chain.start()
    sealed = chain.seal("sft")
    assert sealed.step == 12
    assert sealed.metrics["stopped_early"]["of"] == 40
    assert sealed.metrics["validation_loss"] >= sealed.metrics["best_validation_loss"]
    text = "sealed (stopped early at step 12 of 40)"
    assert text in chain.overnight("status").stdout
    assert text in chain.overnight("plan", str(chain.pipeline), "--cluster", "local").stdout


def test_what_validation_decides_is_in_the_fingerprint(tmp_path: Path) -> None:
    chain = Chain.make(tmp_path)
    chain.fetch()
    plain = fingerprint(chain, "")
    assert fingerprint(chain, ", validate_every: 4") == plain
    assert fingerprint(chain, ", validate_every: 4, select: last") == plain
    others = [EARLY, EARLY.replace("4", "5"), EARLY.replace("patience: 2", "patience: 3")]
    others += [f", validate_every: {every}, select: best" for every in (4, 5)]
    assert len({plain, *(fingerprint(chain, other) for other in others)}) == 6
