"""Answers that are there already: a file with the answer to each row, scored without a model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from jobs.evaluate.server import Reply, Request, writable
from jobs.training.examples import ExamplesError

MODEL = "stored answers"


class Stored:
    """The answers in a file of JSON lines, ``{"id", "answer"}`` each; ``hypothesis`` says the same as ``answer``, so
    that the samples of an evaluation can be scored again."""

    model = MODEL
    engine: ClassVar[str] = "stored"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._answers: dict[str, str] = {}
        for number, line in enumerate(_text_of(path).split("\n"), start=1):  # other line ends may stand in an answer
            if not line.strip():
                continue
            try:
                value = json.loads(line)
                name, answer = str(value["id"]), value.get("answer", value.get("hypothesis"))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise ExamplesError(f'{path}:{number}: write {{"id": ..., "answer": ...}}') from error
            if answer is None and "task" in value:  # of samples: one of a task without answers
                continue
            if not isinstance(answer, str):
                raise ExamplesError(f"{path}:{number}: answer must be a text, not {answer!r}")
            answer = writable(answer)
            if self._answers.setdefault(name, answer) != answer:
                raise ExamplesError(f"{path}:{number}: row {name!r} has another answer above")

    def known(self, ids: Sequence[str]) -> None:
        """Refuse a file that answers none of these rows.

        Raises:
            ExamplesError: it is of other rows.
        """
        if not self._answers.keys() & set(ids):
            raise ExamplesError(f"{self._path}:1: no id of it is that of a row, such as {ids[0]!r}")

    def digest(self, parts: Sequence[Request]) -> str:
        """Of the conversation, as a server gets it."""
        return Request.digest(parts)

    def groups(self, parts: Sequence[Request]) -> Iterator[list[int]]:
        """All at once."""
        yield list(range(len(parts)))

    def answer(self, requests: Sequence[Request]) -> list[Reply]:
        """The stored answers."""
        return [self._reply(request) for request in requests]

    def close(self) -> None:
        """Nothing was started."""

    def _reply(self, request: Request) -> Reply:
        found = self._answers.get(request.row)
        return Reply(problem=f"no answer in {self._path.name}") if found is None else Reply(found.strip())


def _text_of(path: Path) -> str:
    """Raises ExamplesError: it is no UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ExamplesError(f"{path}:1: not UTF-8: {error.reason} at byte {error.start}") from error
