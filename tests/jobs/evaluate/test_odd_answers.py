"""Answers that no model of ours would write: half a character, another form of the same letters, line ends, parts."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numpy")
pytest.importorskip("scipy")

from jobs.evaluate.judging.judges import Judge, JudgeReply
from jobs.evaluate.judging.settings import JudgeSettings
from jobs.evaluate.kept import KeptLines, read_samples, write_samples
from jobs.evaluate.measures import AnswerMeasures
from jobs.evaluate.server import Request, Server
from jobs.evaluate.stored import Stored
from jobs.training.examples import ExamplesError
from tests.support.scripted_server import ScriptedServer


def stored(path: Path, name: str = "a") -> str:
    return Stored(path).answer([Request((("user", "q"),), 1, name)])[0].text


def test_samples_with_any_line_end_in_an_answer_are_scored_again(tmp_path: Path) -> None:
    path, text = tmp_path / "samples.jsonl", "one\u2028two\x85three\x0bfour"
    write_samples(path, [{"task": "t", "id": "a", "hypothesis": text}])
    assert read_samples(path)["t"][0]["hypothesis"] == text
    assert stored(path) == text


def test_a_file_of_answers_as_an_editor_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"id": "a", "answer": "x"}\r\n\r\n')
    assert stored(path) == "x"


@pytest.mark.parametrize("content", [b'{"id": "a", "answer": "\xff"}', b"[" * 100_000, b"\x00"])
def test_what_is_no_file_of_answers_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "answers.jsonl").write_bytes(content)
    with pytest.raises(ExamplesError, match=r"answers\.jsonl:1: "):
        Stored(tmp_path / "answers.jsonl")


def test_half_a_character_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text('{"id": "a", "answer": "x\\ud83d"}')
    write_samples(tmp_path / "samples.jsonl", [{"task": "t", "hypothesis": stored(tmp_path / "answers.jsonl")}])
    assert read_samples(tmp_path / "samples.jsonl")["t"] == [{"task": "t", "hypothesis": "x?"}]


@pytest.mark.parametrize(
    ("content", "text", "problem"),
    [
        ("x\ud83d", "x?", False),
        ([{"type": "text", "text": "A"}, {"type": "text", "text": "B"}], "AB", False),
        (["A"], "", True),
        ({"text": "A"}, "", True),
        (None, "", False),
    ],
)
def test_what_a_server_may_say(content: Any, text: str, problem: bool) -> None:
    fake = ScriptedServer()
    fake.script = lambda prompt, times: (200, _Raw({"choices": [{"message": {"content": content}}]}))
    try:
        [reply] = Server(fake.url, "m", patience=0.0).answer([Request((("user", "q"),), 1, "a")])
    finally:
        fake.close()
    assert (reply.text, reply.problem is not None) == (text, problem)


def test_nonsense_of_a_server_is_a_problem() -> None:
    fake = ScriptedServer()
    fake.script = lambda prompt, times: (200, _Raw.of("[" * 100_000))
    try:
        [reply] = Server(fake.url, "m", patience=0.0).answer([Request((("user", "q"),), 1, "a")])
    finally:
        fake.close()
    assert reply.problem is not None
    assert "no answer" in reply.problem


class _Raw:
    """A body that is sent as it is."""

    def __init__(self, value: Any) -> None:
        self._text = json.dumps(value)

    @classmethod
    def of(cls, text: str) -> _Raw:
        made = cls(None)
        made._text = text
        return made

    def __str__(self) -> str:
        return self._text


@pytest.mark.parametrize("text", ["한국어 문장", "São João é ótimo"])
@pytest.mark.parametrize("measure", ["exact", "f1"])
def test_the_same_letters_in_another_form_are_the_same(text: str, measure: str) -> None:
    one, other = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert one != other
    assert AnswerMeasures.of({measure: {}}).statistics({"hypothesis": one, "reference": other}) == [1.0, 1.0]


def test_two_answers_of_the_same_letters_are_a_tie(tmp_path: Path) -> None:
    class First:
        def replies(self, questions: Any) -> list[JudgeReply]:
            raise AssertionError("there is nothing to judge")

    judge = Judge(JudgeSettings(), "i", First(), KeptLines(tmp_path, "k.jsonl", ("question", "label")), "")
    pair = [unicodedata.normalize(form, "안녕하세요") for form in ("NFC", "NFD")]
    [found] = judge.pairs([("q", pair[0], pair[1] + "\n")])
    assert (found.win, found.flip) == (0.5, False)
