"""A tokenizer beside a model whose embedding is of another size: more embeddings than ids are usual, fewer are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tests.support.prepared", exc_type=ImportError)
pytest.importorskip("transformers")

from data_prep import inspect
from data_prep.common.errors import DataError
from jobs.core.verdict import FailureClass, classify
from jobs.encoding.load import WrongVocabulary, load
from tests.support.prepared import document, make, write_lines, write_tokenizer

ROWS = {
    "instructions": [{"prompt": f"q{n}", "completion": "a"} for n in range(40)],
    "corpus": [{"text": document(n, 60)} for n in range(40)],
}


def write_config(directory: Path, config: Any) -> Path:
    (directory / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    return directory


def test_what_fits(tmp_path: Path) -> None:
    directory = write_tokenizer(tmp_path / "t")
    ids = load(directory).get_vocab().values()
    for config in (
        {},
        {"vocab_size": max(ids) + 1},
        {"vocab_size": max(ids) + 1000},
        {"text_config": {"vocab_size": 10**6}},
    ):
        load(write_config(directory, config))


@pytest.mark.parametrize("nested", [False, True])
def test_an_added_token_without_an_embedding(nested: bool, tmp_path: Path) -> None:
    """As people add a padding token, and do not resize the model."""
    directory = write_tokenizer(tmp_path / "t")
    size = max(load(directory).get_vocab().values()) + 1
    config = {"vocab_size": size}
    write_config(directory, {"text_config": config} if nested else config)
    path = directory / "tokenizer.json"
    value = json.loads(path.read_text())
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    value["added_tokens"].append({"id": size, "content": "<pad>", **plain})
    path.write_text(json.dumps(value))
    text = f"the tokenizer has the id {size}, and the model embeds the ids below {size}"
    with pytest.raises(WrongVocabulary, match=text) as caught:
        load(directory)
    assert classify(caught.value) is FailureClass.TOKENIZER
    for kind, rows in ROWS.items():
        source = write_lines(tmp_path / f"{kind}.jsonl", rows)
        with pytest.raises(DataError, match=text):
            make(kind, [source], tmp_path / kind, tokenizer=str(directory))
    with pytest.raises(DataError, match=text):
        list(inspect.rows(source, directory, 1))
