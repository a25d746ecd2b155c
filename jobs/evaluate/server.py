"""Answers of an OpenAI-compatible server (vLLM, and most others), asked for over HTTP.

What passes (429, 5xx, silence) is tried again for a while, later each time; what does not is the row's ``problem``,
which is counted and never scored. A request that the server refuses for all rows ends the evaluation.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, ClassVar, Protocol

from jobs.training.settings import BadSettings

PATIENCE_SECONDS = 300.0
"""How long a row is tried."""

SILENCE_SECONDS = 120.0
"""How long the server may say nothing."""

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
PASSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
FOR_ALL = frozenset({401, 403, 404, 405})
"""Of these answers the address, the model or the key is the cause."""


class OutOfTime(RuntimeError):
    """The allocation ends before the server has answered."""


@dataclass(frozen=True)
class Request:
    """A conversation that the server is to go on with, in at most so many tokens."""

    messages: tuple[tuple[str, str], ...]
    most: int
    row: str = ""
    """Its id."""

    def __len__(self) -> int:
        return sum(len(text) for _, text in self.messages)

    @classmethod
    def of(cls, value: Mapping[str, Any], prompt: str, most: int, row: str) -> Request:
        """Of a row: its conversation without the last answer, or its prompt as what the user says."""
        said = value.get("messages")
        if isinstance(said, list):
            return cls(tuple((str(one["role"]), str(one.get("content") or "")) for one in said[:-1]), most, row)
        return cls((("user", prompt),), most, row)

    @staticmethod
    def digest(parts: Sequence[Request]) -> str:
        """Of what is asked."""
        return hashlib.sha256(json.dumps([[one.messages, one.most] for one in parts]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Reply:
    """What came of a request: the answer, or the ``problem``."""

    text: str = ""
    tokens: int | None = None
    finish: str = "stop"
    problem: str | None = None


class Answering(Protocol):
    """What answers requests: a server, or a file of answers. ``model`` is what it is called."""

    engine: ClassVar[str]

    @property
    def model(self) -> str:
        """What it is called."""
        ...

    def groups(self, parts: Sequence[Request]) -> Iterator[list[int]]:
        """Requests that are answered together."""
        ...

    def answer(self, requests: Sequence[Request]) -> list[Reply]:
        """The replies to a group."""
        ...

    def close(self) -> None:
        """End what was started for it."""
        ...


@dataclass(frozen=True)
class Server:
    """A server. ``key``: variable of the environment with the key for it, in place of which ``bearer`` is the key
    itself; ``end``: when the work has to stop, in seconds of the epoch. ``meets`` raises where it is no use to ask
    again, ``opens`` sends a request."""

    engine: ClassVar[str] = "server"

    url: str
    model: str
    key: str | None = None
    at_once: int = 8
    seed: int = 0
    end: Callable[[], float | None] = lambda: None
    patience: float = PATIENCE_SECONDS
    silence: float = SILENCE_SECONDS
    bearer: str | None = None
    meets: Callable[[], None] = lambda: None
    opens: Callable[..., Any] = urllib.request.urlopen

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise BadSettings(f"server {self.url!r}: write http://HOST:PORT/v1 or https://...")
        if self.key is not None and not os.environ.get(self.key):
            raise BadSettings(f"key: the variable {self.key} is not set here: name it in secrets of the pipeline")

    def groups(self, parts: Sequence[Request]) -> Iterator[list[int]]:
        """Requests that are under way at the same time, the longest first."""
        order = sorted(range(len(parts)), key=lambda place: (-len(parts[place]), place))
        for start in range(0, len(order), self.at_once):
            yield order[start : start + self.at_once]

    def answer(self, requests: Sequence[Request]) -> list[Reply]:
        """The replies to one group.

        Raises:
            BadSettings: the server refuses what every row asks.
            OutOfTime: the allocation ends.
        """
        with ThreadPoolExecutor(max_workers=self.at_once) as pool:
            return list(pool.map(self._ask, requests))

    def _ask(self, request: Request) -> Reply:
        began, wait = time.monotonic(), FIRST_WAIT
        while True:
            told, pause = self._try(request)
            if told is not None and told.problem is None:
                return told
            self.meets()
            pause = max(pause, wait * random.uniform(0.5, 1.5))
            if told is not None and pause == float("inf"):
                return told
            end = self.end()
            if end is not None and time.time() + pause > end:
                raise OutOfTime
            if time.monotonic() + pause - began > self.patience:
                return told or Reply(problem="no answer")
            time.sleep(pause)
            wait = min(2 * wait, LONGEST_WAIT)

    def _try(self, request: Request) -> tuple[Reply, float]:
        """A reply, and how long to wait before the next try where it is a problem; infinity: there is no use."""
        body = {
            "model": self.model,
            "messages": [{"role": role, "content": text} for role, text in request.messages],
            "max_tokens": request.most,
            "temperature": 0,
            "seed": self.seed,
        }
        headers = {"Content-Type": "application/json", **self.headers()}
        asked = urllib.request.Request(
            f"{self.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers, method="POST"
        )
        try:
            with self.opens(asked, timeout=self._silence()) as stream:
                return _reply(stream.read()), 0.0
        except urllib.error.HTTPError as error:
            with error:
                text = f"HTTP {error.code}: {error.read(300).decode(errors='replace')}".strip()
            if error.code in FOR_ALL:
                raise BadSettings(f"server {self.url}, model {self.model!r}: {text}") from error
            return Reply(problem=text), _pause(error) if error.code in PASSES else float("inf")
        except (OSError, HTTPException, ValueError) as error:  # silence, a closed connection, half an answer
            return Reply(problem=f"{type(error).__name__}: {error}"), 0.0

    def headers(self) -> dict[str, str]:
        """What says that we may ask."""
        bearer = self.bearer if self.key is None else os.environ[self.key]
        return {} if bearer is None else {"Authorization": f"Bearer {bearer}"}

    def close(self) -> None:
        """It is somebody else's."""

    def _silence(self) -> float:
        end = self.end()
        return self.silence if end is None else max(1.0, min(self.silence, end - time.time()))


def _pause(error: urllib.error.HTTPError) -> float:
    """What the server asks to wait, in seconds."""
    try:
        return min(LONGEST_WAIT, max(0.0, float(error.headers.get("Retry-After", "0"))))
    except ValueError:
        return 0.0


def _reply(body: bytes) -> Reply:
    """Raises ValueError: it is no answer."""
    try:
        found = json.loads(body)
        choice = found["choices"][0]
        text = writable(_said(choice["message"]["content"])).strip()
        tokens = (found.get("usage") or {}).get("completion_tokens")
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no answer: {body[:200]!r}") from error
    finish = "length" if choice.get("finish_reason") == "length" else "stop"
    return Reply(text, tokens if type(tokens) is int and tokens >= 0 else None, finish)


def _said(content: Any) -> str:
    """The text of a message, which some servers give in parts. Raises TypeError, KeyError: it is none."""
    if isinstance(content, list):
        return "".join(_said(part["text"]) for part in content)
    if content is not None and not isinstance(content, str):
        raise TypeError("not a text")
    return content or ""


def writable(text: str) -> str:
    """The text without halves of characters, which JSON can hold and a file in UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8") if not text.isascii() else text
