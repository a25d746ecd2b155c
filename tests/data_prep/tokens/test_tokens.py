"""Ids by tiktoken are those of tokenizers; Megatron's files are the bytes that Megatron writes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tests.support.prepared", exc_type=ImportError)

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.common.errors import DataError
from data_prep.tokens import bpe, indexed
from data_prep.tokens.encoder import Encoder
from tests.support import prepared


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder(prepared.write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def test_tiktoken_is_proven_and_used(encoder: Encoder) -> None:
    assert (encoder.engine, encoder.why) == ("tiktoken", "")
    again = Encoder(encoder.directory, proven=encoder.proof)
    assert again.engine == "tiktoken"


@pytest.fixture(scope="module")
def allowing(encoder: Encoder) -> Encoder:
    """The same tokenizer where control tokens in a text count."""
    return Encoder(encoder.directory, special_tokens="allow", proven=encoder.proof)


@settings(max_examples=400, deadline=None)
@given(
    st.text() | st.text("ab .,\n\t  1'sdltve½ﬁ") | st.lists(st.sampled_from(["<s>", "</s>", " bade", "n"])).map("".join)
)
def test_ids_are_those_of_tokenizers(encoder: Encoder, allowing: Encoder, text: str) -> None:
    for one in (encoder, allowing):
        assert one.encode(text).tolist() == one.reference(text).tolist()


@pytest.mark.parametrize("takes", ["lstrip", "rstrip", "single_word"])
def test_added_tokens_that_take_characters_around_them(encoder: Encoder, tmp_path: Path, takes: str) -> None:
    parsed = json.loads((encoder.directory / "tokenizer.json").read_text())
    for entry in parsed["added_tokens"]:
        entry[takes] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(parsed))
    changed = Encoder(tmp_path, special_tokens="allow")
    assert changed.engine == "tiktoken"
    for text in ("bade <s>  n", "<s></s>", "a</s>b", " </s> "):
        assert changed.encode(text).tolist() == changed.reference(text).tolist()


# Of the families whose tokenizers cut words by a pattern of their own: its pre-tokenizer, normaliser and special tokens
# as their tokenizer.json has them, with merges learned here (the proof is about rules, and reads any vocabulary).
def _split(pattern: str) -> dict[str, Any]:
    return {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ],
    }


FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    },
    "smollm2": {
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            ],
        }
    },
    "llama3": {"pre_tokenizer": _split(bpe.LLAMA3), "special": ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]},
    "qwen2": {
        "pre_tokenizer": _split(bpe.QWEN2),
        "normalizer": {"type": "NFC"},
        "special": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    },
}
LEARNED = [
    "It's 12345 o'clock, they're HERE; we've 7 apples!\n\n  def f(x):\r\n\treturn x ** 2\n",
    "L'été à Évora: não há pão, «coração» e ação. Größe, straße, ÄRGER. naïve café",
    "Привет, мир! Как дела? 你好，世界。今天天气很好。안녕하세요 세계 テスト です 1 000 000",
    "   indented\n\n\n      more  \t tabs   and   spaces   \n",
    "https://example.org/a_b-c?d=1&e=%20 #tag @name (x) [y] {z}",
]


def family(name: str, directory: Path, ignore_merges: bool = False) -> Path:
    """A tokenizer of one of the families, learned from a few texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    shape = FAMILIES[name]
    special = shape.get("special", ["<|endoftext|>"])
    empty = Tokenizer(models.BPE())
    empty.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    parsed = json.loads(empty.to_str())
    parsed |= {"pre_tokenizer": shape["pre_tokenizer"], "normalizer": shape.get("normalizer")}
    own = Tokenizer.from_str(json.dumps(parsed))
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    own.train_from_iterator([*LEARNED * 3, *(prepared.document(seed, 150) for seed in range(20))], trainer)
    parsed = json.loads(own.to_str())
    parsed["model"]["ignore_merges"] = ignore_merges
    directory.mkdir(exist_ok=True)
    (directory / "tokenizer.json").write_text(json.dumps(parsed))
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": special[-1]}))
    return directory


# The proof of one takes 5 s; the shapes of gpt2 and smollm2 are those that the other tests have.
_FULL = [pytest.param(name, marks=pytest.mark.full) for name in ("gpt2", "smollm2", "llama3")]


@pytest.fixture(scope="module", params=[*_FULL, "llama3-whole-words", "qwen2"])
def of_family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    name = request.param.removesuffix("-whole-words")
    return Encoder(family(name, tmp_path_factory.mktemp("family"), ignore_merges=name != request.param))


@settings(max_examples=150, deadline=None)
@given(
    st.text()
    | st.text("aé1９²½'’sSTLlvVeERrdDmM \u00a0\u2028\u3000\u200d\n\r\t.,!—_«e\u0301ſﬁ한你ИǅⅫ🙂\U0001f1f5", max_size=40)
    | st.lists(
        st.sampled_from(
            [*LEARNED, *(w for text in LEARNED for w in text.split()), "<|im_end|>", "<|eot_id|>", " ", "\n"]
        )
    ).map("".join)
)
def test_ids_of_the_families_are_those_of_tokenizers(of_family: Encoder, text: str) -> None:
    assert (of_family.engine, of_family.why) == ("tiktoken", "")
    assert of_family.encode(text).tolist() == of_family.reference(text).tolist()


def test_a_pattern_that_is_not_known_falls_back_and_says_so(tmp_path: Path) -> None:
    directory = family("llama3", tmp_path)
    parsed = json.loads((directory / "tokenizer.json").read_text())
    parsed["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\p{L}+|\s+"
    (directory / "tokenizer.json").write_text(json.dumps(parsed))
    own = Encoder(directory)
    assert own.engine == "tokenizers"
    assert "a pattern that is not known here" in own.why


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
    form = bpe.read_form(
        {
            "model": {"type": "BPE", "vocab": vocabulary, "merges": ["a b"]},
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
        }
    )
    assert form.left_out == (257,)


def test_indexed_files_join_as_if_written_at_once(tmp_path: Path) -> None:
    dice = np.random.default_rng(1)
    documents = [dice.integers(0, 600, size, dtype=np.uint32) for size in (3, 1, 0, 50, 7)]
    for prefix, part in (("one", documents[:2]), ("two", documents[2:]), ("all", documents)):
        writer = indexed.IndexedWriter(tmp_path / prefix, indexed.dtype_for(600))
        for ids in part:
            writer.add(ids)
        writer.close()
    assert indexed.join(
        [(tmp_path / "one", None), (tmp_path / "two", None)], tmp_path / "joined", indexed.dtype_for(600)
    ) == (5, 61)
    for end in (".bin", ".idx"):
        assert Path(f"{tmp_path}/joined{end}").read_bytes() == Path(f"{tmp_path}/all{end}").read_bytes()
    assert [ids.tolist() for ids in indexed.Indexed(tmp_path / "joined")] == [ids.tolist() for ids in documents]
    with open(tmp_path / "joined.bin", "ab") as stream:
        stream.write(b"x")
    with pytest.raises(DataError, match="its index says 122"):
        indexed.Indexed(tmp_path / "joined")


# In a process of its own: Megatron and what it imports stay out of the other tests.
_THEIRS = """
import json, sys
from pathlib import Path
import numpy, torch
from megatron.core.datasets.indexed_dataset import DType, IndexedDataset, IndexedDatasetBuilder

folder = Path(sys.argv[1])
for vocabulary, documents in json.loads((folder / "documents.json").read_text()).items():
    builder = IndexedDatasetBuilder(f"{folder}/theirs-{vocabulary}.bin", dtype=DType.optimal_dtype(int(vocabulary)))
    for ids in documents:
        builder.add_document(torch.tensor(ids, dtype=torch.int32), [len(ids)])
    builder.finalize(f"{folder}/theirs-{vocabulary}.idx")
    ours = IndexedDataset(f"{folder}/ours-{vocabulary}")
    assert [ours[number].tolist() for number in range(len(ours))] == documents
    assert ours.document_indices.tolist() == list(range(len(documents) + 1))
"""


def _megatron() -> str:
    """Where megatron-core is: beside the environment (see the Makefile), or in it."""
    beside = Path(sys.prefix) / "megatron"
    if beside.is_dir():
        return str(beside)
    if importlib.util.find_spec("megatron") is None:
        pytest.skip("megatron-core is not installed")
    return ""


def test_same_bytes_as_megatron_which_reads_ours(encoder: Encoder, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    beside = _megatron()
    rows = [{"text": prepared.document(seed, 40 + 5 * seed)} for seed in range(40)]
    source = prepared.write_lines(tmp_path / "in.jsonl", rows)
    prepared.make(
        "corpus",
        [source],
        tmp_path / "built",
        tokenizer=str(encoder.directory),
        shard_bytes=3_000,
        split={"validation": 0, "test": 0},
    )
    end = encoder.end_of_document(None)
    lines = (tmp_path / "built/train.jsonl").read_text().splitlines()
    documents = {
        "600": [[*encoder.reference(json.loads(line)["text"]).tolist(), end] for line in lines],
        "128256": [list(range(size)) for size in (5, 1, 300)],
    }
    assert len(documents["600"]) == 40
    for suffix in (".bin", ".idx"):
        (tmp_path / f"built/megatron/train_text_document{suffix}").rename(tmp_path / f"ours-600{suffix}")
    writer = indexed.IndexedWriter(tmp_path / "ours-128256", indexed.dtype_for(128256))
    for ids in documents["128256"]:
        writer.add(np.array(ids, np.uint32))
    writer.close()
    (tmp_path / "documents.json").write_text(json.dumps(documents))
    found = subprocess.run(
        [sys.executable, "-c", _THEIRS, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": beside},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    for name in documents:
        for suffix in (".bin", ".idx"):
            ours, theirs = (tmp_path / f"{side}-{name}{suffix}" for side in ("ours", "theirs"))
            assert ours.read_bytes() == theirs.read_bytes(), theirs.name


def _saved(directory: Path, change: str) -> Path:
    """A tokenizer as a program has saved it that used it for a short text, for a batch, or with its end token."""
    from tokenizers import Tokenizer, processors

    prepared.write_tokenizer(directory)
    own = Tokenizer.from_file(str(directory / "tokenizer.json"))
    if change == "truncation":
        own.enable_truncation(8)
    elif change == "padding":
        own.enable_padding(pad_id=0, pad_token="<s>", length=64)
    else:
        own.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", own.token_to_id("<s>")), ("</s>", own.token_to_id("</s>"))]
        )
    own.save(str(directory / "tokenizer.json"))
    return directory


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("change", ["truncation", "padding", "end token"])
def test_what_a_tokenizer_was_saved_with_changes_no_ids(
    encoder: Encoder, tmp_path: Path, change: str, fast: bool
) -> None:
    own = Encoder(_saved(tmp_path / "saved", change), fast=fast)
    texts = [prepared.document(3), "short", "x </s> y"]
    wanted = [encoder.reference(text).tolist() for text in texts]
    assert [own.encode(text).tolist() for text in texts] == wanted
    assert [own.reference(text).tolist() for text in texts] == wanted
    assert [ids.tolist() for ids in own.encode_all(texts)] == wanted


@pytest.mark.parametrize("change", ["truncation", "padding", "end token"])
def test_documents_are_whole_and_have_one_end_token(encoder: Encoder, tmp_path: Path, change: str) -> None:
    texts = [prepared.document(seed, 90) for seed in range(5)]
    source = prepared.write_lines(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    prepared.make(
        "corpus",
        [source],
        tmp_path / "out",
        tokenizer=str(_saved(tmp_path / "saved", change)),
        split={"validation": 0, "test": 0},
    )
    end = encoder.end_of_document(None)
    begin = [0] if change == "end token" else []  # this tokenizer puts both tokens around every text
    found = [ids.tolist() for ids in indexed.Indexed(tmp_path / "out/megatron/train_text_document")]
    assert found == [[*begin, *encoder.reference(text).tolist(), end] for text in texts]


def test_the_type_of_an_id_comes_from_the_largest_id(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: number for number, word in enumerate(prepared.WORDS)}
    own = Tokenizer(models.WordLevel({**vocabulary, "<unk>": 69_998, ".": 69_999, "</s>": 70_000}, unk_token="<unk>"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "tokenizer").mkdir()
    own.save(str(tmp_path / "tokenizer/tokenizer.json"))
    (tmp_path / "tokenizer/tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    text = " ".join(prepared.WORDS)
    source = prepared.write_lines(tmp_path / "in.jsonl", [{"text": text}])
    prepared.make(
        "corpus",
        [source],
        tmp_path / "out",
        tokenizer=str(tmp_path / "tokenizer"),
        split={"validation": 0, "test": 0},
    )
    found = indexed.Indexed(tmp_path / "out/megatron/train_text_document")
    assert found[0].tolist() == [*range(len(prepared.WORDS)), 70_000]


@pytest.mark.parametrize("wrong", [65_536, -1])
def test_an_id_that_the_type_cannot_hold_is_refused(tmp_path: Path, wrong: int) -> None:
    writer = indexed.IndexedWriter(tmp_path / "x", indexed.dtype_for(600))
    writer.add(np.array([65_535], np.int64))
    with pytest.raises(DataError, match=r"x\.bin: document 1 has the id"):
        writer.add(np.array([3, wrong], np.int64))


def test_both_files_are_on_disk_when_they_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: dict[str, int] = {}
    own = os.fsync

    def see(handle: int) -> None:
        flushed[Path(os.readlink(f"/proc/self/fd/{handle}")).name] = os.fstat(handle).st_size
        own(handle)

    monkeypatch.setattr(os, "fsync", see)
    writer = indexed.IndexedWriter(tmp_path / "a", indexed.dtype_for(600))
    writer.add(np.arange(50))
    writer.close()
    sizes = {name: (tmp_path / name).stat().st_size for name in ("a.bin", "a.idx")}
    assert flushed == {**sizes, tmp_path.name: tmp_path.stat().st_size}
    flushed.clear()
    indexed.join([(tmp_path / "a", None)] * 2, tmp_path / "b", indexed.dtype_for(600))
    sizes = {name: (tmp_path / name).stat().st_size for name in ("b.bin", "b.idx")}
    assert flushed == {**sizes, tmp_path.name: tmp_path.stat().st_size}
