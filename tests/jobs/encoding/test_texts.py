"""Texts without a chat template: what stands before, between and behind them."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers")

from jobs.encoding.documents import DocumentEncoder
from jobs.encoding.load import load
from jobs.encoding.texts import filled
from tests.support import stages
from tests.support.templates import write_tokenizer
from tests.support.tokenizer_shapes import CHATML


@pytest.mark.parametrize("behind", ["", "</s>"])
def test_texts_get_one_beginning_and_one_end_token(tmp_path: Path, behind: str) -> None:
    from tokenizers import Tokenizer, processors

    directory = write_tokenizer(tmp_path / "own", CHATML)
    file = str(directory / "tokenizer.json")
    own = Tokenizer.from_file(file)
    known = [(name, own.token_to_id(name)) for name in ("<s>", "</s>")]
    own.post_processor = processors.TemplateProcessing(single=f"<s> $A {behind}".strip(), special_tokens=known)
    own.save(file)
    tokenizer = load(directory)
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    for prompt, answer in (("Hi", "Yes"), ("<s>Hi", "Yes"), ("Hi", "Yes</s>")):
        found = stages.encode_pair(tokenizer, prompt, answer)
        assert [*found.ids].count(begin) == [*found.ids].count(end) == 1, (prompt, answer)
        assert (found.ids[0], found.ids[-1]) == (begin, end)
        assert tokenizer.decode(found.completion) == "Yes</s>"
    document = DocumentEncoder(tokenizer).encode(["One text of more than eight tokens, and more than twelve"])[0]
    assert (document.count(begin), document.count(end)) == (1, 1)
    assert len(document) == 58  # nothing is cut or padded, though tokenizer.json says so


def test_a_template_is_filled_once_and_its_texts_are_not_read() -> None:
    assert filled(None, "{output}", "{input}") == ("{output}", "{input}")
    assert filled("Q: {input} A: {output}.", "{output}", "{input}") == ("Q: {output} A: ", "{input}.")
