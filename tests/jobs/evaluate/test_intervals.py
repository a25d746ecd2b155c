"""Intervals hold what they promise: covered as often as they say, at few examples, too; gates are one family."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest

np = pytest.importorskip("numpy")
stats = pytest.importorskip("scipy.stats")

from jobs.core import power  # noqa: E402
from jobs.evaluate import gates, intervals, metrics  # noqa: E402
from jobs.evaluate.gates import GateRule  # noqa: E402
from jobs.evaluate.intervals import Clusters  # noqa: E402
from jobs.evaluate.metrics import Metric  # noqa: E402
from jobs.evaluate.observed import Observed  # noqa: E402

MEAN = Metric(lambda sums: sums[..., 0] / sums[..., 1], True)
SHARE = Metric(lambda sums: sums[..., 0] / sums[..., 1], True, share=0)


def mean(values: Any, groups: Any = None, seed: int = 0, resamples: int = 1000, metric: Metric = MEAN) -> Observed:
    """Of a column."""
    columns = np.stack([np.asarray(values, dtype=float), np.ones(len(values))], axis=1)
    drawn_together = Clusters(range(len(values)) if groups is None else groups, resamples, seed)
    return metrics.value(metric, columns, drawn_together, drawn_together.sums(columns))


def covered(draw: Callable[[Any], Observed], truth: float, trials: int = 600) -> float:
    """How often the interval holds the truth."""
    generator = np.random.default_rng(11)
    inside = 0
    for _ in range(trials):
        one = draw(generator).estimate
        assert one.low is not None
        assert one.high is not None
        inside += one.low <= truth <= one.high
    return inside / trials


@pytest.mark.parametrize("count", [6, 12, 40])
def test_a_mean_of_few_examples_is_covered(count: int) -> None:
    """The plain percentiles of 6 examples cover 86 times in 100."""
    assert covered(lambda random: mean(random.normal(0.3, 1, count)), 0.3) == pytest.approx(0.95, abs=0.03)


def test_a_ratio_of_sums_is_covered() -> None:
    """Losses of documents of very different lengths, as perplexity has them."""

    def draw(random: Any) -> Observed:
        tokens = random.integers(5, 200, 30).astype(float)
        columns = np.stack([random.normal(2.0, 0.4, 30) * tokens, tokens], axis=1)
        groups = Clusters(range(30), 1000, 0)
        return metrics.value(MEAN, columns, groups, groups.sums(columns))

    assert covered(draw, 2.0) == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize(("share", "count"), [(0.5, 8), (0.04, 60), (0.97, 100)])
def test_a_share_is_covered(share: float, count: int) -> None:
    found = covered(lambda random: mean(random.random(count) < share, metric=SHARE), share, trials=2000)
    assert 0.93 <= found <= 1


def test_the_interval_of_a_share_is_that_of_wilson() -> None:
    for successes, count in ((0, 60), (7, 9), (40, 40), (13, 200)):
        one = intervals.of_share(successes, count).estimate
        theirs = stats.binomtest(successes, count).proportion_ci(method="wilson")
        assert (one.low, one.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert intervals.of_share(0, 60).estimate.high == pytest.approx(0.0602, abs=1e-4)  # not 0


@pytest.mark.parametrize(("better", "worse", "count"), [(0.1, 0.02, 40), (0.02, 0.02, 60), (0.4, 0.3, 20)])
def test_the_change_of_a_share_is_covered(better: float, worse: float, count: int) -> None:
    def draw(random: Any) -> Observed:
        up, down, _ = random.multinomial(count, [better, worse, 1 - better - worse])
        return intervals.of_changed_share(int(up), int(down), count)

    assert 0.93 <= covered(draw, better - worse, trials=2000) <= 1


def test_examples_of_a_group_are_one_observation() -> None:
    """Ten questions about each of 12 texts: drawn one by one the interval would be three times too narrow."""

    def draw(random: Any, together: bool) -> Observed:
        values = np.repeat(random.normal(0, 1, 12), 10) + random.normal(0, 0.1, 120)
        return mean(values, groups=np.repeat(np.arange(12), 10) if together else None)

    assert covered(lambda random: draw(random, True), 0.0, 300) == pytest.approx(0.95, abs=0.04)
    assert covered(lambda random: draw(random, False), 0.0, 300) < 0.7


def test_a_share_of_groups_is_drawn_by_groups() -> None:
    found = mean([1, 1, 0, 0, 1, 1, 0, 0, 1, 1], groups=[0, 0, 1, 1, 2, 2, 3, 3, 4, 4], metric=SHARE).estimate
    assert (found.method, found.groups, found.n) == ("bootstrap", 5, 10)


def test_too_few_say_nothing() -> None:
    for found in (
        mean([4.489]),
        mean([1.0, 2.0, 3.0, 4.0]),
        intervals.of_share(2, 4),
        intervals.of_changed_share(1, 0, 4),
    ):
        assert (found.estimate.low, found.estimate.high) == (None, None)
    one = gates.judge({"x": GateRule(at_least=0.0)}, {"x": (mean([5.0, 5.0, 5.0]), 0.0)})["x"]
    assert (one.verdict, one.needs) == ("undecided", None)


def test_a_large_task_is_drawn_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).normal(size=(50, 2))
    whole = Clusters(range(50), 64, 9).sums(values)
    monkeypatch.setattr(intervals, "BLOCK", 200)
    assert np.array_equal(Clusters(range(50), 64, 9).sums(values), whole)


def test_chances_of_draws_are_those_of_student() -> None:
    values = np.random.default_rng(1).normal(0.4, 1, 30)
    found = mean(values, resamples=50_000)
    for at in (values.mean() - 0.3, values.mean() - 0.1, values.mean() + 0.2):
        theirs = stats.ttest_1samp(values, at, alternative="greater").pvalue
        assert found.below(at) == pytest.approx(theirs, rel=0.25)
        assert found.above(at) == pytest.approx(1 - theirs, rel=0.25)


def seen(value: float, error: float, n: int = 100) -> Observed:
    """A value whose error is known and normal."""
    estimate = intervals.MetricEstimate(
        value, value - 1.96 * error, value + 1.96 * error, n, n, "", error * math.sqrt(n)
    )
    normal = NormalDist()
    return Observed(
        estimate, lambda at: 1 - normal.cdf((value - at) / error), lambda at: normal.cdf((value - at) / error)
    )


@pytest.mark.parametrize(
    ("rule", "value", "before", "verdict"),
    [
        ({"must": "rise"}, 0.3, 1.0, "passed"),
        ({"must": "rise"}, 0.1, 1.0, "undecided"),
        ({"must": "rise"}, -0.3, 1.0, "missed"),
        ({"must": "fall"}, -0.3, 1.0, "passed"),
        ({"may_fall": 0.5}, -0.1, 1.0, "passed"),  # shown to have fallen by less than half
        ({"may_fall": 0.2}, -0.1, 1.0, "undecided"),  # not shown to be worse is not enough
        ({"may_fall": 0.2}, -0.6, 1.0, "missed"),
        ({"may_fall": "50%"}, -0.1, 1.0, "passed"),
        ({"may_fall": "50%"}, -0.1, 0.1, "undecided"),
        ({"may_rise": "3%"}, 0.1, 10.0, "passed"),
        ({"at_least": 0.5}, 0.8, 0.0, "passed"),
        ({"at_least": 0.95}, 0.6, 0.0, "missed"),
        ({"at_most": 0.5}, 0.45, 0.0, "undecided"),
    ],
)
def test_verdicts(rule: dict[str, Any], value: float, before: float, verdict: str) -> None:
    found = gates.judge({"x": GateRule.read("x", rule)}, {"x": (seen(value, 0.1), before)})["x"]
    assert found.verdict == verdict


def test_needs_are_enough_four_times_in_five() -> None:
    """What is said to decide does so at the promised power."""
    one = gates.judge({"x": GateRule(must="rise")}, {"x": (seen(0.1, 0.1, 100), 0.0)})["x"]
    assert one.verdict == "undecided"
    assert one.needs == 785  # (1.960 + 0.842)^2 / (0.1 / 1)^2
    error = 1.0 / math.sqrt(one.needs)
    generator = np.random.default_rng(2)
    shown = np.mean(generator.normal(0.1, error, 20_000) > 1.96 * error)
    assert shown == pytest.approx(0.8, abs=0.02)
    assert power.decides(1.0, one.needs) == pytest.approx(0.1, rel=1e-3)


def test_holm() -> None:
    assert gates.holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert gates.holm({"a": 0.9, "b": 0.6}) == {"a": 1.0, "b": 1.0}


def test_gates_are_one_family() -> None:
    """Eight gates on a model that learned nothing: one passes by chance at most as often as one alone would."""
    generator = np.random.default_rng(4)
    rules = {str(number): GateRule(must="rise") for number in range(8)}
    passed = 0
    for _ in range(2000):
        found = gates.judge(rules, {name: (seen(generator.normal(0, 0.1), 0.1), 0.0) for name in rules})
        passed += any(one.verdict == "passed" for one in found.values())
    assert passed / 2000 <= 0.035  # uncorrected: 0.18
    alone = gates.judge({"x": rules["0"]}, {"x": (seen(0.2, 0.1), 0.0)})["x"]
    among = gates.judge(rules, {name: (seen(0.2 if name == "0" else 0.0, 0.1), 0.0) for name in rules})["0"]
    assert (alone.verdict, among.verdict) == ("passed", "undecided")


def test_the_table_of_the_page_is_what_the_simulation_says() -> None:
    """Each row of docs/evaluation.md, drawn again."""
    page = (Path(__file__).parents[3] / "docs/evaluation.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (mean|share|change)(.*?) \| (\d+) \| ([\d.]+) % \|$", page, re.MULTILINE)
    assert len(rows) == 9
    for kind, said, examples, held in rows:
        shares, count = [int(one) / 100 for one in re.findall(r"(\d+) %", said)], int(examples)

        def draw(random: Any, kind: str = kind, shares: list[float] = shares, count: int = count) -> Observed:
            if kind == "mean":
                return mean(random.normal(0.3, 1, count))
            if kind == "share":
                return mean(random.random(count) < shares[0], metric=SHARE)
            up, down, _ = random.multinomial(count, [*shares, 1 - sum(shares)])
            return intervals.of_changed_share(int(up), int(down), count)

        truth = 0.3 if kind == "mean" else shares[0] - sum(shares[1:])
        found = covered(draw, truth, 600 if kind == "mean" else 2000)
        assert found == pytest.approx(float(held) / 100, abs=0.005), (kind, said, count)
