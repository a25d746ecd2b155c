"""Sheets for people: what a rater sees, what the key keeps, what the answers come to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.core.seal import SealKind
from launch.base.errors import InputError
from launch.cli.main import main
from launch.people import answers, pairs, sheet
from launch.people.pairs import Pair
from launch.runs.rundir import Run
from tests.launch.status.test_results import evaluation
from tests.support.browser import browser, needs_browser, wait_for
from tests.support.made_runs import make, sealed, stage, store_of

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">\u202eabc"


def samples(model: str) -> list[dict[str, Any]]:
    return [
        {
            "task": "translation", "id": f"r{n}", "prompt": f"{n:016x}", "asked": f"Question {n}?",
            "hypothesis": HOSTILE if n == 0 else f"{model} says {n}", "reference": f"right {n}", "exact": False,
        }
        for n in range(40)
    ]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = make(
        tmp_path / "ws", evaluation("baseline"), stage("dpo", executor="local"), evaluation("final", "baseline"),
        profile={"executor": "local"},
    )  # fmt: skip
    for name, model in (("baseline", "old"), ("final", "new")):
        sealed(made, name, SealKind.EVALUATION)
        write_samples(made, name, samples(model))
    return made


def write_samples(run: Run, name: str, found: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(one) + "\n" for one in found)
    (store_of(run, name).output / "samples.jsonl").write_text(text)


def drawn(count: int = 30, raters: int = 3, seed: int = 5) -> sheet.Sheet:
    made = [Pair(f"r{n}", f"Question {n}?", (f"old {n}", f"new {n}"), f"right {n}") for n in range(40)]
    return sheet.draw(made, ("sft", "dpo"), count, raters, seed)


def answered(made: sheet.Sheet, rater: int, likes: str) -> dict[str, Any]:
    """What a rater saves who prefers every answer that begins with ``likes`` (or ``left``: whatever stands there)."""
    texts = {item["id"]: item["texts"] for item in made.shown["items"]}
    found = []
    for item, turned in made.shown["orders"][rater - 1]:
        left, right = reversed(texts[item]) if turned else texts[item]
        known = "right " in left and made.key["items"][item].get("known") is not None
        question = made.key["items"][item]["row"].removeprefix("r")
        if likes == "left":
            choice = "left"
        elif known:
            choice = "left" if left == f"right {question}" else "right"
        else:
            choice = "left" if left.startswith(likes) else "right" if right.startswith(likes) else "tie"
        found.append({"item": item, "turned": turned, "choice": choice, "note": "", "seconds": 3})
    return {"sheet": made.key["sheet"], "rater": rater, "answers": found}


def counted(made: sheet.Sheet, tmp_path: Path, *likes: str) -> answers.Counted:
    given = {}
    for rater, liked in enumerate(likes, 1):
        path = tmp_path / f"answers-{rater}.json"
        path.write_text(json.dumps(answered(made, rater, liked)))
        number, own = answers.read(path, made.key)
        given[number] = own
    return answers.count(made.key, given)


def test_raters_who_prefer_the_second_model_say_so(tmp_path: Path) -> None:
    found = counted(drawn(), tmp_path, "new", "new", "new")
    assert found.share == 1
    assert found.prompts == 30
    assert found.low == pytest.approx(0.8865, abs=1e-3)  # Wilson's of 30 of 30
    assert found.verdict == "dpo is preferred"
    assert found.counts == {"first": 0, "second": 90, "tie": 0, "neither": 0}
    assert [one.again for one in found.raters] == [(3, 3)] * 3
    assert [one.known for one in found.raters] == [(2, 2)] * 3
    assert counted(drawn(), tmp_path, "old").verdict == "sft is preferred"


def test_one_who_always_takes_the_left_side_is_found_out(tmp_path: Path) -> None:
    found = counted(drawn(40), tmp_path, "left", "left")
    assert found.verdict.startswith("undecided")
    assert [one.left for one in found.raters] == [1.0, 1.0]
    assert [one.again for one in found.raters] == [(0, 4)] * 2  # the other side the second time
    assert found.alpha is not None
    assert abs(found.alpha) < 0.5


def test_raters_who_disagree_decide_nothing(tmp_path: Path) -> None:
    found = counted(drawn(), tmp_path, "new", "old")
    assert found.share == 0.5
    assert found.alpha == pytest.approx(-1 + 1 / 30, abs=0.02)


def test_alpha_as_krippendorff_computes_it() -> None:
    """The example of his paper: four observers, twelve units, nominal data: 0.743."""
    table = ["1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 ."]
    units = [[value for value in unit if value != "."] for unit in zip(*map(str.split, table), strict=True)]
    assert answers.alpha(units) == pytest.approx(0.743, abs=5e-4)
    assert answers.alpha([["a"], ["b"]]) is None
    assert answers.alpha([["a", "a"], ["a", "a"]]) is None


def test_the_sheet_does_not_say_whose_an_answer_is() -> None:
    made = drawn()
    text = json.dumps(made.shown)
    assert "sft" not in text
    assert "dpo" not in text
    assert set(made.shown["items"][0]) == {"id", "asked", "texts"}
    sides = [known["sides"][0] for known in made.key["items"].values() if "known" not in known]
    assert 0.2 < sum(sides) / len(sides) < 0.8  # not always the same model first
    assert drawn() == drawn()
    assert drawn(seed=6).key["sheet"] != made.key["sheet"]
    shorter = {known["row"] for known in drawn(10).key["items"].values()}
    assert shorter <= {known["row"] for known in made.key["items"].values()}


def test_every_pair_that_comes_twice_has_its_sides_changed() -> None:
    made = drawn()
    texts = {item["id"]: item["texts"] for item in made.shown["items"]}
    for order in made.shown["orders"]:
        shown = {name: tuple(reversed(texts[name]) if turned else texts[name]) for name, turned in order}
        twice = {name: known["repeats"] for name, known in made.key["items"].items() if "repeats" in known}
        assert len(twice) == 3
        assert all(shown[name] == tuple(reversed(shown[other])) for name, other in twice.items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found.update(sheet="0" * 16), "answers to the sheet 0000"),
        (lambda found: found.update(rater=9), "for 1 to 3"),
        (lambda found: found.update(rater=True), "for 1 to 3"),
        (lambda found: found["answers"][0].update(item="nobody"), "'nobody' is not what rater 1 was shown"),
        (lambda found: found["answers"][0].update(turned=not found["answers"][0]["turned"]), "not what rater 1 was"),
        (lambda found: found["answers"][0].update(choice="both"), "'both' is none of left, right"),
        (lambda found: found["answers"].append(found["answers"][0]), "a second answer to"),
        (lambda found: found.pop("answers"), "cannot be read as the answers of a rater"),
        (lambda found: found.update(answers=[1]), "cannot be read as the answers of a rater"),
    ],
)
def test_answers_that_do_not_fit_are_refused(change: Any, said: str, tmp_path: Path) -> None:
    made = drawn()
    found = answered(made, 1, "new")
    change(found)
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(found))
    with pytest.raises(InputError, match=said):
        answers.read(path, made.key)


def test_from_a_run_to_the_numbers(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--workspace", str(run.workspace.root)]
    assert main(["human", "make", run.id, "--pairs", "baseline:final", "--n", "20", *where, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    key = json.loads(Path(made["key"]).read_text())
    assert key["models"] == ["baseline", "final"]
    assert "baseline" not in Path(made["sheet"]).read_text()
    shown = json.loads(Path(made["sheet"]).read_text().split("type=application/json>")[1].split("</script>")[0])
    path = tmp_path / "answers-1.json"
    path.write_text(json.dumps(answered(sheet.Sheet(shown, key), 1, "new")))
    assert main(["human", "read", run.id, str(path), *where]) == 0
    said = capsys.readouterr().out
    assert "final against baseline: final is preferred" in said
    kept = json.loads((run.paths.people / "baseline-final" / "evaluation.json").read_text())
    assert kept["tasks"]["people"]["metrics"]["preferred"]["n"] == 20
    assert main(["report", run.id, *where]) in (0, 1)
    assert "people: final against baseline  preferred" in capsys.readouterr().out
    assert main(["human", "make", run.id, "--pairs", "baseline:final", *where]) == 2  # the answers need the old key
    assert "there is a sheet already" in capsys.readouterr().err


def test_other_words_in_the_prompt_are_refused(run: Run) -> None:
    found = samples("new")
    found[3]["prompt"] = "f" * 16
    write_samples(run, "final", found)
    with pytest.raises(InputError, match="r3: baseline and final were asked in different words"):
        pairs.of_run(run.plan(), run.workspace, ("baseline", "final"), None)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--pairs", "baseline"], "write the two stages with a colon"),
        (["--pairs", "baseline:finale"], "nearest: final"),
        (["--pairs", "baseline:dpo"], "no evaluation of this run measures it"),
        (["--pairs", "baseline:final", "--task", "answers"], "no answers of a task 'answers'"),
        (["--pairs", "baseline:final", "--n", "0"], "--n 0: must be at least 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    given: list[str], said: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["human", "make", run.id, *given, "--workspace", str(run.workspace.root)]) == 2
    assert said in capsys.readouterr().err


@needs_browser
def test_in_a_browser_by_keyboard_alone(run: Run, tmp_path: Path) -> None:
    made = sheet.draw(
        pairs.of_run(run.plan(), run.workspace, ("baseline", "final"), None), ("baseline", "final"), 40, 2, 1
    )
    directory = tmp_path / "sheet"
    sheet.write(directory, made)
    count = len(made.shown["orders"][1])
    with browser(tmp_path) as window:
        window.open((directory / sheet.SHEET).as_uri())
        window.script("document.querySelectorAll('#raters button')[1].focus()")
        window.press("\ue007")  # Enter
        for number in range(count):
            window.press("\ue012" if number % 2 else "\ue014")  # left and right
            if number == 3:
                window.open((directory / sheet.SHEET).as_uri())  # closed by mistake: what was answered is kept
                window.script("document.querySelectorAll('#raters button')[1].click()")
        assert f"{count} answered" in window.script("return document.getElementById('place').textContent")
        window.press("a")
        assert window.script("return document.title") == "Which answer is better?"  # hostile answers ran nothing
        assert window.console() == []
        assert all(one.startswith(("file:", "blob:", "data:")) for one in window.requests())
        window.size(360, 740)
        assert window.script("return document.documentElement.scrollWidth <= window.innerWidth")
    rater, own = answers.read(wait_for(tmp_path / "answers-2.json"), made.key)
    assert rater == 2
    assert len(own) == count
    assert {choice for choice, _ in own.values()} == {"left", "right"}


@pytest.mark.parametrize("item", [["a"], {}, None, 3])
def test_an_item_that_is_no_name_is_refused(tmp_path: Path, item: Any) -> None:
    made = drawn()
    given = answered(made, 1, "new")
    given["answers"][0]["item"] = item
    (tmp_path / "answers.json").write_text(json.dumps(given))
    with pytest.raises(InputError, match=r"answer 1: .* is not what rater 1 was shown"):
        answers.read(tmp_path / "answers.json", made.key)


def test_known_pairs_are_found_among_references_that_are_alike() -> None:
    """Short answers repeat: where the first ones are the same, others are taken."""
    names = [f"r{n}" for n in range(12)]
    last = sheet.draw([Pair(name, name, ("a", "b"), "x") for name in names], ("sft", "dpo"), 12, 1, 1)
    rows = [one["row"] for one in last.key["items"].values() if "repeats" not in one]
    made = [Pair(name, name, ("a", "b"), "no" if name == rows[-2] else "yes") for name in names]
    found = sheet.draw(made, ("sft", "dpo"), 12, 1, 1)
    assert sum("known" in one for one in found.key["items"].values()) == sheet.KNOWN


def test_answers_of_the_same_letters_are_no_pair() -> None:
    assert pairs.is_same("S\u00e3o\n", "Sa\u0303o")
    assert not pairs.is_same("S\u00e3o", "Sao")
