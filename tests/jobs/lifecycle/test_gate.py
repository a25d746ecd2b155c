"""The file gate: every input against its seal, once a job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.core import files, seal
from jobs.core.spec import Input, StageSpec
from jobs.lifecycle import gate
from jobs.lifecycle.start import Start
from tests.file_faults.job import prepare, spec_of

FIRST = Start("100", 0, 0, "node1", ("node1",), "aaaaaa")


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StageSpec:
    """A stage with one input."""
    monkeypatch.setattr(gate, "WAIT_SECONDS", 0.1)
    store = tmp_path / f"store/dataset-{'d' * 16}"
    (store / "output").mkdir(parents=True)
    (store / "output" / "text").write_text("text")
    facts: dict[str, Any] = {"kind": seal.SealKind.DATASET, "format": "corpus", "fingerprint": "d" * 64}
    seal.seal_directory(store / "output", store / "seal.json", **facts)
    made = replace(spec_of(tmp_path), inputs={"data": Input("data", str(store), "dataset", "corpus", "d" * 64)})
    prepare(made)
    return made


def verified(spec: StageSpec) -> int:
    return sum(line["event"] == "file_gate" for line in files.read_json_lines(spec.stage_paths.events))


def test_an_input_is_verified_once_a_job(spec: StageSpec) -> None:
    gate.check(spec, FIRST)
    gate.check(spec, replace(FIRST, restart=1))
    assert verified(spec) == 1
    gate.check(spec, replace(FIRST, job="101"))
    assert verified(spec) == 2


def test_an_input_that_was_changed_or_is_not_the_planned_one_is_refused(spec: StageSpec) -> None:
    (spec.inputs["data"].output / "text").write_text("TEXT")
    with pytest.raises(seal.SealBroken, match="content differs from its seal"):
        gate.check(spec, FIRST)
    other = replace(spec.inputs["data"], fingerprint="e" * 64)
    with pytest.raises(seal.SealBroken, match=r"is the seal of d{16}, this stage was planned on e{16}"):
        gate.check(replace(spec, inputs={"data": other}), FIRST)
    assert verified(spec) == 0
