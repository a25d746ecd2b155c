"""Answers of a server that fails by script: what passes is tried again, what does not is counted, and time is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("sacrebleu")

from jobs.core import results
from jobs.evaluate import GateUndecided, server
from jobs.evaluate.server import OutOfTime, Request, Server
from jobs.training.settings import BadSettings
from tests.support import stages
from tests.support.scripted_server import ScriptedServer as Fake
from tests.support.scripted_server import impatient

pytestmark = pytest.mark.train


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    monkeypatch.setattr(server, "FIRST_WAIT", 0.02)
    made = Fake()
    yield made
    made.close()


def of(fake: Fake, **more: Any) -> Server:
    return Server(fake.url, "m", **{"patience": 2.0, "silence": 0.3, **more})


REQUEST = Request((("user", "hi"),), 9)


@pytest.mark.parametrize(
    "first", [(429, "slow down"), (500, "oops"), (503, ""), (200, 0.6), (200, b"{"), (200, b'{"choices": []}')]
)
def test_what_passes_is_tried_again(fake: Fake, first: tuple[int, Any]) -> None:
    fake.script = lambda prompt, times: first if times < 3 else (200, "HI")
    (reply,) = of(fake).answer([REQUEST])
    assert (reply.text, reply.tokens, reply.problem) == ("HI", 7, None)
    assert len(fake.asked) == 3
    assert fake.asked[0] == {
        "model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, "temperature": 0, "seed": 0,
    }  # fmt: skip


class Clock:
    """Moves on only where somebody sleeps."""

    now = 1000.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def time(self) -> float:
        return self.now

    monotonic = time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(server, "time", made)
    return made


def test_what_does_not_pass_is_a_problem(fake: Fake, clock: Clock) -> None:
    fake.script = lambda prompt, times: (500, "broken")
    (reply,) = of(fake, patience=0.5, silence=30).answer([REQUEST])
    assert reply.problem == "HTTP 500: broken"
    assert 1000 < clock.now <= 1000.5
    assert len(fake.asked) > 2
    fake.script = lambda prompt, times: (400, "too long")
    before = len(fake.asked)
    assert of(fake).answer([REQUEST])[0].problem == "HTTP 400: too long"
    assert len(fake.asked) == before + 1, "it is no use to ask again"


def test_what_holds_for_all_rows_ends_the_evaluation(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.script = lambda prompt, times: (404, "no such model")
    with pytest.raises(BadSettings, match="model 'm': HTTP 404: no such model"):
        of(fake).answer([REQUEST])
    with pytest.raises(BadSettings, match="write http://HOST:PORT/v1"):
        Server("localhost:8000", "m")
    with pytest.raises(BadSettings, match="the variable NO_KEY is not set here"):
        Server(fake.url, "m", key="NO_KEY")
    monkeypatch.setenv("A_KEY", "secret")
    fake.script = lambda prompt, times: (200, "x")
    of(fake, key="A_KEY").answer([REQUEST])
    assert fake.headers[-1] == "Bearer secret"


def test_the_deadline_is_kept(fake: Fake, clock: Clock) -> None:
    fake.script = lambda prompt, times: (503, "")
    with pytest.raises(OutOfTime):
        of(fake, patience=60, silence=30, end=lambda: 1000.4).answer([REQUEST])
    assert 1000 < clock.now <= 1000.4
    assert len(fake.asked) > 2


def evaluation(root: Path, data: Path, fake: Fake, **more: Any) -> stages.Stage:
    measure = {"chrf": {}, "length": {}}
    tasks = {"support": {"data": "rows", "measure": measure, "max_new_tokens": 8}}
    given = {"tasks": tasks, "server": fake.url, "model": "m", "seed": 1, "resamples": 300, "at_once": 4, **more}
    return stages.stage(root, "evaluate", "trl", given, {"rows": data / "instructions"})


def test_an_evaluation_of_a_server(tmp_path: Path, data: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    one = evaluation(tmp_path / "one", data, fake)
    assert one.start(stop_after=2).outcome == "stopped"
    asked = len(fake.asked)
    assert asked == 8
    assert one.start().outcome == "done"
    assert len(fake.asked) == 24, "what was answered is not asked again"
    found = results.read(one.output / "evaluation.json")["support"]
    assert (found["engine"], found["model"], found["metrics"]["length"]["value"]) == ("server", "m", 7.0)
    assert "problems" not in found

    monkeypatch.setattr(server, "PATIENCE_SECONDS", 0.2)
    impatient(monkeypatch, patience=0.2, silence=0.2)
    fake.script = lambda prompt, times: (400, "no") if " 3\n" in prompt else (200, "Guardar página")
    some = evaluation(tmp_path / "some", data, fake, gate={"chrf": {"at_least": 1.0}})
    some.start()  # one of 24 is no more than 5 %
    known = results.read(some.output / "evaluation.json")["support"]
    assert (known["problems"], known["metrics"]["chrf"]["n"]) == (1, 23)
    assert known["metrics"]["chrf"]["gate"]["verdict"] == "passed"
    fake.script = lambda prompt, times: (400, "no") if " 3\n" in prompt or " 4\n" in prompt else (200, "Guardar página")
    many = evaluation(tmp_path / "many", data, fake, gate={"chrf": {"at_least": 1.0}})
    with pytest.raises(GateUndecided):
        many.start()
    fake.script = lambda prompt, times: (400, "no")
    none = evaluation(tmp_path / "none", data, fake)
    with pytest.raises(BadSettings, match="no example of support could be measured: HTTP 400: no"):
        none.start()


def test_a_server_gives_no_probabilities(tmp_path: Path, data: Path, fake: Fake) -> None:
    one = evaluation(tmp_path / "one", data, fake)
    for tasks, text in (
        ({"answers": {"data": "rows"}}, "task 'answers' needs the probabilities of the model"),
        ({"s": {"data": "rows", "measure": {"kl": {}}}}, "kl needs the probabilities"),
    ):
        with pytest.raises(BadSettings, match=text):
            stages.Stage(replace(one.spec, settings={**one.spec.settings, "tasks": tasks})).start()
    assert not fake.asked
