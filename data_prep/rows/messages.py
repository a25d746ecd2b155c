"""Lists of messages as people keep them, checked and brought to one form: that of transformers' chat templates.

A message is a dictionary: ``role``, ``content`` (a text, text in parts, or null beside ``tool_calls``), and what else
it had of ``FIELDS``. Nothing of it is dropped: a field that is not known is an error, unless it is ignored by name.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.common.errors import leaving_out
from jobs.encoding.messages import REASONING_NAMES, THOUGHT, Message

FIELDS = ("role", "content", "tool_calls", "tool_call_id", "name", "weight", *REASONING_NAMES)
ROLES = ("system", "developer", "user", "assistant", "tool")
_SHAREGPT = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "model": "assistant", "bing": "assistant", "system": "system", "tool": "tool", "observation": "tool",
    "function_call": "assistant",
}  # fmt: skip
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


class Unfit(Exception):
    """A row has no known form; ``reason`` for the count, ``str()`` for the user."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def message_list(value: Any, name: str) -> list[Message]:
    """The messages of a field.

    Raises:
        Unfit: no list of messages, an unknown role or field, no content.
    """
    if isinstance(value, str):
        raise Unfit("not_messages", f'field "{name}" is a text: it must be a list of messages, not JSON in a text')
    if not isinstance(value, list | tuple) or not value:
        raise Unfit("not_messages", f'field "{name}" is not a list of messages')
    return [message(entry, f"{name}[{number}]") for number, entry in enumerate(value)]


def message(entry: Any, place: str) -> Message:
    """One message, of OpenAI's or ShareGPT's form.

    Raises:
        Unfit: as ``message_list``.
    """
    if not isinstance(entry, Mapping):
        raise Unfit("not_messages", f"{place} is not a message")
    given = {key: value for key, value in entry.items() if value is not None}
    if "from" in given:
        given = _of_sharegpt(given, place)
    if "function_call" in given or given.get("role") == "function":
        given = _of_functions(given, place)
    role = given.get("role")
    if role not in ROLES:
        raise Unfit("wrong_roles", f"{place} has the role {role!r}; known: {', '.join(ROLES)}")
    found: Message = {"role": role, "content": _content(given.get("content"), f"{place}.content")}
    for key, value in given.items():
        if key in ("role", "content") or value in ("", [], {}):
            continue
        if key not in FIELDS:
            hint = '"weight": 0 keeps a turn from being learned; else ' if isinstance(value, bool) else ""
            raise Unfit(
                "unknown_field", f'{place} has the field "{key}", which is not used: {hint}write {leaving_out(key)}'
            )
        found[key] = value
    if calls := found.get("tool_calls"):
        found["tool_calls"] = _calls(calls, f"{place}.tool_calls")
    _check(found, place)
    return found


def _of_functions(given: dict[str, Any], place: str) -> dict[str, Any]:
    """A message with OpenAI's older words for calls of tools and their results."""
    found = {**given, "role": "tool" if given.get("role") == "function" else given.get("role")}
    if call := found.pop("function_call", None):
        if "tool_calls" in found:
            raise Unfit("two_forms", f'{place} has both "function_call" and "tool_calls": remove one of them')
        found["tool_calls"] = [call]
    return found


def _of_sharegpt(given: dict[str, Any], place: str) -> dict[str, Any]:
    spoken = given.pop("from")
    if twice := [name for name in ("role", "content") if name in given]:
        raise Unfit("two_forms", f'{place} has both "{twice[0]}" and "from": remove the fields of one of the two forms')
    role = _SHAREGPT.get(str(spoken).lower())
    if role is None:
        raise Unfit("wrong_roles", f"{place} is from {spoken!r}; known: {', '.join(_SHAREGPT)}")
    value = given.pop("value", None)
    if str(spoken).lower() != "function_call":
        return {"role": role, "content": value, **given}
    try:
        call = json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise Unfit("not_a_call", f"{place} is from function_call, but its value is not JSON: {error}") from error
    calls = call if isinstance(call, list) else [call]
    return {"role": role, "content": None, "tool_calls": calls, **given}


def _content(value: Any, place: str) -> Any:
    """The content as it is: a text, or parts of text."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list | tuple):
        raise Unfit("not_text", f"{place} is {type(value).__name__}, not a text")
    parts = []
    for number, part in enumerate(value):
        part = {"type": "text", "text": part} if isinstance(part, str) else part
        own = {key: one for key, one in part.items() if one is not None} if isinstance(part, Mapping) else {}
        if own.get("type") != "text" or not isinstance(own.get("text"), str):
            kind = own.get("type", type(part).__name__)
            raise Unfit("not_text", f"{place}[{number}] is of type {kind!r}: only parts of type text can be learned")
        if unknown := sorted(own.keys() - {"type", "text"}):
            raise Unfit("unknown_field", f'{place}[{number}] has the field "{unknown[0]}", which is not used')
        parts.append({"type": "text", "text": own["text"]})
    return parts


def _calls(value: Any, place: str) -> list[dict[str, Any]]:
    if not isinstance(value, list | tuple):
        raise Unfit("not_a_call", f"{place} is not a list of calls")
    found = []
    for number, call in enumerate(value):
        own = {key: one for key, one in call.items() if one is not None} if isinstance(call, Mapping) else {}
        if "function" not in own and "name" in own:
            own = {"type": "function", "function": own}
        function = own.get("function")
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise Unfit(
                "not_a_call", f"{place}[{number}] is not a call: it must have a function with name and arguments"
            )
        found.append({**own, "function": dict(function)})
    return found


def _check(found: Message, place: str) -> None:
    role, weight = found["role"], found.get("weight", 1)
    if not said(found).strip() and not found.get("tool_calls"):
        raise Unfit("null_field" if found["content"] is None else "empty_text", f"{place} has no content")
    if weight not in (0, 1):
        raise Unfit("wrong_weight", f"{place}.weight is {weight!r}: it must be 0 or 1")
    for key in ("weight", "tool_calls", *REASONING_NAMES):
        if key in found and role != "assistant" and not (key == "weight" and weight == 0):
            raise Unfit("wrong_roles", f'{place} has "{key}", which only messages of the assistant may have')
    if role != "assistant":
        found.pop("weight", None)
    for key in (*REASONING_NAMES, "name", "tool_call_id"):
        if key in found and not isinstance(found[key], str):
            raise Unfit("not_text", f"{place}.{key} is {type(found[key]).__name__}, not a text")


def said(found: Message) -> str:
    """The content of a message as one text."""
    content = found.get("content") or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def written(found: Sequence[Message]) -> str:
    """The texts of messages, with calls of tools as JSON, to compare and to show."""
    return "\n".join(
        part
        for one in found
        for part in (said(one), *(json.dumps(call, ensure_ascii=False) for call in one.get("tool_calls", ())))
        if part
    )


def without_reasoning(found: Sequence[Message]) -> list[Message]:
    """The messages without what the assistant thought before it answered."""
    kept = []
    for one in found:
        one = {key: value for key, value in one.items() if key not in REASONING_NAMES}
        if one["role"] == "assistant" and (thought := THOUGHT.match(said(one))):
            rest = said(one)[thought.end() :]
            one["content"] = [{"type": "text", "text": rest}] if isinstance(one["content"], list) else rest
        kept.append(one)
    return kept


def check_turns(found: Sequence[Message]) -> None:
    """A system message first if at all, then user and assistant in turn; results of tools stand behind calls.

    Raises:
        Unfit: otherwise, or where the last message is not of the assistant.
    """
    roles = [one["role"] for one in found]
    order = ", ".join(roles[:8])
    if roles[-1] != "assistant":
        raise Unfit("no_answer", f"the conversation does not end with an answer, but with a message of {roles[-1]}")
    rest = roles[1:] if roles[0] in ("system", "developer") else roles
    if rest[:1] != ["user"] or "system" in rest or "developer" in rest:
        raise Unfit("wrong_roles", f"the roles are out of order: {order} (a system message comes first, then the user)")
    for one, other in itertools.pairwise(rest):
        if one == other != "tool" or (one, other) in (("user", "tool"), ("tool", "user")):
            raise Unfit("wrong_roles", f"a message of {other} follows one of {one}: {order}")
    known: set[Any] = set()
    for at, message in enumerate(found):
        known.update(call["id"] for call in message.get("tool_calls", ()) if call.get("id"))
        if known and (own := message.get("tool_call_id")) is not None and own not in known:
            raise Unfit(
                "unknown_call", f"message {at + 1} is the result of a call with the id {own!r}, which is not there"
            )


def transcript(text: str, place: str) -> list[Message]:
    """The messages of a text such as ``\\n\\nHuman: ... \\n\\nAssistant: ...`` (HH-RLHF); an open end is no message.

    Raises:
        Unfit: it begins in another way.
    """
    rest = "\n\n" + text.lstrip()
    if not rest.startswith(_HUMAN):
        raise Unfit("not_messages", f'field "{place}" is not a transcript: it must begin with "Human:"')
    found: list[Message] = []
    while rest:
        mark, role = (_HUMAN, "user") if rest.startswith(_HUMAN) else (_ASSISTANT, "assistant")
        rest = rest[len(mark) :]
        ends = [at for at in (rest.find(_HUMAN), rest.find(_ASSISTANT)) if at >= 0]
        end = min(ends, default=len(rest))
        found.append({"role": role, "content": rest[:end].strip()})
        rest = rest[end:]
    if len(found) > 1 and not found[-1]["content"]:
        found.pop()
    for number, one in enumerate(found):
        if not one["content"]:
            raise Unfit("empty_text", f'message {number + 1} of the transcript "{place}" is empty')
    return found


def is_transcript(value: Any) -> bool:
    """Whether a text has the form of ``transcript``."""
    return isinstance(value, str) and ("\n\n" + value.lstrip()).startswith(_HUMAN) and _ASSISTANT in value
