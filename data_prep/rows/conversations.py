"""Which rows are pieces of one conversation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from data_prep.rows.messages import said
from jobs.encoding.messages import Message


def keys(spoken: Sequence[Message], answers: Sequence[Sequence[Message]]) -> tuple[str, ...]:
    """Keys that a row shares with the others of its conversation: what was said up to the first answer, that included.

    A greeting with which many conversations begin does not join them, since their first answers differ. Of preferences
    the conversation may go on with either answer.
    """
    begun = set()
    for answer in answers:
        turns = [(message["role"], said(message)) for message in (*spoken, *answer)]
        first = next(at for at, (role, _) in enumerate(turns) if role == "assistant")
        begun.add(tuple(turns[: first + 1]))
    return tuple("c:" + hashlib.sha256(repr(one).encode()).hexdigest() for one in sorted(begun))
