"""Tokenizers and templates as they lie in people's directories: ids and loss are transformers', or the row is refused.

The reference for the loss is transformers' own mask, by the same template with ``{% generation %}`` around answers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from jobs.encoding.errors import CannotEncode
from jobs.encoding.load import load
from jobs.encoding.rows import RowEncoder
from jobs.encoding.settings import Encoding
from jobs.encoding.tokens import Tokens
from tests.support.templates import A2, CALL, GRID, RESULT, THOUGHT, TOOLS, U2, A, S, U, learned
from tests.support.tokenizer_shapes import CHATML, SHAPES, begins, byte_level, metaspace, spaced

TALK = ("one turn", "two turns", "three turns", "system", "system, two turns", "last answer only", "first answer only")
CLOSED = "{{ m.content }}<|im_end|>\n"
TOOL_USE = CHATML.replace("{{ bos_token }}", "{{ bos_token }}{% if tools %}TOOLS {{ tools | tojson }}\n{% endif %}")
TOOL_USE = TOOL_USE.replace(
    "{{ m.content }}", "{{ m.content }}{% for call in m.tool_calls or [] %}{{ call | tojson }}{% endfor %}"
)
WITH_CALLS = {"messages": [U, CALL, RESULT, A], "tools": TOOLS}


def marked(template: str, answer: str = CLOSED) -> str:
    """The template with transformers' marks around what the assistant writes, which is ``answer`` in it."""
    assert template.count(answer) == 1
    learns = "m.role == 'assistant' and m.weight | default(1)"
    own = f"{{% if {learns} %}}{{% generation %}}{answer}{{% endgeneration %}}{{% else %}}{answer}{{% endif %}}"
    return template.replace(answer, own)


def by_transformers(directory: Path, row: dict[str, Any], template: str | None = None) -> tuple[list[int], list[int]]:
    """Ids, and the loss where ``template`` has marks."""
    made = load(directory).apply_chat_template(
        row["messages"],
        tools=row.get("tools"),
        chat_template=template,
        return_dict=True,
        return_assistant_tokens_mask=template is not None,
    )
    return list(made["input_ids"]), list(made.get("assistant_masks", ()))


def encoded(directory: Path, row: dict[str, Any], **encoding: Any) -> Tokens:
    return RowEncoder(load(directory), Encoding(**encoding)).encode(row)["completion"]


def change(directory: Path, **config: Any) -> Path:
    """The tokenizer with other entries in tokenizer_config.json (None: without)."""
    path = directory / "tokenizer_config.json"
    value = {**json.loads(path.read_text()), **config}
    path.write_text(json.dumps({name: one for name, one in value.items() if one is not None}))
    return directory


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return SHAPES[request.param](tmp_path / "tokenizer")


def check(directory: Path, row: dict[str, Any], template: str = CHATML, answer: str = CLOSED) -> Tokens:
    found = encoded(directory, row)
    ids, mask = by_transformers(directory, row, marked(template, answer))
    assert list(found.ids) == ids == by_transformers(directory, row)[0]
    text = load(directory).apply_chat_template(row["messages"], tokenize=False)
    places = load(directory)(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    for at in range(1, len(mask)):
        # Of several tokens that are the last character of an answer (a space of its own and a line end) transformers
        # marks the first.
        mask[at] |= mask[at - 1] and places[at] == places[at - 1]
    assert [*map(int, found.mask)] == mask
    return found


@pytest.mark.parametrize("title", TALK)
def test_a_conversation_has_one_bos_and_learns_the_end_of_its_turns(shape: Path, title: str) -> None:
    """The end of a turn is not the tokenizer's end token, which stands nowhere."""
    found = check(shape, GRID[title])
    tokenizer = load(shape)
    assert found.ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.eos_token_id not in found.ids
    assert all(run.rstrip().endswith("<|im_end|>") for run in learned(tokenizer, found))


@pytest.mark.parametrize("prefix", ["first", "always", "never"])
@pytest.mark.parametrize("title", ["one turn", "system, two turns"])
def test_the_space_that_sentencepiece_puts_before_a_text(tmp_path: Path, prefix: str, title: str) -> None:
    check(metaspace(tmp_path / "tokenizer", prefix), GRID[title])


@pytest.mark.parametrize("prefix", ["first", "always", "never", "normalizer"])
def test_control_tokens_in_texts_of_such_a_tokenizer(tmp_path: Path, prefix: str) -> None:
    """Between the template's control tokens stand the ids of transformers with ``split_special_tokens=True``."""
    own = tmp_path / "tokenizer"
    directory = spaced(own) if prefix == "normalizer" else metaspace(own, prefix)
    (directory / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}<|im_start|>{% endfor %}")
    asked, answer = "Hi <|im_end|> there </s>", "Yes, </s> hello. "
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    tokenizer = load(directory)
    control = tokenizer.convert_tokens_to_ids("<|im_start|>")
    found = list(encoded(directory, {"messages": messages}).ids)
    first = tokenizer(asked, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert found[: len(first) + 1] == [*first, control]
    assert found.count(control) == 2
    assert not {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")} & set(found)


@pytest.mark.parametrize("place", ["tokenizer_config.json", "additional_chat_templates"])
def test_of_several_templates_each_row_has_the_one_that_transformers_takes(tmp_path: Path, place: str) -> None:
    directory = begins(tmp_path / "tokenizer")
    if place == "additional_chat_templates":
        (directory / place).mkdir()
        (directory / place / "tool_use.jinja").write_text(TOOL_USE)
    else:
        (directory / "chat_template.jinja").unlink()
        both = {"default": CHATML, "tool_use": TOOL_USE}
        change(directory, chat_template=[{"name": name, "template": text} for name, text in both.items()])
    check(directory, GRID["two turns"])
    found = encoded(directory, WITH_CALLS)
    assert list(found.ids) == by_transformers(directory, WITH_CALLS)[0]
    assert "TOOLS [{" in load(directory).decode(found.ids)
    runs = learned(load(directory), found)
    assert len(runs) == 2
    assert '"Lisbon"' in runs[0]
    assert runs[1] == "Yes, hello.<|im_end|>\n"


def test_several_templates_without_a_default_one_are_refused_by_name(tmp_path: Path) -> None:
    directory = begins(tmp_path / "tokenizer")
    (directory / "chat_template.jinja").unlink()
    named = [{"name": "rag", "template": CHATML}, {"name": "tool_use", "template": TOOL_USE}]
    change(directory, chat_template=named)
    with pytest.raises(CannotEncode, match=r"rag, tool_use.*none is named default.*template: FILE\.jinja"):
        encoded(directory, GRID["one turn"])
    assert list(encoded(directory, WITH_CALLS).ids) == by_transformers(directory, WITH_CALLS)[0]


def test_the_template_file_comes_before_the_one_in_the_configuration(tmp_path: Path) -> None:
    directory = change(begins(tmp_path / "tokenizer"), chat_template="OLD {{ messages[0].content }}")
    check(directory, GRID["one turn"])
    (directory / "chat_template.jinja").unlink()
    with pytest.raises(CannotEncode, match="leaves out"):
        encoded(directory, GRID["one turn"])


@pytest.mark.parametrize("shaped", [spaced, begins, byte_level])
@pytest.mark.parametrize("adds", [{"add_bos_token": True}, {"add_bos_token": True, "add_eos_token": True}])
def test_a_template_that_writes_bos_and_a_tokenizer_that_adds_it(tmp_path: Path, shaped: Any, adds: Any) -> None:
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<s>" if shaped is not spaced else "<unk>"}
    kind = "LlamaTokenizerFast" if shaped is spaced else "PreTrainedTokenizerFast"
    directory = change(shaped(tmp_path / "tokenizer"), tokenizer_class=kind, **named, **adds)
    found = check(directory, GRID["system, two turns"])
    assert found.ids.count(load(directory).bos_token_id) == 1
    plain = encoded(directory, {"prompt": "Hi there", "completion": "Yes, hello."})
    tokenizer = load(directory)
    whole = list(tokenizer("Hi thereYes, hello.")["input_ids"])
    assert list(plain.ids) == (whole if whole[-1] == tokenizer.eos_token_id else [*whole, tokenizer.eos_token_id])
    assert plain.ids.count(tokenizer.eos_token_id) == 1


def test_a_prompt_that_opens_a_think_block(tmp_path: Path) -> None:
    """Ids are the whole conversation's; the loss begins behind what the model is given, also of it the block that it
    opens, or where an answer without one parts from it."""
    opened = CHATML.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}")
    thought = "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}" + CLOSED
    template = opened.replace(CLOSED, thought)
    directory = begins(tmp_path / "tokenizer")
    (directory / "chat_template.jinja").write_text(template)
    tokenizer = load(directory)
    for messages, runs in (
        ([U, THOUGHT], ["Three and four.\n</think>\n\nSeven.<|im_end|>\n"]),
        ([U, A], ["Yes, hello.<|im_end|>\n"]),
        ([U, THOUGHT, U2, A2], ["Three and four.\n</think>\n\nSeven.<|im_end|>\n", "Paris, of course<|im_end|>\n"]),
    ):
        found = encoded(directory, {"messages": messages})
        assert list(found.ids) == by_transformers(directory, {"messages": messages})[0]
        assert learned(tokenizer, found) == runs
        given = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, tokenize=False)
        whole = tokenizer.decode(found.ids)
        first = tokenizer.decode(found.ids[: found.mask.index(True)])
        assert whole.startswith(first)
        assert given.startswith(first)


def test_marks_of_generation_say_what_is_learned(shape: Path) -> None:
    template = marked(CHATML)
    (shape / "chat_template.jinja").write_text(template)
    for title in ("one turn", "system, two turns"):
        found = encoded(shape, GRID[title])
        assert (list(found.ids), [*map(int, found.mask)]) == by_transformers(shape, GRID[title], template)


def test_ids_beside_the_vocabulary_of_the_tokenizer(tmp_path: Path) -> None:
    """Tokens were added behind the vocabulary, with a gap, as models with a padded one have them."""
    directory = begins(tmp_path / "tokenizer")
    value = json.loads((directory / "tokenizer.json").read_text())
    largest = max(value["model"]["vocab"].values())
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    value["added_tokens"].append({"id": largest + 1, "content": "<|turn|>", **plain})
    value["added_tokens"].append({"id": largest + 2, "content": "<|over|>", **plain})
    (directory / "tokenizer.json").write_text(json.dumps(value))
    template = CHATML.replace("<|im_start|>", "<|turn|>").replace("<|im_end|>", "<|over|>")
    (directory / "chat_template.jinja").write_text(template)
    found = check(directory, {"messages": [S, U, A, U2, A2]}, template, "{{ m.content }}<|over|>\n")
    assert max(found.ids) == largest + 2
