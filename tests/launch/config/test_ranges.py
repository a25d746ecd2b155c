"""Learning rates and betas that are probably a slip are reported with their line, in every pipeline, and may be left."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.cli.main import main
from launch.config import ranges
from launch.config.pipeline_file import read_pipeline

PIPELINE = """\
name: p
model: {base: ./tiny}
stages:
  corpus: {kind: corpus, from: raw/}
  pairs: {kind: instructions, from: ./sft.jsonl}
  prefs: {kind: preferences, from: ./prefs.jsonl}
  cpt: {kind: cpt, checkpoint: base, data: corpus, steps: 4, lr: CPT}
  sft: {kind: sft, checkpoint: cpt, data: pairs, steps: 4, lr: SFT}
  dpo: {kind: dpo, checkpoint: sft, data: prefs, steps: 4, lr: DPO, beta: BETA}
"""


def written(path: Path, more: str = "", **values: str) -> Path:
    text = PIPELINE
    for name, usual in {"CPT": "1e-5", "SFT": "2e-5", "DPO": "1e-6", "BETA": "0.1"}.items():
        text = text.replace(name, values.get(name, usual))
    file = path / "p.yaml"
    file.write_text(text + more)
    return file


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("CPT", "1e-5", ""),
        ("CPT", "5e-5", ""),
        ("CPT", "9e-6", ":7: stages.cpt: lr 9e-06 is outside of 1e-05 to 5e-05"),
        ("CPT", "6e-5", ":7: stages.cpt: lr 6e-05 is outside of 1e-05 to 5e-05"),
        ("SFT", "5e-6", ""),
        ("SFT", "3e-5", ":8: stages.sft: lr 3e-05 is outside of 5e-06 to 2e-05"),
        ("DPO", "1e-5", ""),
        ("DPO", "2e-5", ":9: stages.dpo: lr 2e-05 is outside of 1e-06 to 1e-05"),
        ("BETA", "0.5", ""),
        ("BETA", "2.0", "stages.dpo: beta 2 is outside of 0.1 to 0.5, where it usually lies: the model hardly learns"),
        ("BETA", "0.01", "stages.dpo: beta 0.01 is outside of 0.1 to 0.5"),
    ],
)
def test_what_is_outside_of_its_range_is_told_with_its_line(tmp_path: Path, key: str, value: str, said: str) -> None:
    file = written(tmp_path, **{key: value})
    found = ranges.notes(read_pipeline(file))
    assert len(found) == bool(said)
    for note in found:
        place, _, text = note.partition(" ")
        assert place.rpartition(":")[0].rpartition(":")[0].startswith(str(file))
        assert said in f":{place.split(':')[1]}: {text}"
    assert ranges.notes(read_pipeline(written(tmp_path, "ranges: off\n", **{key: value}))) == []


def test_adapters_and_the_toy_take_other_rates(tmp_path: Path) -> None:
    file = written(tmp_path, SFT="1e-4")
    assert ranges.notes(read_pipeline(file, ["stages.sft.options.lora_rank=16"])) == []
    assert ranges.notes(read_pipeline(file, ["stages.sft.backend=toy"])) == []
    assert len(ranges.notes(read_pipeline(file, ["stages.sft.lr=3e-4"]))) == 1


def test_plan_tells_a_note_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.chains import make_inputs

    make_inputs(tmp_path / "work", texts=3, rows=5)
    file = written(tmp_path / "work", SFT="1e-2")
    given = ["plan", str(file), "--cluster", "local", "--workspace", str(tmp_path / "w")]
    assert main(given) == 0
    assert capsys.readouterr().out.count("stages.sft: lr 0.01 is outside of") == 1
    assert main([*given, "--sweep", "stages.cpt.lr=1e-5,2e-5,1"]) == 0
    said = capsys.readouterr().out
    assert said.count("stages.sft: lr 0.01") == 1
    assert "--set stages.cpt.lr=1: stages.cpt: lr 1 is outside of" in said
