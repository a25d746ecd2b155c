"""The schemas of ``overnight schema``: what they let through and refuse, beside our reader; each key has its words."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from jobs.core import results
from launch.base.errors import InputError
from launch.cli import main
from launch.config import data_settings
from launch.config.document.reader import read
from launch.config.pipeline_file import read_pipeline
from launch.config.profile_file import read_profile
from launch.config.schema import files, reference
from launch.config.schema.pipeline_words import PIPELINE_WORDS
from launch.config.schema.profile_words import PROFILE_WORDS, SECTION_WORDS
from tests.launch.config.test_profile_docs import PAGE, rows_of
from tests.support import commands

ROOT = Path(__file__).parents[3]
PIPELINES = sorted((ROOT / "pipelines").glob("*.yaml"))
PROFILES = [*sorted((ROOT / "cluster_profiles").glob("*.yaml")), *sorted((ROOT / "tests/sites/users").glob("*.yaml"))]


def of_pipelines(words: Callable[[str], str] = files.pipeline_word) -> dict[str, Any]:
    return files.of_pipeline(data_settings.json_schemas(words))


@pytest.fixture(scope="module")
def pipelines() -> Draft202012Validator:
    schema = of_pipelines()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.fixture(scope="module")
def profiles() -> Draft202012Validator:
    schema = files.of_profile()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def faults(validator: Draft202012Validator, path: Path) -> list[str]:
    return [f"{one.json_path}: {one.message}" for one in validator.iter_errors(read(path).data)]


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_shipped_pipelines_are_valid(path: Path, pipelines: Draft202012Validator) -> None:
    assert faults(pipelines, path) == []


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_shipped_profiles_are_valid(path: Path, profiles: Draft202012Validator) -> None:
    assert faults(profiles, path) == []


def test_every_form_that_the_reader_takes_is_valid(tmp_path: Path, pipelines: Draft202012Validator) -> None:
    path = tmp_path / "forms.yaml"
    path.write_text(
        """\
name: forms
model: {base: "hf:ORG/NAME@main"}
code: ./mine
secrets: [API_KEY]
sources: {mmlu: {type: benchmark, from: ./rows, sets: {all: a.jsonl}}}
resources: {training: {nodes: 2}, cpt: {time: 4:00:00}}
cluster: {gpu_request: gres, sbatch: {exclusive: true, hint: null, comment: x}, lead: "5:00"}
stages:
  corpus: {kind: corpus, from: ./a.txt, prepare: {quality: false, near_duplicates: null, replay: [{path: ./b, share: 0.1}]}}
  pairs: {kind: instructions, from: ./a.jsonl, split: {names: {train: [x], test: y}}, prepare: {answers: last, tokenizer: base}}
  before: {kind: evaluate, checkpoint: base, tasks: [perplexity, answers]}
  cpt: {kind: cpt, backend: my_backend, checkpoint: base, data: corpus, epochs: 1.5, lr: 1e-5, save_every: 10, time: "90",
        validate_every: 5, early_stopping: {patience: 2}, select: best, options: {anything: [1]}}
  line: {kind: curve, checkpoints: cpt, tasks: {perplexity: null}}
  best: {kind: choose, from: cpt, by: {perplexity: lower}, subject_to: {perplexity: {may_rise: 5%}}}
  after:
    kind: evaluate
    checkpoint: best
    compare_to: before
    tasks:
      suite: [forgetting]
      perplexity:
      spanish: {task: translation, max_new_tokens: 8}
      own: {measure: {code: "mine:score", kl: null, numeric: {take: first}}}
      mmlu: {harness: mmlu, benchmark: mmlu, chat: false}
      pairs: {task: answers}
      unsafe: {safety: refusal, benchmark: mmlu, chat: true, language: [en, ko]}
    gate: {perplexity: {may_rise: 0.1, tier: advisory}, pairs.answer_loss: {at_most: 3}}
""",
        encoding="utf-8",
    )
    data_settings.checked(read_pipeline(path))
    assert faults(pipelines, path) == []


GOOD = """\
name: good
model: {base: ./base}
stages:
  corpus: {kind: corpus, from: ./a.txt, prepare: {exact_duplicates: true}}
  cpt: {kind: cpt, checkpoint: base, data: corpus, steps: 4, lr: 1e-5, time: "4:00:00"}
  final: {kind: evaluate, checkpoint: cpt, tasks: {perplexity: {data: corpus}}, gate: {perplexity: {at_most: 9}}}
"""
WRONG = {
    "unknown key at the top": ("name: good", "name: good\nsede: 3"),
    "unknown key of a stage": ("steps: 4", "steps: 4, learning_rate: 1"),
    "unknown key of prepare": ("exact_duplicates", "exact_dups"),
    "unknown key of a task": ("{data: corpus}", "{dta: corpus}"),
    "unknown key of a gate": ("at_most", "atmost"),
    "unknown kind": ("kind: cpt", "kind: cpd"),
    "unknown task": ("{perplexity: {data", "{perplexiti: {data"),
    "unknown back end": ("checkpoint: base,", "backend: torl, checkpoint: base,"),
    "text for a number": ("steps: 4", "steps: four"),
    "number for text": ("name: good", "name: 12"),
    "number for a time": ('"4:00:00"', "90"),
    "no time": ('"4:00:00"', '"4 hours"'),
    "text for true": ("exact_duplicates: true", 'exact_duplicates: "yes"'),
    "list for a mapping": ("{at_most: 9}", "[9]"),
    "fraction for a whole number": ("steps: 4", "steps: 4.5"),
    "below the bound": ("steps: 4", "steps: 0"),
    "at the open bound": ("lr: 1e-5", "lr: 0"),
    "none of the choices": ("steps: 4", "steps: 4, schedule: sinus"),
    "share of one": ("from: ./a.txt", "from: ./a.txt, split: {test: 1}"),
    "required key": ("lr: 1e-5, ", ""),
    "name with a capital": ("  cpt: {", "  CPT: {"),
    "base without a version": ("./base}", '"pypi:thing"}'),
    "key of another kind": ("steps: 4", "steps: 4, beta: 0.1"),
    "profile key below cluster": ("name: good", "name: good\ncluster: {executor: local}"),
}  # fmt: skip


def test_the_good_pipeline_is_good(tmp_path: Path, pipelines: Draft202012Validator) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD, encoding="utf-8")
    assert faults(pipelines, path) == []
    data_settings.checked(read_pipeline(path))


def read_as_a_command_does(path: Path) -> None:
    found = data_settings.checked(read_pipeline(path))
    read_profile(ROOT / "cluster_profiles" / "local.yaml").with_pipeline(found.data, found.positions)


@pytest.mark.parametrize("kind", WRONG)
def test_what_the_reader_refuses_the_schema_refuses(kind: str, tmp_path: Path, pipelines: Draft202012Validator) -> None:
    old, new = WRONG[kind]
    assert old in GOOD
    path = tmp_path / "wrong.yaml"
    path.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError) as refused:
        read_as_a_command_does(path)
    assert refused.value.where is not None
    assert faults(pipelines, path)


WRONG_PROFILES = {
    "unknown key": "partitons: {gpu: {}}",
    "unknown key below": "partitions: {gpu: {max_tme: '1:00'}}",
    "wrong type": "links: three",
    "no choice": "continuation: again",
    "out of range": "links: 0",
    "no group": "resources: {sftt: {nodes: 2}}",
    "no list": "setup: module load cuda",
    "no memory": "quota: much",
    "no submission": "submission: rolling(x)",
    "no variable": "env: {1A: x}",
}


@pytest.mark.parametrize("kind", WRONG_PROFILES)
def test_what_the_reader_of_profiles_refuses_the_schema_refuses(
    kind: str, tmp_path: Path, profiles: Draft202012Validator
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"executor: slurm\n{WRONG_PROFILES[kind]}\n", encoding="utf-8")
    with pytest.raises(InputError):
        read_profile(path)
    assert faults(profiles, path)


def test_a_profile_says_an_executor_or_what_it_extends(tmp_path: Path, profiles: Draft202012Validator) -> None:
    path = tmp_path / "mine.yaml"
    for text, valid in (("partition: x\n", False), ("extends: university\npartition: x\n", True)):
        path.write_text(text, encoding="utf-8")
        assert (faults(profiles, path) == []) is valid


def test_bounds_defaults_and_words_stand_in_the_schema() -> None:
    stages = of_pipelines()["properties"]["stages"]["additionalProperties"]["allOf"]
    dpo = next(one["then"] for one in stages if one["if"]["properties"]["kind"]["const"] == "dpo")["properties"]
    assert dpo["beta"]["exclusiveMinimum"] == 0
    assert dpo["beta"]["default"] == 0.1
    assert dpo["schedule"]["enum"] == ["constant", "linear", "cosine"]
    assert "learning rate" in dpo["lr"]["description"]


def test_every_key_has_words_and_no_words_are_left_over(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def word(path: str) -> str:
        asked.append(path)
        return "x"

    for name, make, known in (
        ("pipeline_word", lambda: of_pipelines(word), {*PIPELINE_WORDS}),
        ("profile_word", files.of_profile, {*PROFILE_WORDS, *SECTION_WORDS}),
    ):
        own = getattr(files, name)
        asked.clear()
        with monkeypatch.context() as changed:
            changed.setattr(files, name, word)
            make()
        assert [path for path in asked if not path.endswith("NAME") and not own(path)] == []
        assert known - {*asked} == set()


def test_the_words_of_profiles_are_those_of_the_page() -> None:
    assert rows_of(PAGE) == PROFILE_WORDS


def test_the_page_of_pipelines_is_up_to_date() -> None:
    page = (ROOT / "docs" / "pipeline.md").read_text(encoding="utf-8")
    assert page == "\n".join(reference.lines(of_pipelines())) + "\n", (
        "overnight schema pipeline --markdown > docs/pipeline.md"
    )


def test_what_an_evaluation_leaves_fits_the_schema_of_results(tmp_path: Path) -> None:
    compare = pytest.importorskip("jobs.evaluate.compare", exc_type=ImportError)
    settings = importlib.import_module("jobs.evaluate.settings").EvaluateSettings
    gate = {"accuracy": {"must": "rise", "tier": "advisory"}}
    wanted = settings.read({"tasks": {"preferences": {"data": "d"}}, "seed": 1, "gate": gate})
    old, new = (
        {
            "preferences": [
                {"task": "preferences", "id": str(n), "margin": 1.0 if n % share else -1.0} for n in range(40)
            ]
        }
        for share in (2, 9)
    )
    tasks = compare.as_json(compare.evaluate(new, old, wanted), {}, wanted)
    path = results.write(tmp_path, tasks, curve={"points": [{"step": 4, "tasks": tasks}]})
    schema = Draft202012Validator(files.of_results())
    found = json.loads(path.read_text())
    assert list(schema.iter_errors(found)) == []
    metric = found["tasks"]["preferences"]["metrics"]["accuracy"]
    assert {"before", "change", "gate"} <= metric.keys()
    metric["gate"]["verdict"] = "perhaps"
    del found["curve"]["points"][0]["step"]
    assert len(list(schema.iter_errors(found))) == 2


@pytest.mark.parametrize("of", ["pipeline", "profile", "results"])
def test_the_command_prints_it(of: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["schema", of]) == 0
    Draft202012Validator.check_schema(json.loads(capsys.readouterr().out))


def test_markdown_is_of_a_pipeline(tmp_path: Path) -> None:
    done = commands.overnight("schema", "profile", "--markdown", cwd=tmp_path, environment={})
    assert done.returncode == 2
    assert "docs/profiles.md" in done.stderr


def test_the_page_of_results_is_up_to_date() -> None:
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert page == "\n".join(reference.of_results(files.of_results())) + "\n", (
        "overnight schema results --markdown > docs/results.md"
    )
