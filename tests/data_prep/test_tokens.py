"""Ids by tiktoken are those of tokenizers; Megatron's files are the bytes that Megatron writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("tests.data_prep.prepared", exc_type=ImportError)

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.errors import DataError
from data_prep.tokens import bpe, indexed
from data_prep.tokens.encoder import Encoder
from tests.data_prep import prepared


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder(prepared.write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def test_tiktoken_is_proven_and_used(encoder: Encoder) -> None:
    assert (encoder.engine, encoder.why) == ("tiktoken", "")
    again = Encoder(encoder.directory, proven=encoder.proof)
    assert again.engine == "tiktoken"


@settings(max_examples=400, deadline=None)
@given(st.text() | st.text("ab .,\n\t  1'sdltve½ﬁ") | st.lists(st.sampled_from(["<s>", "</s>", " bade", "n"])).map("".join))
def test_ids_are_those_of_tokenizers(encoder: Encoder, text: str) -> None:
    assert encoder.encode(text).tolist() == encoder.reference(text).tolist()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: t["model"].update(dropout=0.1), "dropout"),
        (lambda t: t.update(normalizer={"type": "Lowercase"}), "Lowercase"),
        (lambda t: t["pre_tokenizer"].update(add_prefix_space=True), "not byte-level"),
        (lambda t: t["model"].update(merges=t["model"]["merges"][::-1]), "order of ids"),
    ],
)
def test_what_cannot_be_proven_falls_back_and_says_so(encoder: Encoder, tmp_path: Path, change, why: str) -> None:
    parsed = json.loads((encoder.directory / "tokenizer.json").read_text())
    change(parsed)
    (tmp_path / "tokenizer.json").write_text(json.dumps(parsed))
    own = Encoder(tmp_path)
    assert own.engine == "tokenizers"
    assert why in own.why


def test_a_token_that_no_merge_makes_is_left_out() -> None:
    letters = {byte: letter for letter, byte in bpe.byte_letters().items()}
    vocabulary = {letters[byte]: byte for byte in range(256)} | {"ab": 256, "abc": 257}
    form = bpe.read_form({
        "model": {"type": "BPE", "vocab": vocabulary, "merges": ["a b"]},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
    })  # fmt: skip
    assert form.left_out == (257,)


def test_indexed_files_join_as_if_written_at_once(tmp_path: Path) -> None:
    dice = np.random.default_rng(1)
    documents = [dice.integers(0, 600, size, dtype=np.uint32) for size in (3, 1, 0, 50, 7)]
    for prefix, part in (("one", documents[:2]), ("two", documents[2:]), ("all", documents)):
        writer = indexed.IndexedWriter(tmp_path / prefix, indexed.dtype_for(600))
        for ids in part:
            writer.add(ids)
        writer.close()
    assert indexed.join([tmp_path / "one", tmp_path / "two"], tmp_path / "joined", indexed.dtype_for(600)) == (5, 61)
    for end in (".bin", ".idx"):
        assert Path(f"{tmp_path}/joined{end}").read_bytes() == Path(f"{tmp_path}/all{end}").read_bytes()
    assert [ids.tolist() for ids in indexed.Indexed(tmp_path / "joined")] == [ids.tolist() for ids in documents]
    with open(tmp_path / "joined.bin", "ab") as stream:
        stream.write(b"x")
    with pytest.raises(DataError, match="its index speaks of 122"):
        indexed.Indexed(tmp_path / "joined")


@pytest.mark.parametrize("vocabulary", [600, 128256])
def test_same_bytes_as_megatron(tmp_path: Path, vocabulary: int) -> None:
    megatron = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    import torch

    kind = megatron.DType.optimal_dtype(vocabulary)
    assert np.dtype(kind) == indexed.dtype_for(vocabulary)
    builder = megatron.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=kind)
    writer = indexed.IndexedWriter(tmp_path / "ours", indexed.dtype_for(vocabulary))
    for size in (5, 1, 300):
        ids = np.arange(size, dtype=np.uint32)
        builder.add_document(torch.tensor(ids.astype(np.int32)), [size])
        writer.add(ids)
    builder.finalize(str(tmp_path / "theirs.idx"))
    writer.close()
    for end in (".bin", ".idx"):
        assert (tmp_path / f"ours{end}").read_bytes() == (tmp_path / f"theirs{end}").read_bytes()
