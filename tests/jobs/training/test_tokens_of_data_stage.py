"""The tokens of a data stage are what the trainers map: the documents that they would have made of its text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("trl")

from data_prep.tokens import indexed
from jobs.training import tokenizers, tokens
from tests.support import prepared, stages

pytestmark = pytest.mark.train


@pytest.fixture(scope="module", params=["plain", "begins", "begins and ends"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store entry of a tiny model whose tokenizer puts tokens around a text, or does not."""
    from tokenizers import Tokenizer, processors

    root = tmp_path_factory.mktemp("model")
    stages.make_model(root / "output")
    shape = {"plain": None, "begins": "<s> $A", "begins and ends": "<s> $A </s>"}[request.param]
    if shape is not None:
        path = str(root / "output" / "tokenizer.json")
        tokenizer = Tokenizer.from_file(path)
        special = [("<s>", 1), ("</s>", 2)]
        tokenizer.post_processor = processors.TemplateProcessing(single=shape, special_tokens=special)
        tokenizer.save(path)
    return root


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store entry of a corpus, prepared with the tokenizer of the model."""
    root = tmp_path_factory.mktemp("corpus")
    rows: list[Any] = [{"text": f"{prepared.document(number, 30)} Não há </s> em {number}"} for number in range(90)]
    source = prepared.write_lines(root / "in.jsonl", rows)
    prepared.make("corpus", [source], root / "output", tokenizer=str(model / "output"), shard_bytes=5_000)
    return root


def test_they_are_the_documents_of_the_text(model: Path, made: Path, tmp_path: Path) -> None:
    tokenizer = tokenizers.load(model / "output")
    texts = [json.loads(line)["text"] for line in (made / "output/train.jsonl").read_text().splitlines()]
    own = tokens.document_encoder(tokenizer, made / "output/train.jsonl")
    prefix, why = tokens.of_data_stage(made / "output", "train", own, tokens._digest(tokenizer))
    assert (prefix, why) == (made / "output/megatron/train_text_document", "")
    assert prefix is not None
    documents = [ids.tolist() for ids in indexed.Indexed(prefix)]
    assert documents == own.encode(texts)
    assert all(ids.count(2) == 1 for ids in documents)


def test_a_trainer_learns_the_same_from_both(model: Path, made: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    (text / "output").mkdir(parents=True)
    for name in ("train.jsonl", "encoding.json"):
        shutil.copyfile(made / "output" / name, text / "output" / name)
    settings = {
        "epochs": 1, "lr": 1e-3, "batch_size": 4, "micro_batch_size": 2, "sequence_length": 64, "seed": 3, "threads": 1,
    }  # fmt: skip
    runs = []
    for name, data in (("tokens", made), ("text", text)):
        stage = stages.stage(
            tmp_path / name, "cpt", "trl", settings, {"checkpoint": model, "data": data}, {"data": "corpus"}
        )
        assert stage.start().outcome == "done"
        runs.append(stage)
    assert runs[0].losses() == runs[1].losses()
    events = [{event["event"] for event in run.events} for run in runs]
    assert "tokenizing" not in events[0]
    assert "tokenizing" in events[1]
    assert not list((tmp_path / "tokens/stage/tokens").glob("*.bin"))  # nothing was written anew


def test_another_model_tokenises_the_text_and_says_why(made: Path, tmp_path: Path) -> None:
    stages.make_tokenizer(tmp_path / "other", vocabulary=390)
    ctx = stages.quiet_context(tmp_path)
    given = stages.Input("data", str(made), "dataset", "corpus", "ab" * 32)
    prefix = tokens.corpus(given, "train", tokenizers.load(tmp_path / "other"), tmp_path / "scratch", ctx)
    assert prefix == tmp_path / "scratch/corpus"
    assert ctx.events[0]["why"] == "the data stage has tokenised with another tokenizer.json"
