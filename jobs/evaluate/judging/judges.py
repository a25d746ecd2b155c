"""Judges: a model of this machine, or one behind a server. What they said is kept, so that it is asked once."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jobs.evaluate.judging.questions import DEMANDS, LABELS, PAIRWISE, JudgeQuestion, read_label
from jobs.evaluate.judging.settings import JudgeSettings
from jobs.evaluate.kept import KeptLines
from jobs.evaluate.measures import composed
from jobs.evaluate.server import Reply, Request, Server


@dataclass(frozen=True)
class JudgeReply:
    """What came of a question: the label, and of the form ``score`` its ``value``; or the ``problem``."""

    label: str = ""
    value: float = 0.0
    problem: str | None = None


class Judging(Protocol):
    """What answers the questions to a judge: a model or a server."""

    def replies(self, questions: Sequence[JudgeQuestion]) -> list[JudgeReply]:
        """A reply to each."""
        ...


@dataclass(frozen=True)
class PairRuling:
    """What a judge says of a pair, asked in both orders. ``win``: of the first, 1, 0, or 1/2 where the two replies
    disagree (``flip``); ``first``: the share of replies for the answer that was shown first."""

    win: float = 0.5
    flip: bool = False
    first: float = 0.5
    problem: str | None = None


class Judge:
    """A judge. ``identity``: digest of all that decides its verdicts beside the question; ``kept``: what it, or another
    process of it, has said before."""

    def __init__(self, settings: JudgeSettings, identity: str, source: Judging, kept: KeptLines, family: str) -> None:
        self.settings, self.identity, self.family = settings, identity, family
        self._source, self._kept = source, kept
        self._known: dict[str, JudgeReply] | None = None

    def replies(self, questions: Sequence[JudgeQuestion]) -> list[JudgeReply]:
        """A reply to each; those that are known are not asked again.

        Raises:
            BadSettings, OutOfTime: see ``server.Server``.
        """
        if self._known is None:
            self._known = {line["question"]: _reply_of(line) for line in self._kept.lines() if self._is_whole(line)}
        known = self._known
        asked = {question.digest(): question for question in questions}
        new = [name for name in asked if name not in known]
        said = dict(zip(new, self._source.replies([asked[name] for name in new]), strict=True)) if new else {}
        whole = {name: reply for name, reply in said.items() if reply.problem is None}
        if whole:
            self._kept.append(
                [{"question": name, "label": one.label, "value": one.value} for name, one in whole.items()]
            )
            known.update(whole)
        return [said.get(name) or known[name] for name in (question.digest() for question in questions)]

    def _is_whole(self, line: dict[str, Any]) -> bool:
        return line["label"] in LABELS[self.settings.form] and isinstance(line.get("value"), int | float)

    def pairs(self, contests: Sequence[tuple[str, str, str]]) -> list[PairRuling]:
        """The ruling on each request with two answers. Equal answers are a tie, of which the judge is not asked."""
        open_pairs = [one for one in contests if _plain(one[1]) != _plain(one[2])]
        questions = [JudgeQuestion(asked, order) for asked, a, b in open_pairs for order in ((a, b), (b, a))]
        replies = self.replies(questions)
        ruled = {pair: _ruling(*replies[2 * at : 2 * at + 2]) for at, pair in enumerate(open_pairs)}
        return [ruled.get(one, PairRuling()) for one in contests]


def _plain(text: str) -> str:
    """What a reader sees of an answer."""
    return composed(text).strip()


def _ruling(one: JudgeReply, other: JudgeReply) -> PairRuling:
    problem = one.problem or other.problem
    if problem is not None:
        return PairRuling(problem=f"judge: {problem}")
    first = [reply.label == LABELS[PAIRWISE][0] for reply in (one, other)]
    return PairRuling((first[0] + (not first[1])) / 2, first[0] == first[1], sum(first) / 2)


def _reply_of(line: dict[str, Any]) -> JudgeReply:
    return JudgeReply(line["label"], float(line["value"]))


class ServedJudge:
    """A judge behind a server. A reply that cannot be read is asked for once more."""

    def __init__(self, server: Server, settings: JudgeSettings) -> None:
        self._server, self._settings = server, settings

    def replies(self, questions: Sequence[JudgeQuestion]) -> list[JudgeReply]:
        """A reply to each."""
        labels, most = LABELS[self._settings.form], self._settings.max_new_tokens
        texts = [question.text(self._settings.instructions) for question in questions]
        said = self._server.answer([Request((("user", text),), most) for text in texts])
        found = [_read(reply, labels) for reply in said]
        again = [at for at, one in enumerate(found) if one is None]
        if again:
            more = [
                Request(
                    (("user", texts[at]), ("assistant", said[at].text), ("user", DEMANDS[self._settings.form])), most
                )
                for at in again
            ]
            for at, reply in zip(again, self._server.answer(more), strict=True):
                unreadable = JudgeReply(problem=f"its reply cannot be read: {reply.text[:60]!r}")
                found[at] = _read(reply, labels) or unreadable
        return [one for one in found if one is not None]


def _read(reply: Reply, labels: Sequence[str]) -> JudgeReply | None:
    """None: it cannot be read."""
    if reply.problem is not None:
        return JudgeReply(problem=reply.problem)
    label = read_label(reply.text, labels)
    return None if label is None else JudgeReply(label, float(label) if label.isdigit() else 0.0)


class LocalJudge:
    """A judge on this machine: its verdict is the label that it finds most likely, so that it cannot be unreadable; a
    score is the mean of the labels, weighted by their probabilities. Loaded at the first question."""

    def __init__(self, checkpoint: Path, settings: JudgeSettings, load: Callable[[Path], Any]) -> None:
        self._checkpoint, self._settings, self._load = checkpoint, settings, load
        self._engine: Any = None

    def replies(self, questions: Sequence[JudgeQuestion]) -> list[JudgeReply]:
        """A reply to each."""
        from jobs.evaluate.engine import Engine

        if self._engine is None:
            loaded = self._load(self._checkpoint)
            self._engine = Engine(loaded.model, loaded.tokenizer, loaded.batch_tokens, loaded.batch_prompts)
        engine: Engine = self._engine
        parts, owner = [], []
        found: list[JudgeReply | None] = [None] * len(questions)
        for at, question in enumerate(questions):
            own = self._parts(engine, question.text(self._settings.instructions))
            if (tokens := max((engine.too_long(part) or 0 for part in own), default=0)) > 0:
                found[at] = JudgeReply(problem=f"too long: {tokens} tokens")
                continue
            parts += own
            owner += [at] * len(own)
        scores: list[list[float]] = [[] for _ in questions]
        results: list[Any] = [None] * len(parts)
        for group in engine.groups(parts):
            for at, result in zip(group, engine.answer([parts[at] for at in group]), strict=True):
                results[at] = result
        for at, result in zip(owner, results, strict=True):
            scores[at] += [value for value, _ in result]
        return [one or self._reply(scores[at]) for at, one in enumerate(found)]

    def _parts(self, engine: Any, text: str) -> list[Any]:
        labels = LABELS[self._settings.form]
        if engine.tokenizer.chat_template:
            return list(engine.question(engine.apply_chat_template([{"role": "user", "content": text}]), labels))
        return list(engine.question(f"{text}\nReply:", [f" {label}" for label in labels]))

    def _reply(self, scores: Sequence[float]) -> JudgeReply:
        labels = LABELS[self._settings.form]
        if not all(map(math.isfinite, scores)):
            return JudgeReply(problem="the model says no finite number")
        best = max(range(len(labels)), key=lambda at: scores[at])
        if self._settings.form == PAIRWISE:
            return JudgeReply(labels[best])
        weights = [math.exp(one - scores[best]) for one in scores]
        mean = sum(weight * float(label) for weight, label in zip(weights, labels, strict=True)) / sum(weights)
        return JudgeReply(labels[best], mean)


def family_of(checkpoint: Path) -> str:
    """The family of a checkpoint, as its configuration names it (``llama``); empty: it does not say."""
    from jobs.core import files

    try:
        found = str(files.read_json(checkpoint / "config.json").get("model_type", ""))
    except (OSError, ValueError, AttributeError):
        return ""
    return found if re.fullmatch(r"[\w.-]{1,60}", found) else ""


def kept_in(directory: Path, identity: str, name: str) -> KeptLines:
    """What a judge has said; ``name``: of the file of this process."""
    return KeptLines(directory / identity[:32], f"{name}-{os.getpid()}.jsonl", ("question", "label"))
