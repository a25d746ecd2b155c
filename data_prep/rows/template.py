"""Conversations to the text that a model reads: prompt up to where the answer begins, and the answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from data_prep.common.errors import DataError, SettingsError
from data_prep.rows.forms import Message
from data_prep.rows.recipe import RowRecipe

LLAMA_3_2 = """<|begin_of_text|><|start_header_id|>system<|end_header_id|>

You are a helpful assistant.<|eot_id|><|start_header_id|>user<|end_header_id|>

{input}
Answer: <|eot_id|><|start_header_id|>assistant<|end_header_id|>

{output}"""
"""The prompt template of NVIDIA's fine-tuning guide for Llama 3.2."""
NAMED = {"llama-3.2": LLAMA_3_2}

Render = Callable[[Sequence[Message]], str]


class NoPlace(Exception):
    """A template has no place for this conversation: several turns, or a system message."""


class Template:
    """``prompt`` gives the text up to the answer, ``answer`` what the model has to write."""

    def __init__(self, recipe: RowRecipe) -> None:
        """Raises:
        SettingsError: the tokenizer has no chat template, or the text has no {input} and {output}.
        """
        self._system = recipe.system
        self._end = ""
        self.name = recipe.template or "none"
        if recipe.template is None:
            self._prompt: Render = _plain
        elif recipe.template == "model":
            assert recipe.tokenizer is not None
            self._prompt, self._end = _chat_template(Path(recipe.tokenizer))
        else:
            self._prompt = _filled(NAMED.get(recipe.template, recipe.template))

    def prompt(self, before: Sequence[Message]) -> str:
        """The text of everything before the answer.

        Raises:
            NoPlace: the template cannot hold it.
        """
        if self._system is not None and before[0].role != "system":
            before = (Message("system", self._system), *before)
        return self._prompt(before)

    def answer(self, text: str) -> str:
        """The answer as the model has to write it, without the end token, which trainers add."""
        return text.removesuffix(self._end) if self._end else text


def _plain(before: Sequence[Message]) -> str:
    if [message.role for message in before] != ["user"]:
        raise NoPlace("several turns or a system message need a template")
    return before[0].content


def _filled(template: str) -> Render:
    if template.count("{input}") != 1 or not template.endswith("{output}") or template.count("{output}") != 1:
        raise SettingsError(
            f"setting prepare.template: must be model, {', '.join(NAMED)}, or a text with {{input}} in it once and "
            f"{{output}} at its end, not {template[:60]!r}"
        )
    head, tail = template.removesuffix("{output}").split("{input}")

    def render(before: Sequence[Message]) -> str:
        # Joined, not formatted: a template is data, and so is what a user writes.
        return head + _plain(before) + tail

    return render


def _chat_template(directory: Path) -> tuple[Render, str]:
    """The tokenizer's own template by Jinja, in the sandbox and with the functions that transformers gives it."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    source, special = _template_source(directory)
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime(2024, 7, 26).strftime(form)  # fixed: rows must not age
    try:
        compiled = environment.from_string(source)
    except TemplateError as error:
        raise SettingsError(f"the chat template of {directory} cannot be read: {error}") from error

    def render(before: Sequence[Message]) -> str:
        turns = [{"role": message.role, "content": message.content} for message in before]
        try:
            return compiled.render(messages=turns, add_generation_prompt=True, **special)
        except TemplateError as error:
            raise NoPlace(f"the chat template refuses it: {error}") from error

    return render, special.get("eos_token", "")


def _refuse(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _template_source(directory: Path) -> tuple[str, dict[str, str]]:
    try:
        config: dict[str, Any] = json.loads((directory / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", directory / "tokenizer_config.json") from error
    special = {}
    for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
        token = config.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            special[name] = token
    own = directory / "chat_template.jinja"
    source = own.read_text(encoding="utf-8") if own.is_file() else config.get("chat_template")
    if isinstance(source, list):  # several, by name
        source = next((entry["template"] for entry in source if entry.get("name") == "default"), None)
    if not isinstance(source, str):
        raise SettingsError(f"setting prepare.template: the tokenizer {directory} has no chat template")
    return source, special
