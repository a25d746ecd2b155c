"""A corpus as ids: documents, blocks, files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.common.errors import DataError as WriteError
from data_prep.tokens import indexed
from jobs.core import files
from jobs.core.spec import Input
from jobs.encoding.documents import DocumentEncoder
from jobs.encoding.settings import Encoding
from jobs.training import tokens
from jobs.training.examples import ExamplesError
from jobs.training.tokens import Blocks
from tests.support import stages


def written(prefix: Path, documents: list[list[int]], kind: str = "<u2") -> Path:
    writer = indexed.IndexedWriter(prefix, np.dtype(kind))
    for ids in documents:
        writer.add(np.array(ids, np.int64))
    writer.close()
    return prefix


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(0, 65535), max_size=9), min_size=1, max_size=12), st.integers(1, 7), st.booleans())
def test_blocks_are_the_mixed_documents_cut(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], length: int, shifted: bool
) -> None:
    prefix = written(tmp_path_factory.mktemp("blocks") / "corpus", documents)
    total, extra = sum(map(len, documents)), int(shifted)
    if (total - extra) // length < 1:
        with pytest.raises(ExamplesError, match=f"{total} tokens are less than one sequence_length of {length}"):
            Blocks(prefix, length, 3, extra)
        return
    blocks = Blocks(prefix, length, 3, extra)
    mixed = [documents[index] for index in blocks._order]
    joined = [token for ids in mixed for token in ids]
    assert sorted(map(tuple, mixed)) == sorted(map(tuple, documents))
    assert len(blocks) == (total - extra) // length
    assert [block.tolist() for block in blocks] == [
        joined[at * length : (at + 1) * length + extra] for at in range(len(blocks))
    ]


def test_documents_are_mixed_by_the_seed(tmp_path: Path) -> None:
    prefix = written(tmp_path / "corpus", [[number] * 4 for number in range(50)])
    first = [int(block[0]) for block in Blocks(prefix, 4, 1)]
    assert sorted(first) == list(range(50))
    assert first != list(range(50))
    assert first != [int(block[0]) for block in Blocks(prefix, 4, 2)]


def test_the_mixed_order_is_written_once_and_mapped_by_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = written(tmp_path / "corpus", [[number] * (1 + number % 3) for number in range(50)])
    alone = [block.tolist() for block in Blocks(prefix, 4, 1)]
    mixed = tokens.mix(prefix, 1, tmp_path / "scratch", stages.quiet_context(tmp_path, 0, 2))
    monkeypatch.setattr(tokens, "_mixed", None)  # nobody does it again
    for rank in (0, 1):
        assert tokens.mix(prefix, 1, tmp_path / "scratch", stages.quiet_context(tmp_path, rank, 2)) == mixed
    blocks = Blocks(prefix, 4, 1, mixed=mixed)
    assert [block.tolist() for block in blocks] == alone
    assert isinstance(blocks._ends, np.memmap)
    monkeypatch.undo()
    written(tmp_path / "corpus", [[number] for number in range(9)])  # another corpus under the same name
    tokens.mix(prefix, 1, tmp_path / "scratch", stages.quiet_context(tmp_path))
    assert sorted(int(block[0]) for block in Blocks(prefix, 1, 1, mixed=mixed)) == list(range(9))


def test_an_id_that_the_type_cannot_hold_is_refused(tmp_path: Path) -> None:
    assert written(tmp_path / "a", [[65535]])
    with pytest.raises(WriteError, match="has the id 65536, which uint16 cannot hold"):
        written(tmp_path / "b", [[1, 65536]])
    with pytest.raises(WriteError, match="cannot hold"):
        written(tmp_path / "c", [[-1]])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("transformers")
    from jobs.training import tokenizers

    root = tmp_path_factory.mktemp("tokenizer")
    stages.make_tokenizer(root)
    return tokenizers.load(root)


def corpus_of(root: Path, texts: list[str]) -> Input:
    stages.write_rows(root / "output" / "train.jsonl", [{"id": str(at), "text": text} for at, text in enumerate(texts)])
    return Input("data", str(root), "dataset", "corpus", "ab" * 32)


@pytest.mark.parametrize("world", [1, 3])
def test_text_is_tokenised_once_by_all_processes(
    world: int, tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setattr(tokens, "PART_BYTES", 300)
    texts = [f"{stages.EUROPEAN[number % 8]} não {number}\n" for number in range(60)]
    data = corpus_of(tmp_path / "data", texts)
    every = [stages.quiet_context(tmp_path, rank, world) for rank in range(world)]
    with ThreadPoolExecutor(world) as pool:
        found = list(pool.map(lambda ctx: tokens.corpus(data, "train", tokenizer, tmp_path / "scratch", ctx), every))
    assert set(found) == {tmp_path / "scratch" / "corpus"}
    documents = [ids.tolist() for ids in indexed.Indexed(found[0])]
    assert documents == [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]
    assert sorted(path.name for path in (tmp_path / "scratch").iterdir()) == ["corpus.bin", "corpus.idx", "ready.json"]
    again = stages.quiet_context(tmp_path)
    tokens.corpus(data, "train", tokenizer, tmp_path / "scratch", again)
    assert again.events == []  # what is there is taken


def test_parts_that_are_done_are_kept_after_a_kill(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "PART_BYTES", 300)
    data = corpus_of(tmp_path / "data", [f"Novo ficheiro {number}" for number in range(40)])
    written_parts: list[str] = []
    write = tokens._write_part

    def killed(prefix: Path, *rest: Any) -> None:
        if len(written_parts) == 2:
            raise KeyboardInterrupt
        written_parts.append(prefix.name)
        write(prefix, *rest)

    monkeypatch.setattr(tokens, "_write_part", killed)
    with pytest.raises(KeyboardInterrupt):
        tokens.corpus(data, "train", tokenizer, tmp_path / "scratch", stages.quiet_context(tmp_path))
    first, written_parts[:] = list(written_parts), []
    monkeypatch.setattr(
        tokens, "_write_part", lambda prefix, *rest: (written_parts.append(prefix.name), write(prefix, *rest))
    )
    prefix = tokens.corpus(data, "train", tokenizer, tmp_path / "scratch", stages.quiet_context(tmp_path))
    assert not set(first) & set(written_parts)
    assert len(indexed.Indexed(prefix)) == 40


def test_a_broken_row_is_named_by_its_line(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "PART_BYTES", 100)
    data = corpus_of(tmp_path / "data", ["um texto de teste"] * 9)
    path = data.output / "train.jsonl"
    lines = path.read_text().splitlines()
    for bad, message in (
        ("{", "not JSON"),
        ('{"text": " "}', "field 'text' of a row of corpus is missing or has no content"),
    ):
        path.write_text("\n".join([*lines[:7], bad, *lines[7:]]) + "\n")
        with pytest.raises(ExamplesError, match=rf"train\.jsonl:8: {message}"):
            tokens.corpus(
                data, "train", tokenizer, tmp_path / bad[:1].replace("{", str(len(bad))), stages.quiet_context(tmp_path)
            )


def test_files_of_the_data_stage_are_taken_where_the_tokenizer_is_the_models(tmp_path: Path, tokenizer: Any) -> None:
    data = corpus_of(tmp_path / "data", ["Ecrã inicial", "Procurar"])
    digest = tokens._digest(tokenizer)
    (data.output / "megatron").mkdir()
    made = written(data.output / "megatron" / "train_text_document", [[5, 6, 2], [7, 2]])
    card = {"tokenizer": {"digest": digest, "begin": [], "eod": 2}, "settings": {"prepare": {}}}
    (data.output / "card.json").write_text(json.dumps(card))
    ctx = stages.quiet_context(tmp_path)
    assert tokens.corpus(data, "train", tokenizer, tmp_path / "scratch", ctx) == made
    assert ctx.events == []
    for change, why in (
        ({"digest": "0" * 64}, "another tokenizer.json"),
        ({"begin": [1]}, "other ids before each document"),
        ({"eod": 0}, "closed documents by another id"),
    ):
        (data.output / "card.json").write_text(json.dumps({**card, "tokenizer": {**card["tokenizer"], **change}}))
        ctx = stages.quiet_context(tmp_path)
        prefix = tokens.corpus(data, "train", tokenizer, tmp_path / why[:5], ctx)
        assert prefix.name == "corpus"
        assert why in ctx.events[0]["why"]


@pytest.mark.parametrize("adds", [{}, {"begin": True}, {"end": True}, {"begin": True, "end": True}])
def test_a_document_has_one_end_and_what_the_tokenizer_puts_before(adds: dict[str, bool], tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from jobs.training import tokenizers

    stages.make_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.json"
    value = json.loads(path.read_text())
    begin = [{"SpecialToken": {"id": "<s>", "type_id": 0}}] if adds.get("begin") else []
    end = [{"SpecialToken": {"id": "</s>", "type_id": 0}}] if adds.get("end") else []
    special = {token: {"id": token, "ids": [number], "tokens": [token]} for token, number in (("<s>", 1), ("</s>", 2))}
    single = [*begin, {"Sequence": {"id": "A", "type_id": 0}}, *end]
    value["post_processor"] = {
        "type": "TemplateProcessing", "single": single, "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": special,
    }  # fmt: skip
    path.write_text(json.dumps(value))
    tokenizer = tokenizers.load(tmp_path)
    own = DocumentEncoder(tokenizer)
    ids = own.encode(["Home"])[0]
    plain = tokenizer("Home", add_special_tokens=False)["input_ids"]
    assert ids == [*([1] if begin else []), *plain, 2]
    assert own.begin == ([1] if begin else [])
    from data_prep.tokens.encoder import Encoder

    assert Encoder(tmp_path, fast=False).begin == own.begin


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("mode", ["escape", "allow", None])
def test_control_tokens_in_text_are_what_the_data_set_says(
    mode: str | None, world: int, tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data set without ``encoding.json`` is of before, when they were control tokens."""
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setattr(tokens, "PART_BYTES", 100)
    texts = [f"<s> um {number} </s> dois </s>" for number in range(12)]
    data = corpus_of(tmp_path / "data", texts)
    if mode is not None:
        Encoding(special_tokens=mode).write(data.output)
    every = [stages.quiet_context(tmp_path, rank, world) for rank in range(world)]
    with ThreadPoolExecutor(world) as pool:
        found = list(pool.map(lambda ctx: tokens.corpus(data, "train", tokenizer, tmp_path / "scratch", ctx), every))
    plain = tokenizer(texts, add_special_tokens=False, split_special_tokens=mode == "escape")["input_ids"]
    wanted = [[*ids, 2] if mode == "escape" else ids for ids in plain]
    assert [ids.tolist() for ids in indexed.Indexed(found[0])] == wanted
    assert [ids.count(2) for ids in wanted] == [1 if mode == "escape" else 2] * 12


def test_control_tokens_that_are_refused_are_named_by_their_line(tmp_path: Path, tokenizer: Any) -> None:
    data = corpus_of(tmp_path / "data", ["um", "dois </s>"])
    Encoding(special_tokens="refuse").write(data.output)
    with pytest.raises(ExamplesError, match=r"train\.jsonl:2: holds control tokens: </s>: 1"):
        tokens.corpus(data, "train", tokenizer, tmp_path / "scratch", stages.quiet_context(tmp_path))


@pytest.mark.failure(30)
def test_a_mark_is_written_after_all_that_it_marks_is_on_disk(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut the next start trusts the mark; what was never flushed may be zeros then."""
    monkeypatch.setattr(tokens, "PART_BYTES", 300)
    flushed: dict[int, int] = {}
    real, write, marked = os.fsync, files.write_json, list[tuple[str, list[str]]]()

    def fsync(handle: int) -> None:
        real(handle)
        status = os.fstat(handle)
        flushed[status.st_ino] = status.st_size

    def mark(path: Path, value: Any) -> None:
        data = [one for one in path.parent.rglob("*") if one.is_file() and one.suffix in (".bin", ".idx", ".npy")]
        late = [one.name for one in data if flushed.get(one.stat().st_ino) != one.stat().st_size]
        marked.append((path.name, late))
        write(path, value)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(files, "write_json", mark)
    data = corpus_of(tmp_path / "data", [f"Novo ficheiro {number}\n" for number in range(40)])
    ctx, scratch = stages.quiet_context(tmp_path), tmp_path / "scratch"
    tokens.mix(tokens.corpus(data, "train", tokenizer, scratch, ctx), 1, scratch, ctx)
    assert [name for name, _ in marked if not name.startswith("part-")] == ["ready.json", "mixed-1.json"]
    assert [one for one in marked if one[1]] == []
