"""Chat templates over a grid of conversations: our ids and loss beside those of transformers.

``python -m tests.support.templates`` writes docs/templates.md. The templates are those that TRL ships and some in the
shape of other families; the tokenizers are small ones that know the control tokens of the template.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from jobs.encoding.errors import CannotEncode
from jobs.encoding.load import load
from jobs.encoding.rows import RowEncoder
from jobs.encoding.settings import TEMPLATE_DATE

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/templates.md"
SHAPES = Path(__file__).parent / "template_shapes"
_CONTROL = re.compile(r"<[|｜]?[A-Za-z_/][^<>\s'\"+={}]{0,40}>|\[/?[A-Z_]{3,}\]|<｜[^<>\s'\"]+｜>")
_TEXT_TOKENS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")

U, A = {"role": "user", "content": "Hi there"}, {"role": "assistant", "content": "Yes, hello."}
U2, A2 = {"role": "user", "content": " And the capital?\n"}, {"role": "assistant", "content": "Paris, of course"}
S = {"role": "system", "content": "You answer in short."}
THOUGHT = {"role": "assistant", "content": "Seven.", "reasoning_content": "Three and four."}
INLINE = {"role": "assistant", "content": "<think>\nThree and four.\n</think>\n\nSeven."}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Lisbon"}}}],
}
RESULT = {"role": "tool", "name": "weather", "content": "21 degrees"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
GRID: dict[str, dict[str, Any]] = {
    "one turn": {"messages": [U, A]},
    "two turns": {"messages": [U, A, U2, A2]},
    "three turns": {"messages": [U, A, U2, A2, U, A]},
    "system": {"messages": [S, U, A]},
    "system, two turns": {"messages": [S, U, A, U2, A2]},
    "last answer only": {"messages": [U, {**A, "weight": 0}, U2, A2]},
    "first answer only": {"messages": [U, A, U2, {**A2, "weight": 0}]},
    "reasoning": {"messages": [U, THOUGHT]},
    "reasoning, two turns": {"messages": [U, THOUGHT, U2, {**THOUGHT, "content": "Eight."}]},
    "reasoning in the text": {"messages": [U, INLINE]},
    "content in parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi there"}]}, A]},
    "all in parts": {
        "messages": [
            {"role": one["role"], "content": [{"type": "text", "text": one["content"]}]} for one in (U, A, U2, A2)
        ]
    },
    "tool call": {"messages": [U, CALL], "tools": TOOLS},
    "tool call and result": {"messages": [U, CALL, RESULT, A], "tools": TOOLS},
    "tool call, two turns": {"messages": [S, U, CALL, RESULT, A, U2, A2], "tools": TOOLS},
}


@dataclass
class Result:
    """What came of one template. ``wrong``: rows whose ids are others than those of transformers, or whose loss is."""

    name: str
    tried: int = 0
    equal: int = 0
    wrong: list[str] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=dict)


def templates() -> dict[str, str]:
    """All templates by name."""
    import trl

    shipped = Path(trl.__file__).parent / "chat_templates"
    found = {f"trl/{path.stem}": path.read_text(encoding="utf-8") for path in sorted(shipped.glob("*.jinja"))}
    shapes = {f"shape/{path.stem}": path.read_text(encoding="utf-8") for path in sorted(SHAPES.glob("*.jinja"))}
    return found | shapes


def write_tokenizer(directory: Path, template: str, *, bos: str = "<s>", eos: str = "</s>") -> Path:
    """A byte-level tokenizer that has the control tokens of a template, puts ``bos`` before each text, and has
    truncation and padding saved in its file."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    own = sorted({*_CONTROL.findall(template)} - {*_TEXT_TOKENS, bos, eos})
    tokenizer.add_special_tokens([bos, eos, "<unk>", *own])
    tokenizer.add_tokens([AddedToken(one, normalized=False) for one in _TEXT_TOKENS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=12)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": eos, "unk_token": "<unk>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    (directory / "chat_template.jinja").write_text(template, encoding="utf-8")
    return directory


def walk(name: str, template: str) -> Result:
    """Every conversation of the grid in one template."""
    found = Result(name)
    with tempfile.TemporaryDirectory() as directory:
        tokenizer = load(write_tokenizer(Path(directory), template))
        encoder = RowEncoder(tokenizer)
        for title, row in GRID.items():
            found.tried += 1
            try:
                ours = encoder.encode(row)["completion"]
            except CannotEncode as error:
                found.refused.setdefault(error.reason, []).append(f"{title}: {error}")
                continue
            messages = [{key: value for key, value in one.items() if key != "weight"} for one in row["messages"]]
            marks = "generation" in re.findall(r"\{%-?\s*(\w+)", template)
            right = by_transformers(tokenizer, messages, row.get("tools"), marks)
            if list(ours.ids) != list(right["input_ids"]):
                found.wrong.append(f"{title}: other ids")
            elif marks and "answer only" not in title and [*map(int, ours.mask)] != right["assistant_masks"]:
                found.wrong.append(f"{title}: other loss than that of transformers")
            elif problem := loss_problem(tokenizer, ours, row["messages"]):
                found.wrong.append(f"{title}: {problem}")
            else:
                found.equal += 1
    return found


def by_transformers(tokenizer: Any, messages: list[dict[str, Any]], tools: Any, marks: bool) -> Any:
    """``apply_chat_template``; of templates that take the arguments of a call as JSON only, with these."""
    today = datetime.fromisoformat(TEMPLATE_DATE).strftime
    options = {"tools": tools, "return_dict": True, "return_assistant_tokens_mask": marks, "strftime_now": today}
    if any(isinstance(one["content"], list) for one in messages):
        texts = [{**one, "content": joined(one["content"])} for one in messages]
        try:
            made = tokenizer.apply_chat_template(messages, **options)
        except (TypeError, TemplateError):  # the template takes texts only
            return tokenizer.apply_chat_template(texts, **options)
        # One that writes the parts out as Python or JSON does, or leaves them out, was not made for them.
        written = tokenizer.decode(made["input_ids"])
        if "'type'" in written or '"type"' in written or "Hi there" not in written:
            return tokenizer.apply_chat_template(texts, **options)
        return made
    try:
        return tokenizer.apply_chat_template(messages, **options)
    except TypeError:
        as_json = json.loads(json.dumps(messages))
        for call in (call for one in as_json for call in one.get("tool_calls", ())):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
        return tokenizer.apply_chat_template(as_json, **options)


def learned(tokenizer: Any, tokens: Any) -> list[str]:
    """The runs of text that carry loss."""
    runs: list[list[int]] = []
    before = False
    for number, now in zip(tokens.ids, tokens.mask, strict=True):
        if now and not before:
            runs.append([])
        if now:
            runs[-1].append(number)
        before = now
    return [tokenizer.decode(run, skip_special_tokens=False) for run in runs]


def joined(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def loss_problem(tokenizer: Any, tokens: Any, messages: list[dict[str, Any]]) -> str:
    """What is wrong with the loss of a conversation: each answer with weight is in it and closed, nothing else is."""
    runs = learned(tokenizer, tokens)
    messages = [{**one, "content": joined(one["content"])} for one in messages]
    answers = [one for one in messages if one["role"] == "assistant" and one.get("weight", 1)]
    others = [one["content"].strip() for one in messages if one["role"] != "assistant"]
    whole = "\0".join(runs)
    for one in answers:
        text = one["content"].rpartition("</think>")[2].strip() or "Lisbon"
        at = next((run for run in runs if text in run), None)
        if at is None:
            return f"{text!r} carries no loss: {runs}"
        if not at.partition(text)[2].strip():
            return f"nothing closes {text!r}: {runs}"
    for text in others:
        if text in whole:
            return f"{text!r} carries loss: {runs}"
    silent = [one["content"] for one in messages if one["role"] == "assistant" and not one.get("weight", 1)]
    for text in silent:
        if text in whole:
            return f"{text!r} carries loss in spite of weight 0: {runs}"
    return ""


def results() -> Iterator[Result]:
    for name, template in templates().items():
        yield walk(name, template)


REASONS = {
    "left_out_by_template": "the template leaves out",
    "refused_by_template": "the template raises an error at",
    "no_end_of_turn": "the template closes no answer of",
    "turns_change_in_template": "the template writes a turn in another way when more follows in",
    "no_place_of_answer": "the template does not say where the answer is in",
    "two_think_blocks": "the template writes a think block of its own before that of",
}


def page(found: list[Result]) -> str:
    """docs/templates.md."""
    rows = "\n".join(
        f"| {one.name} | {one.tried} | {one.equal} | "
        + "; ".join(
            f"{REASONS.get(reason, reason)}: " + ", ".join(text.split(": ")[0] for text in texts)
            for reason, texts in one.refused.items()
        )
        + " |"
        for one in found
    )
    grid = "\n".join(f"* {title}" for title in GRID)
    refused = sum(len(texts) for one in found for texts in one.refused.values())
    return f"""# Chat templates

Made by `python -m tests.support.templates`; a test holds this page. Each template renders these conversations:

{grid}

*Equal*: the ids are those of `apply_chat_template` of transformers, and the loss is on each answer whose `weight` is not
0, with the end of its turn, and on nothing else (of templates with `{{% generation %}}`: where transformers' own mask
is). The others are refused with the reason; no row came out otherwise. The templates are those that TRL ships and some
in the shape of other families (`tests/support/template_shapes`).

Of {sum(one.tried for one in found)} rows {sum(one.equal for one in found)} are equal and {refused} are refused.

| template | rows | equal | refused |
| --- | --- | --- | --- |
{rows}
"""


def main() -> None:
    from tests.support import environments, fed_rows, template_rows

    found = list(results())
    counts: dict[str, dict[str, tuple[int, int]]] = {}
    with tempfile.TemporaryDirectory() as directory:
        rows = Path(directory) / "rows"
        wanted = template_rows.write(rows)
        for names, environment, module in (
            (["trl", "trl preferences", "nemo_rl"], "", ""),
            (["nemo", "nemo packed"], "nemo", "nemo"),
            (["automodel"], "automodel", "nemo_automodel"),
        ):
            python = None
            if environment:
                venv = environments.installed(environment, module)
                python = environments.on_cpu(venv, Path(directory) / environment) / "bin/python"
            for name, given in template_rows.fed(names, rows, python).items():
                counts[name], wrong = template_rows.compare(wanted[fed_rows.FEEDS[name][1]], given)
                print(*(f"{name}: {problem}" for problem in wrong), sep="\n", end="\n" if wrong else "")
    for one in found:
        for problem in one.wrong:
            print(f"{one.name}: {problem}")
    PAGE.write_text(page(found) + template_rows.section(counts), encoding="utf-8")


if __name__ == "__main__":
    main()
