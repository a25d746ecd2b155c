"""The forms in which people keep conversations and preferences, recognised by their fields.

================  =============================================================================
form              fields
================  =============================================================================
input-output      ``input``, ``output`` (the guide's)
alpaca            ``instruction``, ``output``, perhaps ``input``
prompt            ``prompt``, ``completion``; both texts, or both lists of messages
messages          ``messages``: [{role, content}]
sharegpt          ``conversations``: [{from, value}], perhaps ``system``
pair              ``prompt``, ``chosen``, ``rejected``; the answers as texts or lists of messages
chosen-rejected   ``chosen``, ``rejected`` as whole conversations that differ in the last message
================  =============================================================================
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ROLES = ("system", "user", "assistant", "tool")
_SHAREGPT = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "model": "assistant", "bing": "assistant", "system": "system", "tool": "tool", "observation": "tool",
}  # fmt: skip


class Unfit(Exception):
    """A row has no known form; ``reason`` for the count, ``str()`` for the user."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


Messages = tuple[Message, ...]


@dataclass(frozen=True)
class Conversation:
    """What comes before the answers, and the answers: one of instructions, chosen and rejected of preferences."""

    form: str
    before: Messages
    answers: tuple[str, ...]


def instructions(row: Mapping[str, Any], each: bool) -> list[Conversation]:
    """The conversation of a row; with ``each``, one for every answer in it.

    Raises:
        Unfit: no known form, an empty or null text, roles out of order.
    """
    form, messages = _conversation(row)
    _check_turns(messages)
    ends = [at for at, message in enumerate(messages) if message.role == "assistant"]
    chosen = ends if each else ends[-1:]
    return [Conversation(form, messages[:at], (messages[at].content,)) for at in chosen]


def preferences(row: Mapping[str, Any]) -> Conversation:
    """The two answers of a row and what comes before them.

    Raises:
        Unfit: no known form, an empty or null text, conversations that differ before the last answer.
    """
    if "chosen" not in row or "rejected" not in row:
        raise Unfit("unknown_form", f'has no fields "chosen" and "rejected", but {_names(row)}')
    if "prompt" in row:
        before = _as_messages(row, "prompt", "user")
        answers = [_answer(row, name) for name in ("chosen", "rejected")]
        return Conversation("pair", before, tuple(answers))
    both = [_message_list(row, name) for name in ("chosen", "rejected")]
    for messages in both:
        _check_turns(messages)
    if both[0][:-1] != both[1][:-1]:
        raise Unfit("different_prompts", "chosen and rejected differ before the last message")
    return Conversation("chosen-rejected", both[0][:-1], tuple(messages[-1].content for messages in both))


def _conversation(row: Mapping[str, Any]) -> tuple[str, Messages]:
    if "messages" in row:
        return "messages", _message_list(row, "messages")
    if "conversations" in row:
        system = [Message("system", _text(row, "system"))] if row.get("system") else []
        return "sharegpt", (*system, *_message_list(row, "conversations"))
    if "prompt" in row and "completion" in row:
        return "prompt", (*_as_messages(row, "prompt", "user"), *_as_messages(row, "completion", "assistant"))
    if "instruction" in row and "output" in row:
        asked = _text(row, "instruction")
        if row.get("input"):
            asked = f"{asked}\n\n{_text(row, 'input')}"
        return "alpaca", (Message("user", asked), Message("assistant", _text(row, "output")))
    if "input" in row and "output" in row:
        return "input-output", (Message("user", _text(row, "input")), Message("assistant", _text(row, "output")))
    raise Unfit(
        "unknown_form",
        'has no form of instructions: {"input", "output"}, {"prompt", "completion"}, {"messages"}, {"conversations"} '
        f'or {{"instruction", "output"}}, but {_names(row)}',
    )


def _names(row: Mapping[str, Any]) -> str:
    return "the fields " + (", ".join(f'"{name}"' for name in list(row)[:8]) or "(none)")


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        raise Unfit("null_field", f'field "{name}" is {"null" if name in row else "missing"}')
    if not isinstance(value, str):
        raise Unfit("not_text", f'field "{name}" is {type(value).__name__}, not a text')
    if not value.strip():
        raise Unfit("empty_text", f'field "{name}" is empty')
    return value


def _as_messages(row: Mapping[str, Any], name: str, role: str) -> Messages:
    if isinstance(row.get(name), list | tuple):
        return _message_list(row, name)
    return (Message(role, _text(row, name)),)


def _answer(row: Mapping[str, Any], name: str) -> str:
    """An answer as text; of a list of messages its only, or last, one."""
    messages = _as_messages(row, name, "assistant")
    if messages[-1].role != "assistant":
        raise Unfit("wrong_roles", f'field "{name}" ends with a message of {messages[-1].role}')
    return messages[-1].content


def _message_list(row: Mapping[str, Any], name: str) -> Messages:
    value = row.get(name)
    if not isinstance(value, list | tuple) or not value:
        raise Unfit("not_messages", f'field "{name}" is no list of messages')
    found = []
    for number, entry in enumerate(value):
        if not isinstance(entry, Mapping):
            raise Unfit("not_messages", f"{name}[{number}] is no message")
        sharegpt = "from" in entry
        role = entry.get("from" if sharegpt else "role")
        role = _SHAREGPT.get(str(role).lower()) if sharegpt else role
        if role not in ROLES:
            raise Unfit("wrong_roles", f"{name}[{number}] has the role {entry.get('from', entry.get('role'))!r}")
        content = entry.get("value" if sharegpt else "content")
        if not isinstance(content, str) or not content.strip():
            raise Unfit("null_field" if content is None else "empty_text", f"{name}[{number}] has no content")
        found.append(Message(str(role), content))
    return tuple(found)


def _check_turns(messages: Messages) -> None:
    """A system message first if at all, then user and assistant in turn (tool results may stand between)."""
    roles = [message.role for message in messages if message.role != "tool"]
    if roles[:1] == ["system"]:
        roles = roles[1:]
    if roles[-1:] != ["assistant"]:
        raise Unfit("no_answer", "the conversation does not end with an answer")
    if roles[0] != "user" or "system" in roles:
        raise Unfit("wrong_roles", f"the roles are out of order: {', '.join(m.role for m in messages[:6])}")
    for one, other in itertools.pairwise(roles):
        if one == other == "user":
            raise Unfit("wrong_roles", "two messages of the user follow each other")
