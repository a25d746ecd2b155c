"""Numbers that are none, clusters that are all alike and losses on one side: no gate passes by them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("scipy")

from jobs.evaluate import choose, compare, gates, intervals  # noqa: E402
from jobs.evaluate.gates import Judgement  # noqa: E402
from jobs.evaluate.kinds.kind import PreparedTask  # noqa: E402
from jobs.evaluate.settings import EvaluateSettings  # noqa: E402
from jobs.training.settings import BadSettings  # noqa: E402

Samples = list[dict[str, Any]]


def samples(task: str, **columns: list[Any]) -> Samples:
    rows = zip(*columns.values(), strict=True)
    return [{"task": task, "id": str(at), **dict(zip(columns, row, strict=True))} for at, row in enumerate(rows)]


def judged(task: str, now: Samples, old: Samples | None = None, **gate: Any) -> Judgement:
    settings = EvaluateSettings.read({"tasks": {task: {"data": "d"}}, "seed": 1, "resamples": 500, "gate": gate})
    found = compare.evaluate({task: now}, None if old is None else {task: old}, settings)
    return next(iter(found.judged.values()))


LOSSES = samples("answers", nll=[3.0 + at % 3 for at in range(20)], tokens=[2] * 20)


class Row:
    def __init__(self, name: str) -> None:
        self.id = name


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_row_of_which_the_model_says_no_number_is_a_problem(wrong: float) -> None:
    values: dict[str, list[Any]] = {"a": [0.5], "b": [wrong], "c": [1.5]}

    def sample(row: Row, parts: Any, results: Any) -> dict[str, Any]:
        return {"id": row.id, "nll": results[0][0], "log_likelihoods": list(results[0]), "tokens": 2}

    task = PreparedTask(
        "answers", [Row(name) for name in values], [[(name,)] for name in values], lambda parts: [[*range(len(parts))]],
        lambda parts: [values[part[0]] for part in parts], sample, digest=lambda parts: "d",
    )  # fmt: skip
    found = task.run()
    assert ["problem" in one for one in found] == [False, True, False]
    assert found[1]["problem"].startswith(f"the model says no finite number: nll {wrong}")
    assert found[1]["tokens"] == 2
    json.dumps(found, allow_nan=False)  # what other readers of JSON take


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("gate", [{"may_rise": "3%"}, {"at_most": 9.0}, {"must": "fall"}, {"may_fall": 0.1}])
def test_no_gate_passes_by_what_is_no_number(wrong: float, gate: dict[str, Any]) -> None:
    """As of samples that an earlier version wrote."""
    found = judged("answers", [{**LOSSES[0], "nll": wrong}, *LOSSES[1:]], LOSSES, answer_loss=gate)
    assert (found.verdict, found.chance) == ("undecided", 1.0)


@pytest.mark.parametrize("now", [LOSSES[:1], [{**one, "group": "the only one"} for one in LOSSES]])
def test_one_observation_decides_nothing_and_leaves_the_others_of_its_family_alone(now: Samples) -> None:
    found = judged("answers", now, answer_loss={"at_most": 9.0})
    assert (found.verdict, found.chance, found.corrected) == ("undecided", 1.0, 1.0)


def test_of_draws_without_a_number() -> None:
    one = intervals.of_draws(1.0, np.array([1.0, math.nan, 2.0]), 20, 20)
    assert (one.estimate.low, one.estimate.high, one.estimate.deviation) == (None, None, None)
    assert one.below(0.0) == one.above(0.0) == 1.0
    assert gates.holm({"a": 0.03, "b": one.below(0.0), "c": 0.001}) == {"c": 0.003, "a": 0.06, "b": 1.0}


@pytest.mark.parametrize("bound", [{"at_least": math.nan}, {"at_most": math.inf}])
def test_a_bound_that_is_no_number_is_refused(bound: dict[str, float]) -> None:
    with pytest.raises(BadSettings, match="must be a finite number"):
        gates.GateRule.read("margin", bound)


@pytest.mark.parametrize(
    ("margin", "gate"), [(-1.0, {"at_most": 0.05}), (1.0, {"at_least": 0.95}), (-1.0, {"may_fall": 0.01})]
)
def test_clusters_that_are_all_alike_are_no_certainty(margin: float, gate: dict[str, Any]) -> None:
    """0 of 60 in 6 documents say no more than 0 of 6."""
    rows = [{**one, "group": f"{at % 6}"} for at, one in enumerate(samples("preferences", margin=[margin] * 60))]
    found = judged("preferences", rows, rows, accuracy=gate)
    assert found.verdict == "undecided"
    settings = EvaluateSettings.read({"tasks": {"preferences": {"data": "d"}}, "seed": 1, "resamples": 500})
    measured = compare.evaluate({"preferences": rows}, {"preferences": rows}, settings).tasks["preferences"]["accuracy"]
    one, alone = measured.now.estimate, intervals.of_share(6 * (margin > 0), 6).estimate
    assert (one.low, one.high, one.n, one.groups) == (alone.low, alone.high, 60, 6)
    assert measured.change is not None
    step, alone = measured.change.estimate, intervals.of_changed_share(0, 0, 6).estimate
    assert (step.value, step.low, step.high, step.n) == (0.0, alone.low, alone.high, 60)


@pytest.mark.parametrize("count", [20, 60])
def test_more_examples_than_there_are_would_decide_a_share_without_a_success(count: int) -> None:
    found = judged("preferences", samples("preferences", margin=[-1.0] * count), accuracy={"at_most": 0.05})
    assert found.verdict == "undecided"
    assert found.needs == 73  # the fewest n of which 0 lies 1.96 standard errors of 5 % below 5 %
    enough = samples("preferences", margin=[-1.0] * found.needs)
    assert judged("preferences", enough, accuracy={"at_most": 0.05}).verdict == "passed"


JUDGED = {"judge": "q", "data": "d", "judged_by": {"server": "http://x", "model": "m", "calibrate_on": "k"}}


def verdicts(lost: int, answers: int = 40, known: int = 200) -> Samples:
    """Of a judge that is right on what it knows, with so many replies to answers that cannot be read."""
    own: Samples = [{"task": "style", "id": f"{at}", "hypothesis": "a" * at, "other": "b"} for at in range(answers)]
    for at, one in enumerate(own):
        one |= {"problem": "judge: ?"} if at < lost else {"win": 1.0, "flip": False}
    right = {"known": True, "correct": 1.0, "first": 0.5, "flip": False}
    return own + [
        {"task": "style", "id": f"known:{at}", "ruler": float(at % 2), **right} for at in range(known)
    ]  # fmt: skip


def of_judge(now: Samples, gate: dict[str, Any]) -> Judgement:
    settings = EvaluateSettings.read({"tasks": {"style": JUDGED}, "seed": 1, "resamples": 500, "gate": gate})
    return next(iter(compare.evaluate({"style": now}, None, settings).judged.values()))


def test_known_pairs_do_not_make_good_what_a_judge_could_not_read() -> None:
    gate = {"win_rate": {"at_least": 0.5}}
    assert of_judge(verdicts(2), gate).verdict == "passed"
    found = of_judge(verdicts(10), gate)  # 10 of 240, and a quarter of the answers
    assert (found.verdict, found.why) == ("undecided", "10 of 40 examples could not be measured")
    assert of_judge(verdicts(10), {"judge_accuracy": {"at_least": 0.5}}).verdict == "passed"
    with pytest.raises(BadSettings, match=r"no example of style that it is about could be measured: judge: \?"):
        of_judge(verdicts(40), gate)


def test_what_the_earlier_evaluation_lost_counts_as_well() -> None:
    old = [{**one, "problem": "too long: 9 tokens"} if at < 8 else one for at, one in enumerate(LOSSES)]
    found = judged("answers", LOSSES, old, answer_loss={"may_rise": 1.0})
    assert (found.verdict, found.why) == ("undecided", "8 of 20 examples could not be measured before")
    assert judged("answers", LOSSES, old, answer_loss={"at_most": 9.0}).verdict == "passed"


def test_no_save_is_chosen_by_the_rows_that_it_could_still_answer() -> None:
    settings = EvaluateSettings.read({"tasks": {"answers": {"data": "d"}}, "seed": 1, "resamples": 500})
    bad = [{**one, "problem": "?"} if one["nll"] > 3 else one for one in LOSSES]
    points = {0: {"answers": LOSSES}, 10: {"answers": LOSSES}, 20: {"answers": bad}}
    found = choose.choose(points, None, settings, {"by": {"answer_loss": "lower"}})
    assert (found.step, found.best) == (10, 10)
    assert found.refused == {20: "answers.answer_loss: 13 of 20 examples could not be measured"}
    with pytest.raises(gates.GateUndecided, match="13 of 20"):
        choose.choose({20: {"answers": bad}}, None, settings, {"by": {"answer_loss": "lower"}})
