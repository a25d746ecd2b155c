"""The chains of a sweep by rank, and the effects of its keys, against numbers made by hand."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from jobs.core import files
from jobs.core.seal import SealKind
from jobs.core.verdict import FailureClass, Outcome
from launch.cli.main import main
from launch.config.ranking import Ranking
from launch.runs import family as families
from launch.runs.attempt_state import local_job
from launch.runs.family import Family, FamilyRecord, Member
from launch.runs.rundir import Run
from tests.launch.status.test_results import evaluation, number
from tests.support.made_runs import make, said, sealed, started, submitted

RANKING = Ranking("final", "held", "loss", False, ("final", "test"))
GONE = 2**22 - 1
"""The number of no process."""

KEYS = ("stages.sft.lr", "stages.dpo.beta")
LOSSES = {(1e-5, 0.1): 3.0, (1e-5, 0.5): 2.5, (2e-5, 0.1): 2.0, (2e-5, 0.5): 2.75}
"""By hand: lr: -1.0 and +0.25, mean -0.375; beta: -0.5 and +0.75, mean +0.125."""


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def made(
    directory: Path,
    numbers: dict[tuple[Any, ...], float | None] | None = None,
    ranking: Ranking | None = RANKING,
    keys: tuple[str, ...] = KEYS,
    profile: Mapping[str, str] | None = None,
    **record: Any,
) -> tuple[Family, dict[tuple[Any, ...], Run]]:
    """A family of local runs whose evaluations measured these numbers; None: not yet."""
    numbers = LOSSES if numbers is None else numbers  # type: ignore[assignment]
    assert numbers is not None
    runs: dict[tuple[Any, ...], Run] = {}
    for index, (values, value) in enumerate(numbers.items()):
        stage = replace(evaluation("final"), fingerprint=f"{index:02}" * 32)
        run = make(directory / "ws", stage, profile={"executor": "local", **(profile or {})})
        runs[values] = run
        if value is not None:
            measured = {"held": {"loss": number(value)}, "test": {"loss": number(value + 0.25)}}
            sealed(run, "final", SealKind.EVALUATION, measured)
    family = families.begin(next(iter(runs.values())).workspace)
    members = tuple(Member(run.id, dict(zip(keys, values, strict=True))) for values, run in runs.items())
    facts = {"pipeline": "p", "source": "/p.yaml", "profile": "site", "keys": keys, **record}
    families.write(family, FamilyRecord(schema=1, members=members, ranking=ranking, **facts))
    for run in runs.values():
        files.write_atomic(run.paths.family, f"{family.id}\n")
    return family, runs


def told(family: Family, directory: Path, capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    given = ["report", family.id, "--workspace", str(directory / "ws")]
    assert main([*given, "--json"]) == code
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert main(given) == code
    return {**value, "text": capsys.readouterr().out}


def test_ranks_and_effects_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family, runs = made(tmp_path)
    found = told(family, tmp_path, capsys)
    ranks = {one["run"]: one["rank"] for one in found["members"]}
    assert [ranks[run.id] for run in runs.values()] == [4, 2, 1, 3]
    best = runs[2e-5, 0.1]
    assert (found["best"]["run"], found["best"]["test"]["value"]) == (best.id, 2.25)
    effects = {one["key"]: one for one in found["effects"]}
    assert effects["stages.sft.lr"] == {
        "key": "stages.sft.lr", "value": 2e-5, "against": 1e-5, "pairs": 2,
        "mean": -0.375, "least": -1.0, "greatest": 0.25, "better": 1,
    }  # fmt: skip
    beta = effects["stages.dpo.beta"]
    assert (beta["mean"], beta["least"], beta["greatest"], beta["better"]) == (0.125, -0.5, 0.75, 1)
    text = found["text"]
    assert f"run {best.id}, best of 4 by final.held.loss: 2 on the validation split, 2.25 on the test split" in text
    assert "the best of several looks better than it is, believe the second" in text
    # The interval is 0.5 on each side, 1.96 standard errors; the best of four leads by 1.029 of them.
    assert "were all 4 equally good, the best would still look better by up to 0.263" in text
    rows = [line.split() for line in text.splitlines() if line[:4].strip().isdigit()]
    assert [row[0] for row in rows] == ["1", "2", "3", "4"]


def test_more_is_better_turns_the_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family, runs = made(tmp_path, ranking=replace(RANKING, higher=True))
    found = told(family, tmp_path, capsys)
    assert found["best"]["run"] == runs[1e-5, 0.1].id
    assert {one["better"] for one in found["effects"]} == {1}


def test_equal_numbers_share_a_rank(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = dict(zip(product((1, 2), (1, 2)), (2.0, 2.0, 1.0, 3.0), strict=True))
    family, _ = made(tmp_path, numbers)
    assert [one["rank"] for one in told(family, tmp_path, capsys)["members"]] == [2, 2, 1, 4]


def test_a_failed_chain_and_one_without_a_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family, runs = made(tmp_path, {**LOSSES, (2e-5, 0.1): None, (2e-5, 0.5): None})
    failed = runs[2e-5, 0.5]
    job = local_job(socket.gethostname(), GONE)
    submitted(failed, "final", job, carrier="local", pid=GONE)
    started(failed, "final", job)
    said(failed, "final", job, Outcome.FAIL, FailureClass.CODE_ERROR, "it broke")
    found = told(family, tmp_path, capsys, code=1)
    assert [one["state"] for one in found["members"]] == ["done", "done", "not submitted yet", "failed: final"]
    assert found["best"]["run"] == runs[1e-5, 0.5].id
    assert [one["key"] for one in found["effects"]] == ["stages.dpo.beta"]
    assert "stages.sft.lr: no two chains with a number differ in it alone" in found["text"]
    assert "2 of 4 chains have no number (yet)" in found["text"]
    assert found["next"] == f"overnight why {failed.id}; then: overnight resume {family.id}"


def test_a_list_has_no_pairs_and_no_test_split_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family, _ = made(tmp_path, {(1, 1): 2.0, (2, 2): 1.0}, replace(RANKING, test=None))
    found = told(family, tmp_path, capsys)
    assert found["effects"] == []
    assert found["best"]["test"] is None
    assert found["text"].count("differ in it alone") == 2
    assert "and no other examples were measured" in found["text"]
    assert "nothing measures final.held.loss on the test split" in found["text"]


def test_without_a_metric_nothing_is_ranked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family, _ = made(tmp_path, ranking=None)
    found = told(family, tmp_path, capsys)
    assert found["best"] is None
    assert "nothing ranks the chains: write by: TASK.METRIC" in found["text"]


HOSTILE = "<script>alert(1)</script>\u202e' onload=x"


def test_the_page_shows_values_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family, _ = made(tmp_path, {(HOSTILE,): 2.0, ("b",): 1.0}, keys=("stages.sft.<b>",), pipeline="p<i>")
    assert main(["report", family.id, "--workspace", str(tmp_path / "ws"), "--html"]) == 0
    page = family.paths.page.read_text()
    assert "<script" not in page
    assert "p<i>" not in page
    assert "stages.sft.<b>" not in page
    assert "[U+202E]" in page
    assert "default-src 'none'" in page
    assert "believe the second" in page


def test_markdown_ranks_and_shows_values_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family, runs = made(tmp_path, {(HOSTILE, 1): 2.0, ("b|c", 1): 1.0}, keys=("stages.sft.<b>", "seed"), pipeline="p*i")
    assert main(["report", family.id, "--workspace", str(tmp_path / "ws"), "--md"]) == 0
    shown = capsys.readouterr().out
    best = runs["b|c", 1].id
    assert shown.splitlines()[:3] == [
        f"# p\\*i {family.id} on {runs['b|c', 1].profile().name}",
        "",
        f"**Best: run {best}**",
    ]
    assert f"| 1 | {best} | done |" in shown
    assert "b\\|c" in shown
    assert "<script" not in shown.replace("\\<script", "")
    assert "| stages.sft.\\<b\\> | b\\|c against" in shown
    assert f"Next: `overnight report {best}`" in shown


def test_the_page_in_korean_has_the_same_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family, runs = made(tmp_path, {**LOSSES, (2e-5, 0.5): None})
    where = ["--workspace", str(tmp_path / "ws"), "--html"]
    assert main(["report", family.id, *where, str(tmp_path / "en.html")]) == 0
    assert main(["report", family.id, *where, str(tmp_path / "ko.html"), "--language", "ko"]) == 0
    english, korean = ((tmp_path / name).read_text() for name in ("en.html", "ko.html"))
    assert "<html lang=ko>" in korean
    assert f"가장 좋은 실행: {runs[2e-5, 0.1].id}" in korean
    assert "뒤의 숫자를 믿으세요" in korean
    assert "아직 제출되지 않음" in korean

    def numbers(page: str) -> list[str]:
        return sorted(re.findall(r"(?<![\w#-])[-+]?\d+\.\d+", page.partition("</style>")[2]))

    assert numbers(korean) == numbers(english)
    words = re.sub(r"<[^>]*>", " ", korean.partition("</style>")[2])
    words = re.sub(r"stages\.\S+|overnight \S+ \S+", " ", words)
    for name in (family.id, *(run.id for run in runs.values())):
        words = words.replace(name, " ")
    left = set(re.findall(r"[a-z]{4,}", words))
    assert not left - {"overnight", "held", "loss", "final", "status", "later"}, left


def test_a_damaged_record_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family, runs = made(tmp_path)
    whole = family.paths.record.read_text()
    for damage, text in (
        (whole[: len(whole) // 2], "family.json"),
        (whole.replace('"schema": 1', '"schema": 9'), "schema 9, this version reads 1"),
        (whole.replace('"members"', '"memberz"'), "unknown key 'memberz'"),
    ):
        family.paths.record.write_text(damage)
        for command in ("status", "report", "resume", "cancel"):
            assert main([command, family.id, "--workspace", str(tmp_path / "ws")]) == 2
            assert text in capsys.readouterr().err
    # A run is a run, whatever became of its family.
    run = runs[1e-5, 0.1]
    run.paths.family.write_text("../../etc\n")
    assert families.of_run(run) is None
    assert main(["list", "--workspace", str(tmp_path / "ws")]) == 0
