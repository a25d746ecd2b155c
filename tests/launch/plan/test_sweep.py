"""Variants of a pipeline: every combination once, equal stages counted once, the world looked at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.core.paths import Workspace
from launch.base.errors import InputError
from launch.cli.main import main
from launch.config.profile_file import locate, read_profile
from launch.plan import estimates, sweep
from launch.plan import gather as facts
from launch.plan.model import Plan
from launch.plan.sweep import Sweep, Variant
from tests.launch.plan.test_estimates import BASE, profile, training
from tests.support.chains import STAGES, make_inputs
from tests.support.llamas import LLAMA_1B

PIPELINE = {
    "name": "toy",
    "model": {"base": "./tiny"},
    "stages": {name: STAGES[name] for name in ("corpus", "cpt", "sft", "pairs")},
}
AXES = ["stages.cpt.lr=0.1,0.2,0.3", "stages.sft.steps=4, 8"]


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    make_inputs(tmp_path / "work", texts=3, rows=5)
    path = tmp_path / "work" / "p.yaml"
    path.write_text(json.dumps(PIPELINE))
    return path


def swept(path: Path, options: Sequence[str] = (), axes: Sequence[str] = ()) -> Sweep:
    return Sweep.read(path, options, axes)


def with_sweep(path: Path, sweep: str) -> Path:
    path.write_text(f'{json.dumps(PIPELINE)[:-1]},\n"sweep": {sweep}\n}}')
    return path


def test_combinations(pipeline: Path) -> None:
    found = swept(pipeline, (), AXES)
    assert len(found.chosen) == 6
    assert [(one.path[-1], one.value) for one in found.chosen[1]] == [("lr", 0.1), ("steps", 8)]
    for wrong in ("stages.cpt.lr", "stages.cpt.lr=", "stages.cpt.lr=,"):
        with pytest.raises(InputError, match="write --sweep"):
            swept(pipeline, (), [wrong])
    with pytest.raises(InputError, match="combinations are more than"):
        swept(pipeline, (), [f"a.{key}=" + ",".join("x" * 400) for key in "bc"])


def test_the_file_says_what_is_swept(pipeline: Path) -> None:
    over = '"over": {"stages.cpt.lr": {"log": [0.05, 0.5], "n": 3}, "stages.sft.steps": [4, 8, 12]}'

    def values(how: str) -> list[tuple[object, ...]]:
        found = swept(with_sweep(pipeline, f"{{{over}, {how}}}"))
        return [tuple(one.value for one in chosen) for chosen in found.chosen]

    grid = values('"how": "grid"')
    assert grid[:4] == [(0.05, 4), (0.05, 8), (0.05, 12), (0.1581, 4)]
    assert len(grid) == len(set(grid)) == 9
    assert values('"how": "list"') == [(0.05, 4), (0.1581, 8), (0.5, 12)]
    drawn = values('"how": {"random": {"n": 4, "seed": 3}}')
    assert len(set(drawn)) == 4
    assert set(drawn) < set(grid)
    assert drawn == values('"how": {"random": {"n": 4, "seed": 3}}') != values('"how": {"random": {"n": 4, "seed": 4}}')
    # An option says another thing of one key, and the file the rest.
    assert len(swept(pipeline, (), ["stages.cpt.lr=1"]).chosen) == 3


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ('{"over": {"stages.cpt.lr": []}}', "sweep.over.stages.cpt.lr: is empty"),
        ('{"over": {"stages.cpt.lr": 3}}', "expected a list of values, or {log:"),
        ('{"over": {"stages.cpt.lr": [1, 2, 1]}}', "is listed twice"),
        ('{"over": {"stages.cpt.lr": {"log": [0.1], "n": 3}}}', "write two numbers that differ"),
        ('{"over": {"stages.cpt.lr": {"log": [0.1, 1], "n": 1}}}', "must be at least 2"),
        ('{"over": {"stages.cpt.lr": {"log": [0, 1], "n": 3}}}', "must be greater than 0"),
        ('{"over": {"stages.cpt.lr": {"lin": [0, 1], "n": 3}}}', "unknown key; nearest: n|unknown key; "),
        ('{"over": {}}', "is empty"),
        ('{"ovr": {"stages.cpt.lr": [1]}}', "unknown key; nearest: over"),
        ('{"over": {"stages.cpt.lr": [1, 2], "stages.sft.steps": [1]}, "how": "list"}', "as many values of each key"),
        ('{"over": {"stages.cpt.lr": [1, 2]}, "how": "gird"}', "nearest: grid"),
        ('{"over": {"stages.cpt.lr": [1, 2]}, "how": {"random": {"n": 3}}}', "there are only 2 combinations"),
        ('{"over": {"sweep.by": [1, 2]}}', "write a key of a stage"),
        ('{"over": {"model.base": ["./tiny", "./other"]}}', "write a key of a stage"),
        ('{"over": {"stages..lr": [1, 2]}}', "write a key of a stage"),
        ('{"over": {"stages.cptt.lr": [1]}}', "there is no stages.cptt; nearest: cpt"),
        ('{"over": {"stages.cpt.learning_rate": [1]}}', "stages.cpt.learning_rate: unknown key; nearest: lr"),
        ('{"over": {"stages.cpt.lr": [1, "much"]}}', "stages.cpt.lr: expected a number, got 'much'"),
        ('{"over": {"stages.cpt.lr": [0.1]}, "budget": {"gpu_hours": 0}}', "must be greater than 0"),
        ('{"over": {"stages.cpt.lr": [0.1]}, "by": "perplexity.perplexity"}', "no evaluation measures"),
    ],
)
def test_a_sweep_that_is_none_is_refused_with_its_line(pipeline: Path, sweep: str, said: str) -> None:
    path = with_sweep(pipeline, sweep)
    with pytest.raises(InputError, match=said) as caught:
        list(swept(path).variants(read_profile(locate("devcluster")), Workspace(pipeline.parent / "w")))
    assert str(caught.value).startswith(f"{path}:2:")


def test_values_that_decide_nothing_are_refused(pipeline: Path) -> None:
    found = swept(with_sweep(pipeline, '{"over": {"stages.cpt.threads": [1, 2]}}'))
    variants = found.variants(read_profile(locate("devcluster")), Workspace(pipeline.parent / "w"))
    with pytest.raises(InputError, match=r"threads=1 and stages.cpt.threads=2 make the same"):
        list(sweep.distinct(found, variants))


def test_the_world_is_looked_at_once(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    real = facts.gather

    def gather(*given):
        looked.append(given)
        return real(*given)

    monkeypatch.setattr(facts, "gather", gather)
    profile, workspace = read_profile(locate("devcluster")), Workspace(pipeline.parent / "w")
    found = list(swept(pipeline, (), AXES).variants(profile, workspace))
    assert len(looked) == 1
    assert len({variant.plan.stage("cpt").fingerprint for variant in found}) == 3
    assert len({variant.plan.stage("sft").fingerprint for variant in found}) == 6
    assert len({variant.plan.stage("corpus").fingerprint for variant in found}) == 1
    # What changes what is seen of the world is looked at again.
    list(swept(pipeline, (), ["stages.corpus.min_chars=1,2"]).variants(profile, workspace))
    assert len(looked) == 3


def test_the_command_counts_jobs(pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["plan", str(pipeline), "--cluster", "devcluster", "--workspace", str(tmp_path / "w")]
    assert main([*given, "--sweep", AXES[0], "--sweep", AXES[1]]) == 0
    said = capsys.readouterr().out
    assert "6 variants, 11 jobs" in said  # 1 corpus, 1 pairs, 3 cpt, 6 sft
    assert main([*given, "--sweep", AXES[0], "--json"]) == 0
    assert [one["set"] for one in json.loads(capsys.readouterr().out)["variants"]][2] == ["stages.cpt.lr=0.3"]
    assert main([*given, "--sweep", "stages.cpt.lr=much"]) == 2
    assert "--set stages.cpt.lr=much" in capsys.readouterr().err


def test_the_budget_is_held_against_the_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage counts once, at what ``estimates`` says of it; what is sealed counts nothing."""
    workspace = Workspace(tmp_path / "w")
    output = workspace.entry(BASE.kind, BASE.fingerprint).output
    output.mkdir(parents=True)
    (output / "config.json").write_text(json.dumps(LLAMA_1B))
    shared, first, second = (training(name, BASE) for name in ("cpt", "sft", "sft"))
    first, second = (replace(one, fingerprint=letter * 64) for one, letter in zip((first, second), "ab", strict=True))
    site = profile()
    variants = []
    for index, stage in enumerate((first, second)):
        plan = Plan("p", (shared, stage))
        variants.append(
            Variant({"stages.sft.lr": index}, SimpleNamespace(plan=plan, profile=SimpleNamespace(profile=site),
                                                              workspace=workspace))  # type: ignore[arg-type]
        )  # fmt: skip
    hours = [one.gpu_hours for one in estimates.estimates(variants[0].plan, site, workspace)]
    least, most = (sum(one[end] for one in hours if one) + hours[1][end] for end in (0, 1))  # type: ignore[index]
    found = sweep.SweepCost()
    for variant in variants:
        found.add(variant)
    assert (found.least, found.most) == pytest.approx((least, most))
    assert most > least > 0

    def budget(limit: float) -> Sweep:
        written = f'{{"over": {{"stages.cpt.lr": [1, 2]}}, "budget": {{"gpu_hours": {limit}}}}}'
        make_inputs(tmp_path / f"in-{limit}", texts=3, rows=5)
        return swept(with_sweep(tmp_path / f"in-{limit}" / "p.yaml", written))

    found.refuse(budget(round(most, 4) + 1))
    with pytest.raises(
        InputError, match=f"2 chains take {least:.3g} to {most:.3g} GPU-hours by the estimate"
    ) as caught:
        found.refuse(budget(round(least, 4)))
    assert "p.yaml:2:" in str(caught.value)
    for stage in (shared, first):
        seal = stage.store(workspace).seal
        seal.parent.mkdir(parents=True)
        seal.touch()
    rest = sweep.SweepCost()
    for variant in variants:
        rest.add(variant)
    assert rest.most == pytest.approx(hours[1][1])  # type: ignore[index]
