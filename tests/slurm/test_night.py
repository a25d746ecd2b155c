"""A real night with requeues and gates: every number of its report, counted again by code that knows nothing of it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from jobs.core import verdict
from jobs.core.verdict import FailureClass
from tests.support import night, raw, recount, recount_measured
from tests.support.slurm import Slurm

pytestmark = pytest.mark.slurm


def test_the_counter_knows_nothing_of_the_report() -> None:
    own = {one.__name__: one for one in (raw, recount, recount_measured)}
    for module in own.values():
        tree = ast.parse(Path(str(module.__file__)).read_text())
        named = {str(one.module) for one in ast.walk(tree) if isinstance(one, ast.ImportFrom)}
        named |= {alias.name for one in ast.walk(tree) if isinstance(one, ast.Import) for alias in one.names}
        assert {name for name in named - own.keys() if name.partition(".")[0] not in sys.stdlib_module_names} <= {
            "yaml", "scipy",
        }, module  # fmt: skip


@pytest.mark.parametrize("model", [False, pytest.param(True, marks=[pytest.mark.full, pytest.mark.train])])
def test_every_number_of_the_report_is_in_the_files(slurm: Slurm, tmp_path: Path, model: bool) -> None:
    """``model``: a language model, whose gates are judged; else a model of characters."""
    if model:
        pytest.importorskip("trl", reason="the train extra is not installed")
    made = night.chain(slurm, tmp_path / "work", night.SETTINGS if model else night.PRETENDED)
    run = night.have(made)
    assert [len(made.claims(run, name)) for name in ("cpt", "sft", "final")] == [2, 2, 1], made.story(run, "sft")
    assert verdict.all_of(made.stage(run, "cpt"))[0].failure is FailureClass.KILLED
    report = recount.reported(made.workspace.root, run, made.environment)
    rows = recount.compare(made.workspace.run(run).root, report)
    wrong = [row for row in rows if not row.agrees]
    assert not wrong, "\n".join(recount.lines(wrong))
    assert len(rows) > 180
    # What makes it a night: work made again, a price, with a model a gate passed and one missed.
    told = {row.path: row.reported for row in rows}
    assert told["night.stages.cpt.seconds.made again"]
    assert told["night.cost"]
    verdicts = {one["metric"]: one["verdict"] for one in report["results"] if one["gate"]}
    assert verdicts == ({"perplexity": "passed", "accuracy": "missed"} if model else {})
    # A number that is not that of the files is found.
    report["stages"][3]["elapsed"] += 0.01
    report["results"][-1]["now"]["low"] -= 0.5
    found = {row.path.rpartition(".")[2] for row in recount.compare(made.workspace.run(run).root, report)
             if not row.agrees}  # fmt: skip
    assert found == {"elapsed", "low"}
