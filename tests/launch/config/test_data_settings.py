"""``prepare`` in a pipeline: checked with its line before anything runs, and the user's raw files through a chain."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

pytest.importorskip("tests.support.prepared", exc_type=ImportError)

from data_prep.common.settings import Settings, SplitSettings
from launch.base.errors import InputError
from launch.cli.main import main
from launch.config.pipeline_file import read_pipeline
from tests.support.prepared import document, write_lines, write_tokenizer

BASE = Path(__file__).parents[3] / "pipelines/first_night/base"
PIPELINE = """\
name: prepared
model: {base: %s}
stages:
  corpus:
    kind: corpus
    from: ./raw
    prepare: {tokenizer: ./tokenizer, evaluation: [./quiz.jsonl], on_error: skip, document_chars: 400}
  pairs: {kind: instructions, from: ./pairs.jsonl, prepare: {template: "Q: {input} A: {output}"}}
  prefs: {kind: preferences, from: ./prefs.jsonl, prepare: {compare_with: [./pairs.jsonl]}}
  cpt: {kind: cpt, backend: toy, checkpoint: base, data: corpus, steps: 3, lr: 1.0, batch_size: 4}
  sft: {kind: sft, backend: toy, checkpoint: cpt, data: pairs, steps: 3, lr: 0.5, batch_size: 4}
  dpo: {kind: dpo, backend: toy, checkpoint: sft, data: prefs, steps: 3, lr: 0.5, batch_size: 4, beta: 0.1}
"""


def user_files(folder: Path) -> Path:
    (folder / "raw").mkdir()
    (folder / "raw/book.txt").write_text("\n\n".join(document(seed, 30) for seed in range(80)))
    write_lines(
        folder / "raw/rows.jsonl", [{"text": document(seed + 500, 60)} for seed in range(40)] + [{"text": None}]
    )
    write_lines(folder / "quiz.jsonl", [{"question": document(900, 30)}])
    pairs = [
        {"messages": [{"role": "user", "content": f"ask {n}"}, {"role": "assistant", "content": document(n, 5)}]}
        for n in range(150)
    ]
    write_lines(folder / "pairs.jsonl", pairs)
    write_lines(
        folder / "prefs.jsonl", [{"prompt": f"p {n}", "chosen": document(n, 5), "rejected": "no"} for n in range(150)]
    )
    write_tokenizer(folder / "tokenizer")
    (folder / "pipeline.yaml").write_text(PIPELINE % BASE)
    return folder / "pipeline.yaml"


def test_raw_files_go_through_a_chain(tmp_path: Path) -> None:
    pipeline = user_files(tmp_path)
    assert main(["fetch", str(pipeline), "--cluster", "local", "--workspace", str(tmp_path / "ws")]) == 0
    assert main(["run", str(pipeline), "--cluster", "local", "--workspace", str(tmp_path / "ws")]) == 0
    cards = {}
    for path in (tmp_path / "ws/store").glob("*/output/card.json"):
        found = json.loads(path.read_text())
        assert found["read"] == found["kept"] + sum(found["dropped"].values())
        cards[found["kind"]] = path.parent
    assert set(cards) == {"corpus", "instructions", "preferences"}
    assert (cards["corpus"] / "megatron/train_text_document.idx").stat().st_size > 34
    assert json.loads((cards["corpus"] / "card.json").read_text())["dropped"]["null_field"] == 1
    row = json.loads((cards["instructions"] / "train.jsonl").read_text().splitlines()[0])
    assert row["prompt"].startswith("ask ")
    encoding = json.loads((cards["instructions"] / "encoding.json").read_text())
    assert encoding["text_template"] == "Q: {input} A: {output}"


BASED = """\
name: prepared
model: {base: ./model}
stages:
  corpus: {kind: corpus, from: ./raw, prepare: {tokenizer: base, on_error: skip, document_chars: 400}}
  pairs: {kind: instructions, from: ./pairs.jsonl, prepare: {tokenizer: base, template: model, max_tokens: 500}}
"""


def test_the_tokenizer_of_the_base_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = user_files(tmp_path)
    pipeline.write_text(BASED)
    model = write_tokenizer(tmp_path / "model")
    (model / "config.json").write_text('{"model_type": "llama"}')
    template = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    (model / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "chat_template": template}))
    rest = ("--cluster", "local", "--workspace", str(tmp_path / "ws"))
    assert main(["run", str(pipeline), *rest]) != 0
    assert "overnight fetch" in capsys.readouterr().err
    assert main(["fetch", str(pipeline), *rest]) == 0
    assert main(["run", str(pipeline), *rest]) == 0
    made = {
        json.loads(path.read_text())["kind"]: path.parent for path in (tmp_path / "ws/store").glob("*/output/card.json")
    }
    assert (made["corpus"] / "megatron/train_text_document.idx").stat().st_size > 34
    digest = hashlib.sha256((model / "tokenizer.json").read_bytes()).hexdigest()
    assert json.loads((made["corpus"] / "card.json").read_text())["tokenizer"]["digest"] == digest
    row = json.loads((made["instructions"] / "train.jsonl").read_text().splitlines()[0])
    assert row["messages"][0]["content"].startswith("ask ")
    assert json.loads((made["instructions"] / "card.json").read_text())["tokenizer"]["digest"] == digest
    before = fingerprints(pipeline, rest, capsys)
    (model / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<s>", "chat_template": template}))
    assert main(["fetch", str(pipeline), *rest]) == 0
    after = fingerprints(pipeline, rest, capsys)
    assert not set(before) & set(after)  # another end token is another result


def fingerprints(pipeline: Path, rest: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert main(["plan", str(pipeline), *rest, "--json"]) == 0
    return [stage["fingerprint"] for stage in json.loads(capsys.readouterr().out)["stages"]]


@pytest.mark.parametrize(
    ("stage", "setting"),
    [("corpus", "special_tokens: allow"), ("pairs", "special_tokens: refuse"), ("pairs", "template_date: 2025-12-24")],
)
def test_what_decides_the_ids_is_in_the_fingerprint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str, setting: str
) -> None:
    pipeline = user_files(tmp_path)
    rest = ("--cluster", "local", "--workspace", str(tmp_path / "ws"))

    def planned() -> dict[str, str]:
        capsys.readouterr()
        assert main(["plan", str(pipeline), *rest, "--json"]) == 0
        return {one["name"]: one["fingerprint"] for one in json.loads(capsys.readouterr().out)["stages"]}

    before = planned()
    start = {"corpus": "prepare: {tokenizer", "pairs": "prepare: {template"}[stage]
    changed = start.replace("{", f"{{{setting}, ")
    pipeline.write_text(pipeline.read_text().replace(start, changed))
    after = planned()
    differ = {name for name in before if before[name] != after[name]}
    below = {"corpus": {"corpus", "cpt", "sft", "dpo"}, "pairs": {"pairs", "sft", "dpo"}}
    assert differ == below[stage]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [("on_error: skp", "must be fail or skip"), ("tokeniser: x", "unknown; known: "), ("pack: 9", "unknown; known: ")],
)
def test_a_wrong_setting_has_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str, says: str
) -> None:
    pipeline = user_files(tmp_path)
    pipeline.write_text(pipeline.read_text().replace("on_error: skip", wrong))
    assert main(["plan", str(pipeline), "--cluster", "local", "--workspace", str(tmp_path / "ws")]) == 2
    shown = capsys.readouterr().err
    assert f"{pipeline}:7:" in shown
    assert says in shown


SPLIT = """\
name: p
model: {base: ./model}
stages:
  pairs:
    kind: instructions
    from: ./rows
    split: {validation: 0.1, existing: pool, config: en, names: {train: train_sft, test: [a, b]}, group: file}
  prefs: {kind: preferences, from: ./rows, split: {test: 0}}
"""


def test_what_a_pipeline_says_about_splits_reaches_the_data_stage(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(SPLIT)
    pipeline = read_pipeline(tmp_path / "p.yaml").pipeline
    split = Settings.parse("instructions", pipeline.data_settings("pairs")).split
    assert split == SplitSettings(0.1, 0.15, 1, "pool", "en", {"train": ("train_sft",), "test": ("a", "b")}, "file")
    assert pipeline.data_settings("prefs")["split"] == {"validation": 0.05, "test": 0.0, "seed": 1}
    (tmp_path / "p.yaml").write_text(SPLIT.replace("pool", "pour"))
    with pytest.raises(InputError, match=r"p\.yaml:7"):
        read_pipeline(tmp_path / "p.yaml")
