"""A server that an evaluation starts: its keys, and what is refused before the night, with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.base.errors import InputError
from launch.config import references
from launch.config.pipeline_file import PipelineFile, read_pipeline

PIPELINE = """\
name: served
model: {base: ./base}
stages:
  rows: {kind: instructions, from: ./rows.jsonl}
  final:
    kind: evaluate
    checkpoint: base
    tasks: {style: {measure: {exact: {}}, data: rows}}
    engine:
      server:
        command: [/v/bin/python, "{checkpoint}", "--port={port}", '{"a": 1}']
        ready: 60
      model: mine
"""


@pytest.fixture(autouse=True)
def _back_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "backends", lambda: ["toy", "trl"])


def load(directory: Path, text: str = PIPELINE) -> PipelineFile:
    (directory / "p.yaml").write_text(text)
    return read_pipeline(directory / "p.yaml")


def test_the_settings_of_the_job(tmp_path: Path) -> None:
    found = load(tmp_path).pipeline.stages["final"].settings()
    assert "server" not in found
    assert [*found["command"]] == ["/v/bin/python", "{checkpoint}", "--port={port}", '{"a": 1}']
    assert (found["ready"], found["model"]) == (60, "mine")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "--port={port}",
            "{port}{home}",
            "p.yaml:11:50: stages.final.engine.server.command[2]: {home} is not a known placeholder",
        ),
        ("--port={port}", "--port", "p.yaml:11:18: stages.final.engine.server.command: no part has {port}"),
        ("ready: 60", "reddy: 60", "nearest: ready"),
        ("ready: 60", "ready: 0", "must be greater than 0"),
        ("    checkpoint: base\n", "", "is missing: write what is measured"),
        ("model: mine", "key: TOKEN", "is for a server that is there"),
        ("command: [/v/bin/python, ", "command: [7, ", "quote this value"),
    ],
)
def test_what_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in PIPELINE
    with pytest.raises(InputError) as caught:
        load(tmp_path, PIPELINE.replace(old, new))
    assert said in str(caught.value)


def test_an_address_is_told_apart_from_a_command(tmp_path: Path) -> None:
    head = PIPELINE.partition("    engine:")[0].replace("    checkpoint: base\n", "")
    with pytest.raises(InputError) as caught:
        load(tmp_path, f"{head}    engine: {{server: localhost, model: m}}\n")
    assert "write http://HOST:PORT/v1" in str(caught.value)
    assert "expected a mapping" not in str(caught.value)


def test_a_curve_has_a_model_of_its_own(tmp_path: Path) -> None:
    stages = "  cpt: {kind: cpt, checkpoint: base, data: texts, steps: 2, lr: 0.1, save_every: 1}\n  texts: {kind: corpus, from: x}\n"
    text = PIPELINE.replace("kind: evaluate\n    checkpoint: base", "kind: curve\n    checkpoints: cpt") + stages
    with pytest.raises(InputError, match="is for a stage of kind evaluate"):
        load(tmp_path, text)
