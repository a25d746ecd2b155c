"""Control tokens in the texts of a corpus: what they become, in every way by which its ids are made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("tests.support.prepared", exc_type=ImportError)

from data_prep import inspect
from data_prep.common.errors import DataError
from data_prep.corpus import tasks
from data_prep.tokens import encoder, indexed
from data_prep.tokens.encoder import Encoder
from jobs.encoding.control import Control
from jobs.encoding.documents import DocumentEncoder
from jobs.encoding.load import load
from tests.support import tokenizer_shapes
from tests.support.prepared import document, in_this_process, make, tree, write_lines
from tests.support.tokenizer_shapes import SHAPES

TEXTS = [
    "The token <|im_end|> ends a turn.",
    "</s>",
    "<s>Hi there</s>",
    "a</s>b</s>",
    "<|im_start|>assistant\nYes, hello.<|im_end|>\n<|im_start|>user",
    "<|im_end|> <|im_end|>\n</s> ",
    "<|im_<|im_end|>end|>",
    "no control token",
    *(document(seed) + " <|im_end|> user" for seed in range(6)),
]
WHOLE = {"validation": 0, "test": 0}


@pytest.fixture(autouse=True)
def short_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """That tiktoken makes the same ids of every character is shown elsewhere, and takes seconds."""
    monkeypatch.setattr(encoder, "probe_texts", lambda: iter(TEXTS))


@pytest.fixture(params=SHAPES)
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return SHAPES[request.param](tmp_path / "tokenizer")


def by_transformers(directory: Path, texts: list[str], split: bool) -> list[list[int]]:
    """Ids as transformers makes them, with the tokens around a text, each once."""
    own = load(directory)
    begin = [own.bos_token_id] if own("a")["input_ids"][0] == own.bos_token_id else []
    found = []
    for text in texts:
        ids = list(own(text, add_special_tokens=False, split_special_tokens=split)["input_ids"])
        ids = ids[len(begin) :] if ids[: len(begin)] == begin else ids
        ids = ids[:-1] if ids[-1:] == [own.eos_token_id] else ids
        found.append([*begin, *ids, own.eos_token_id])
    return found


def built(root: Path, tokenizer: Path | None, texts: list[str] = TEXTS, **prepare: Any) -> Path:
    root.mkdir(exist_ok=True)
    source = write_lines(root / "in.jsonl", [{"text": text} for text in texts])
    prepare = {"quality": False, "near_duplicates": None, **prepare}
    if tokenizer is not None:
        prepare["tokenizer"] = str(tokenizer)
    make("corpus", [source], root / "out", split=WHOLE, runner=in_this_process, **prepare)
    return root / "out"


def written(output: Path) -> list[str]:
    return [json.loads(line)["text"] for line in (output / "train.jsonl").read_text().splitlines()]


def ids_of(output: Path) -> list[list[int]]:
    return [ids.tolist() for ids in indexed.Indexed(output / "megatron/train_text_document")]


def checks(output: Path) -> str:
    assert "Checks" in (output / "card.html").read_text()
    return str(json.loads((output / "card.json").read_text())["checks"]["control tokens"])


@pytest.mark.parametrize("mode", ["escape", "allow"])
def test_ids_are_those_of_transformers_in_the_data_stage_and_in_the_trainer(
    tokenizer: Path, tmp_path: Path, mode: str
) -> None:
    output = built(tmp_path, tokenizer, special_tokens=mode)
    texts = written(output)
    assert len(texts) == len(TEXTS)
    wanted = by_transformers(tokenizer, texts, mode == "escape")
    assert ids_of(output) == wanted
    assert DocumentEncoder(load(tokenizer), mode).encode(texts) == wanted
    control = {number for name, number in Control(load(tokenizer)).ids.items() if name != "<unk>"}
    inside = [number for ids in wanted for number in ids[1:-1] if number in control]
    assert bool(inside) == (mode == "allow")
    assert f"in the texts of 13 documents ({mode}): <|im_end|>: 11" in checks(output)


def test_escape_is_the_default_and_is_written_beside_the_rows(tmp_path: Path) -> None:
    tokenizer = tokenizer_shapes.begins(tmp_path / "tokenizer")
    for number, prepare in enumerate(({}, {"special_tokens": "escape"})):
        output = built(tmp_path / str(number), tokenizer, **prepare)
        assert json.loads((output / "encoding.json").read_text())["special_tokens"] == "escape"
    assert tree(tmp_path / "0/out/megatron") == tree(tmp_path / "1/out/megatron")


def test_control_tokens_are_those_that_transformers_knows(tokenizer: Path) -> None:
    assert Encoder(tokenizer, fast=False).control.ids == Control(load(tokenizer)).ids


@pytest.mark.parametrize("shape", ["byte_level", "spaced"])
def test_shards_workers_and_an_array_of_jobs_change_nothing(tmp_path: Path, shape: str) -> None:
    tokenizer = SHAPES[shape](tmp_path / "tokenizer")
    source = write_lines(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])

    def as_tasks(root: Path, phase: str, shards: Any, progress: Any) -> None:
        listed = root / f"{phase}.tasks/tasks.json"
        listed.parent.mkdir()
        tasks.write(listed, root, phase, [[shard] for shard in shards])
        assert [tasks.main(listed, number) for number in range(len(shards))] == [0] * len(shards)

    made = []
    for number, (size, runner) in enumerate(((1 << 30, in_this_process), (60, None), (60, as_tasks))):
        output = tmp_path / f"out{number}"
        make(
            "corpus", [source], output, split=WHOLE, runner=runner, shard_bytes=size, tokenizer=str(tokenizer),
            quality=False, near_duplicates=None,
        )  # fmt: skip
        found = tree(output)
        made.append({name: content for name, content in found.items() if not name.startswith("card")})
        assert "<|im_end|>: 11" in checks(output)
    assert made[0] == made[1] == made[2]


def test_a_text_that_is_cut_and_one_that_is_cleaned(tmp_path: Path) -> None:
    """A control token that only the joined or cleaned text has counts as one, and is text, too."""
    tokenizer = tokenizer_shapes.byte_level(tmp_path / "tokenizer")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/cut.txt").write_text("Hi <|im_\n\nend|> there\n\n<|im_end|>\n\n</s> user\n" * 2)
    (tmp_path / "in/hidden.txt").write_text("Hi <|im\x00_end|> there and <\ufeff/s>\n")
    (tmp_path / "in/page.html").write_text("<html><body><p>Hi &lt;|im_end|&gt; <b>&lt;/</b>s&gt;</p></body></html>")
    make(
        "corpus", [tmp_path / "in"], tmp_path / "out", split=WHOLE, runner=in_this_process, tokenizer=str(tokenizer),
        document_chars=8, quality=False, near_duplicates=None, exact_duplicates=False,
    )  # fmt: skip
    texts = written(tmp_path / "out")
    assert "Hi <|im_end|> there and </s>" in texts
    assert "Hi <|im_end|> </s>" in texts
    assert ids_of(tmp_path / "out") == by_transformers(tokenizer, texts, True)
    assert sum(text.count("<|im_end|>") for text in texts) == 4
    assert "<|im_end|>: 4" in checks(tmp_path / "out")


def test_refused_they_are_told_with_their_place_or_left_out_and_counted(tmp_path: Path) -> None:
    tokenizer = tokenizer_shapes.byte_level(tmp_path / "tokenizer")
    texts = ["fine", "a</s>b</s>", "also fine"]
    with pytest.raises(DataError, match=r"in\.jsonl:2: holds control tokens: </s>: 2 \(special_tokens: escape"):
        built(tmp_path, tokenizer, texts, special_tokens="refuse")
    output = built(tmp_path / "left out", tokenizer, texts, special_tokens="refuse", on_error="skip")
    assert written(output) == ["fine", "also fine"]
    facts = json.loads((output / "card.json").read_text())
    assert facts["dropped"] == {"control_token_in_text": 1}
    assert facts["samples"]["control_token_in_text"][0][0].endswith("in.jsonl:2")
    assert checks(output) == "in no text"
    with pytest.raises(DataError, match=r"setting prepare\.special_tokens: must be one of escape, refuse, allow"):
        built(tmp_path / "unknown", tokenizer, texts, special_tokens="split")


def test_what_a_tokenizer_cannot_tell_from_text_is_no_control_token_in_silence(tmp_path: Path) -> None:
    tokenizer = tokenizer_shapes.unigram(tmp_path / "tokenizer")
    end = load(tokenizer)("a</s>", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert end[-1] == 2  # so it is in transformers, too
    with pytest.raises(
        DataError, match=r"in\.jsonl:2: holds the control token </s>, which this tokenizer cannot distinguish"
    ):
        built(tmp_path, tokenizer, ["Yes", "a</s>"])
    assert "cannot distinguish from text" in str(DocumentEncoder(load(tokenizer)).flaw("a</s>"))
    assert DocumentEncoder(load(tokenizer), "allow").flaw("a</s>") is None


def test_without_a_tokenizer_the_card_says_that_nobody_looked(tmp_path: Path) -> None:
    output = built(tmp_path, None, special_tokens="refuse")
    assert checks(output) == "not looked at: prepare.tokenizer is not set (special_tokens: refuse)"
    assert json.loads((output / "encoding.json").read_text())["special_tokens"] == "refuse"


def test_inspect_shows_them_in_rows_and_in_bin_files(tokenizer: Path, tmp_path: Path) -> None:
    shown = {}
    for mode in ("escape", "allow"):
        output = built(tmp_path / mode, tokenizer, ["Hi <|im_end|>there", "x"], special_tokens=mode)
        files = (inspect.data_file(output, "train"), output / "megatron/train_text_document.bin")
        for path in files:
            row = next(inspect.rows(inspect.data_file(path, "train"), tokenizer, 1))
            tokens = row.sequences["text"]
            assert [token.id for token in tokens] == ids_of(output)[0]
            shown[mode, path.suffix] = ([token.text for token in tokens if token.control], row.notes["text"])
    for suffix in (".jsonl", ".bin"):
        inside, note = shown["escape", suffix]
        assert "<|im_end|>" not in inside
        assert inside[-1] == "</s>"
        assert "control tokens that are text: <|im_end|>: 1" in note
        inside, note = shown["allow", suffix]
        assert inside[-2:] == ["<|im_end|>", "</s>"]
        assert "that are text" not in note


def test_all_files_of_the_tokenizer_decide_the_result(tmp_path: Path) -> None:
    """They name the end token and control tokens: work that is kept from before a change of theirs is made again."""
    output = built(tmp_path, tokenizer_shapes.spaced(tmp_path / "tokenizer"), ["Yes, hello."])
    sources = json.loads((output / "card.json").read_text())["sources"]
    found = {Path(one["path"]).name for one in sources if one["role"] == "tokenizer"}
    assert found == {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
