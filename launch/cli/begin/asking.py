"""The five questions, on a terminal: a question, what to write, and what Enter means. A wrong answer is asked again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from launch.base.errors import InputError

A = TypeVar("A")
Read = Callable[[str], A]
"""Makes an answer of what was typed. Raises InputError: what is wrong with it."""


def ask(question: str, read: Read[A], default: str = "") -> A:
    """The answer, asked until it is one. Raises InputError: standard input has ended."""
    shown = f" [{default}]" if default else ""
    while True:
        try:
            given = input(f"{question}{shown}: ").strip() or default
        except EOFError:
            raise InputError("the answers end here", hint="say the rest by options: overnight new --help") from None
        try:
            return read(given)
        except InputError as error:
            print(f"  {error.message}")


def ask_columns(names: tuple[str, ...]) -> dict[str, str]:
    """Which of the fields ``names`` hold the question and the answer."""

    def one_of(given: str) -> str:
        found = next((name for name in names if name.casefold() == given.casefold()), None)
        if found is None:
            raise InputError(f"is none of the fields: {', '.join(names)}")
        return found

    print(f"     the rows have fields of their own: {', '.join(names)}")
    asked = {"prompt": "     Which one is the question or prompt?", "completion": "     Which one is the answer?"}
    return {name: ask(question, one_of) for name, question in asked.items()}


def ask_many(question: str, read: Read[A]) -> list[A]:
    """Answers, one a line, until an empty one; at least one."""
    found: list[A] = []

    def each(given: str) -> A | None:
        if given:
            return read(given)
        if not found:
            raise InputError("at least one is needed")
        return None

    print(question)
    while (answer := ask("  ", each)) is not None:
        found.append(answer)
    return found
