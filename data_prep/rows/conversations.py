"""Which rows are pieces of one conversation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from data_prep.rows.forms import Message


def keys(before: Sequence[Message], answers: Sequence[str]) -> tuple[str, ...]:
    """Keys that a row shares with the others of its conversation: what was said up to the first answer, that included.

    A greeting with which many conversations begin does not join them, since their first answers differ. Of preferences
    the conversation may go on with either answer.
    """
    turns = [(message.role, message.content) for message in before if message.role != "system"]
    first = next((at for at, (role, _) in enumerate(turns) if role == "assistant"), None)
    begun = [turns[: first + 1]] if first is not None else [[*turns, ("assistant", answer)] for answer in answers]
    return tuple("c:" + hashlib.sha256(repr(one).encode()).hexdigest() for one in begun)
