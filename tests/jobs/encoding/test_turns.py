"""Where the answers of a conversation stand in its text, with the ends of their turns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from jobs.encoding.errors import CannotEncode
from jobs.encoding.load import load
from jobs.encoding.rows import RowEncoder
from jobs.encoding.settings import Encoding
from jobs.encoding.template import Template
from tests.support.templates import A2, U2, A, U, learned, write_tokenizer
from tests.support.tokenizer_shapes import CHATML


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(write_tokenizer(tmp_path_factory.mktemp("chatml"), CHATML))


def ids(tokenizer: Any, messages: list[dict[str, Any]]) -> list[int]:
    return list(tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"])


def test_a_template_that_closes_no_answer_is_refused(tmp_path: Path) -> None:
    template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    tokenizer = load(write_tokenizer(tmp_path, template))
    with pytest.raises(CannotEncode, match="where to stop"):
        RowEncoder(tokenizer).encode({"messages": [U, A]})
    closed = RowEncoder(tokenizer, Encoding(chat_template=CHATML)).encode({"messages": [U, A]})["completion"]
    assert tokenizer.decode(closed.completion) == "Yes, hello.<|im_end|>\n"


@pytest.mark.parametrize("rows", [[U, A], [U, A, U2, A2], [U, A, U2, {**A2, "weight": 0}]])
def test_a_template_that_begins_an_answer_whether_it_is_asked_to_or_not(rows: list[Any], tmp_path: Path) -> None:
    """The beginning would be learned behind the end of a turn: a model that answers itself without end."""
    turn = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    begin = "<|im_start|>assistant\n"
    always = RowEncoder(load(write_tokenizer(tmp_path / "always", turn + begin)))
    with pytest.raises(CannotEncode, match="takes no notice of add_generation_prompt") as caught:
        always.encode({"messages": rows})
    assert caught.value.reason == "answer_begun_at_the_end"
    asked = RowEncoder(
        load(write_tokenizer(tmp_path / "asked", turn + "{% if add_generation_prompt %}" + begin + "{% endif %}"))
    )
    never = RowEncoder(load(write_tokenizer(tmp_path / "never", turn)))
    assert asked.encode({"messages": rows})["completion"].ids == never.encode({"messages": rows})["completion"].ids


@pytest.mark.parametrize("answer", [">", "|>", "end|>", "im_end|>"])
@pytest.mark.parametrize("special_tokens", ["escape", "allow"])
def test_an_answer_that_is_the_end_of_a_control_token_is_closed(
    tokenizer: Any, answer: str, special_tokens: Any
) -> None:
    messages = [U, {"role": "assistant", "content": answer}, U2, {"role": "assistant", "content": answer}]
    found = RowEncoder(tokenizer, Encoding(special_tokens=special_tokens)).encode({"messages": messages})["completion"]
    assert list(found.ids) == ids(tokenizer, messages)
    learned_ids = [one for one, mask in zip(found.ids, found.mask, strict=True) if mask]
    assert tokenizer.decode(learned_ids) == f"{answer}<|im_end|>\n" * 2


def test_a_long_conversation_is_rendered_a_few_times(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    render = Template.__call__
    monkeypatch.setattr(Template, "__call__", lambda *given, **more: calls.append(1) or render(*given, **more))
    turns = [message for at in range(40) for message in ({**U, "content": f" Q{at}\n"}, {**A, "content": f"A{at} "})]
    found = RowEncoder(tokenizer).encode({"messages": turns})["completion"]
    assert learned(tokenizer, found) == [f"A{at} <|im_end|>\n" for at in range(40)]
    assert list(found.ids) == ids(tokenizer, turns)
    assert len(calls) < 10
