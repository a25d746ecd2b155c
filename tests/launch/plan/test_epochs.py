"""``epochs:`` in place of ``steps:``, through the real commands, with the back end ``toy``."""

from __future__ import annotations

from pathlib import Path

from jobs.core import progress
from tests.support.toy_chain import Chain

STAGES = """\
  pairs: {kind: instructions, from: ./sft.jsonl, split: {validation: 0, test: 0.2}}
  sft: {kind: sft, backend: toy, checkpoint: base, data: pairs, epochs: 2, lr: 0.5, batch_size: 7}
"""


def test_steps_are_counted_and_told(tmp_path: Path) -> None:
    chain = Chain.make(tmp_path, STAGES)
    plan = ("plan", str(chain.pipeline), "--cluster", "local")
    assert "stage sft: epochs 2; its steps are counted when it starts" in chain.overnight(*plan).stdout
    assert chain.plan()["sft"]["target_step"] is None
    chain.fetch()
    chain.start()
    rows = chain.seal("pairs").metrics["train"]
    steps = -(-2 * rows // 7)
    told = chain.overnight(*plan).stdout
    assert f"stage sft: epochs 2 of {rows} rows, batch_size 7: {steps} steps" in told
    assert (7 * steps != 2 * rows) == (f"takes {7 * steps - 2 * rows} rows of one more epoch" in told)
    planned = chain.plan()["sft"]
    assert (planned["target_step"], planned["settings"]["epochs"]) == (steps, 2)
    assert "steps" not in planned["settings"]
    reports = list(progress.read(chain.stage("sft").progress))
    assert [report.step for report in reports] == list(range(1, steps + 1))
    assert {report.total for report in reports} == {steps}
    assert chain.seal("sft").step == steps


def test_both_and_neither_are_refused(tmp_path: Path) -> None:
    chain = Chain.make(tmp_path, STAGES.replace("epochs: 2", "epochs: 2, steps: 3"))
    plan = ("plan", str(chain.pipeline), "--cluster", "local")
    both = chain.overnight(*plan, check=False)
    assert "stages.sft.epochs: excludes steps (3): remove one of the two" in both.stderr
    chain.write(STAGES.replace("epochs: 2, ", ""))
    neither = chain.overnight(*plan, check=False)
    assert "stages.sft.steps: is missing: write steps, or epochs in its place" in neither.stderr
