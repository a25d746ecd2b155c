"""The messages of a conversation as a template wants them, and what of them has to stand in its text."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jobs.encoding.errors import CannotEncode
from jobs.encoding.frames import mark

Message = dict[str, Any]

REASONING_NAMES = ("reasoning_content", "thinking", "reasoning")
"""Fields of a message in which a reasoning stands; each template knows one or two of them."""
ANCHOR = "\ue000"
"""Stands in a text to find its place."""
_TAKES_JSON = re.compile(r"arguments\s+is\s+(not\s+)?(string|mapping)")


THOUGHT = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)
"""A reasoning at the beginning of a text."""


def names_read(template: str) -> list[str]:
    """The fields of a message that a template reads as its reasoning."""
    return [name for name in REASONING_NAMES if re.search(rf"[.'\"]{name}\b", template)]


def with_reasoning(messages: list[Message], template: str, keep: bool) -> list[Message]:
    """The messages with their reasoning under the name that the template reads.

    Raises:
        CannotEncode: the template reads none, or another one, and the data set does not say what is meant.
    """
    read = names_read(template)
    for name in REASONING_NAMES:
        if name in read or not any(message.get(name) for message in messages):
            continue
        at = next(at for at, message in enumerate(messages) if message.get(name))
        if read and keep:
            messages = [_renamed(message, name, read[0]) for message in messages]
            continue
        hint = f"reasoning: keep gives it as {read[0]}, " if read else ""
        raise CannotEncode(
            "left_out_by_template",
            f"the chat template does not read messages[{at}].{name}: {hint}reasoning: strip leaves it out",
        )
    return messages


def thinks_twice(message: Message, text: str) -> bool:
    """Whether ``text`` has a think block directly before that of the content of an answer: a template has written one
    of its own, and does not know that the answer has one."""
    content = "".join(texts(message))
    if message["role"] != "assistant" or not THOUGHT.match(content):
        return False
    before, found, _ = text.partition(content.strip())
    return bool(found) and before.rstrip().endswith("</think>")


def with_thoughts_apart(messages: list[Message], name: str) -> list[Message]:
    """The messages with the reasoning at the beginning of an answer in the field ``name``."""
    found = []
    for message in messages:
        content = "".join(texts(message))
        own = THOUGHT.match(content) if message["role"] == "assistant" else None
        if own and name not in message:
            message = {**message, "content": content[own.end() :], name: own[1].strip()}
        found.append(message)
    return found


def variants(messages: list[Message], template: str) -> Iterator[list[Message]]:
    """The messages as the template wants them: as they are, or with what is meant by them in another type.

    OpenAI's arguments of tool calls are JSON in a text, transformers' are objects; a template may take either or both.
    Content that is null may be no text for it, and one in parts none either. ``developer`` is ``system`` where it is
    not known.
    """
    first = messages if _TAKES_JSON.search(template) else _with_arguments(messages, _as_object)
    yield first
    changes: list[Callable[[list[Message]], list[Message]]] = [with_text]
    if any(isinstance(message.get("content"), list) for message in messages):
        changes.append(_with_joined)
    if any("tool_calls" in message for message in messages):
        changes += [
            lambda found: _with_arguments(found, _as_object),
            lambda found: _with_arguments(found, _as_text),
            lambda found: with_text(_with_arguments(found, _as_object)),
            lambda found: with_text(_with_arguments(found, _as_text)),
        ]
    if any(message["role"] == "developer" for message in messages):
        changes.append(
            lambda found: [{**one, "role": "system"} if one["role"] == "developer" else one for one in found]
        )
    seen = [first]
    for change in changes:
        changed = change(messages)
        if changed not in seen:
            seen.append(changed)
            yield changed


def _renamed(message: Message, old: str, new: str) -> Message:
    if old not in message or new in message:
        return message
    return {new if key == old else key: value for key, value in message.items()}


def with_text(messages: list[Message]) -> list[Message]:
    """The messages with an empty text for content that is null."""
    return [{**message, "content": message.get("content") or ""} for message in messages]


def _with_joined(messages: list[Message]) -> list[Message]:
    return [{**message, "content": "".join(texts(message))} for message in messages]


def _with_arguments(messages: list[Message], change: Callable[[Any], Any]) -> list[Message]:
    found = []
    for message in messages:
        if calls := message.get("tool_calls"):
            message = {**message, "tool_calls": [_call_with(call, change) for call in calls]}
        found.append(message)
    return found


def _call_with(call: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    if "function" in call:
        return {**call, "function": _call_with(call["function"], change)}
    return {**call, "arguments": change(call["arguments"])} if "arguments" in call else dict(call)


def _as_object(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments
    try:
        value = json.loads(arguments)
    except ValueError:
        return arguments
    return value if isinstance(value, dict) else arguments


def _as_text(arguments: Any) -> Any:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def texts(message: Message) -> list[str]:
    """The texts of the content of a message."""
    content = message.get("content") or ""
    return [content] if isinstance(content, str) else [str(part.get("text", "")) for part in content]


def shown(message: Message) -> list[str]:
    """The texts of a message that have to stand in the whole; of an answer, what stands behind its reasoning."""
    found = texts(message)
    if message["role"] == "assistant":
        found = [text.rpartition("</think>")[2] for text in found]
    return [text.strip() for text in found if text.strip()]


def thought(message: Message) -> str:
    """The reasoning of an answer, from a field of its own or from the beginning of its content."""
    for name in REASONING_NAMES:
        if isinstance(message.get(name), str) and message[name].strip():
            return str(message[name]).strip()
    before, end, _ = "".join(texts(message)).partition("</think>")
    return before.rpartition("<think>")[2].strip() if end else ""


def holds(text: str, part: str) -> bool:
    """Whether a text holds a part of it, as it is or written as JSON."""
    return part in text or json.dumps(part)[1:-1] in text or json.dumps(part, ensure_ascii=False)[1:-1] in text


def with_anchor(message: Message, behind: bool) -> Message:
    """The message with ``ANCHOR`` before or ``behind`` its content (of tool calls alone: the name of the last one).

    Raises:
        CannotEncode: it has neither.
    """
    content = message.get("content")
    if isinstance(content, list):
        full = [at for at, text in enumerate(texts(message)) if text.strip()]
        if full:
            at = full[-1 if behind else 0]
            part = with_anchor({"role": "", "content": content[at]["text"]}, behind)["content"]
            return {**message, "content": [*content[:at], {**content[at], "text": part}, *content[at + 1 :]]}
    if isinstance(content, str) and content.strip():
        start = content.rfind("</think>") + len("</think>") if "</think>" in content else 0
        core = content[start:].strip()
        first = content.index(core, start) if core else start
        place = first + len(core) if behind else first
        return {**message, "content": content[:place] + ANCHOR + content[place:]}
    calls = [dict(call) for call in message.get("tool_calls") or ()]
    if not calls:
        raise CannotEncode("no_place_of_answer", "a message without text has no place")
    last = calls[-1]
    own = {**last["function"]} if "function" in last else last
    own["name"] = own["name"] + ANCHOR if behind else ANCHOR + own["name"]
    if "function" in last:
        last["function"] = own
    return {**message, "tool_calls": calls}


def renamed_call(call: Mapping[str, Any], mark: str) -> dict[str, Any]:
    """A call or a tool with ``mark`` behind its name."""
    if "function" in call:
        return {**call, "function": renamed_call(call["function"], mark)}
    return {**call, "name": f"{call.get('name', '')}{mark}"}


def marked(messages: list[Message], tools: Any) -> tuple[list[Message], list[dict[str, Any]], dict[str, str]]:
    """Messages and tools with a mark behind each text, call, tool and name of a speaker, and what each mark is of."""
    known: dict[str, str] = {}

    def new(what: str) -> str:
        known[mark(len(known))] = what
        return mark(len(known) - 1)

    found = []
    for at, message in enumerate(messages):
        content, place = message.get("content"), f"messages[{at}]"
        if shown(message):
            text = f"{place}.content (role {message['role']})"
            if isinstance(content, str):
                content = with_anchor(message, behind=True)["content"].replace(ANCHOR, new(text))
            else:
                content = [
                    {**part, "text": part["text"].rstrip() + new(text)} if part["text"].strip() else part
                    for part in content or ()
                ]
            message = {**message, "content": content}
        if calls := message.get("tool_calls"):
            message = {**message, "tool_calls": [renamed_call(call, new(f"{place}.tool_calls")) for call in calls]}
        if message.get("name") and message["role"] != "tool":
            message = {**message, "name": message["name"] + new(f"{place}.name")}
        found.append(message)
    return found, [renamed_call(tool, new(f"tools[{at}]")) for at, tool in enumerate(tools or ())], known


def in_order_of_calls(messages: list[Message]) -> list[Message] | None:
    """The messages where results of tools say that they are in the order of the calls; None where they do say so."""
    found = list(messages)
    for at, message in enumerate(messages, 1):
        order = [call.get("id") for call in message.get("tool_calls") or ()]
        results = list(itertools.takewhile(lambda one: one["role"] == "tool", messages[at:])) if order else []
        said: dict[Any, Message] = {one.get("tool_call_id"): one for one in results}
        if None not in said and said.keys() <= set(order):
            for place, own in enumerate(sorted(said, key=order.index), at):
                more: Message = {key: said[own][key] for key in ("tool_call_id", "name") if key in said[own]}
                found[place] = {**messages[place], **more}
    return found if found != messages else None
