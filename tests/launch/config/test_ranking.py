"""``sweep: {by: ...}`` means one metric on the validation split, and where it is measured on the test split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launch.base.errors import InputError
from launch.config.pipeline_file import read_pipeline
from launch.config.ranking import Ranking, ranking_of

ANSWERS = {"held": {"task": "answers", "split": "validation"}, "answers": {}}


def found(directory: Path, by: Any, **evaluations: dict[str, Any]) -> Ranking | None:
    stages: dict[str, Any] = {
        "pairs": {"kind": "instructions", "from": "./sft.jsonl"},
        "sft": {"kind": "sft", "checkpoint": "base", "data": "pairs", "steps": 4, "lr": 1e-5},
    }
    for name, keys in evaluations.items():
        stages[name] = {"kind": "evaluate", "checkpoint": "sft", **keys}
    value = {"name": "p", "model": {"base": "./tiny"}, "stages": stages}
    file = directory / "p.yaml"
    file.write_text(json.dumps({**value, "sweep": {"over": {"stages.sft.lr": [1e-5]}, "by": by}}, indent=1))
    return ranking_of(read_pipeline(file).pipeline)


def test_the_metric_says_what_is_better(tmp_path: Path) -> None:
    lower = found(tmp_path, "held.answer_loss", final={"tasks": ANSWERS})
    assert lower == Ranking("final", "held", "answer_loss", False, ("final", "answers"))
    tasks = {"held": {"task": "translation", "split": "validation"}, "translation": {"limit": 5}}
    higher = found(tmp_path, "held.chrf", final={"tasks": tasks})
    assert higher == Ranking("final", "held", "chrf", True, ("final", "translation"))


def test_the_test_split_may_be_measured_by_another_evaluation_of_the_same_model(tmp_path: Path) -> None:
    held = {"tasks": {"held": ANSWERS["held"]}}
    one = found(tmp_path, "final.held.answer_loss", final=held, test={"tasks": {"answers": {}}})
    assert one is not None
    assert one.test == ("test", "answers")
    of_base = found(tmp_path, "held.answer_loss", final=held, test={"tasks": {"answers": {}}, "checkpoint": "base"})
    assert of_base is not None
    assert of_base.test is None
    other = {"tasks": {"held": {"task": "translation", "split": "validation"}, "t": {"task": "answers"}}}
    assert found(tmp_path, "held.chrf", final=other) == Ranking("final", "held", "chrf", True)


def test_another_back_end_measures_what_it_measures(tmp_path: Path) -> None:
    toy = {"backend": "toy", "tasks": ANSWERS}
    assert found(tmp_path, {"held.loss": "lower"}, final=toy) == Ranking(
        "final", "held", "loss", False, ("final", "answers")
    )
    with pytest.raises(InputError, match="is lower or higher better"):
        found(tmp_path, "held.loss", final=toy)


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("held.answer_los", "no evaluation measures 'held.answer_los'; nearest: held.answer_loss"),
        ("answers.answer_loss", "final.answers.answer_loss is of the test split.*held|split: validation"),
        ("", "is empty"),
        ({"held.answer_loss": "down"}, "got 'down'"),
        ({"held.answer_loss": "lower", "answers.answer_loss": "lower"}, "write one metric"),
        ([1], "expected a mapping"),
    ],
)
def test_what_ranks_nothing_is_refused(tmp_path: Path, by: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        found(tmp_path, by, final={"tasks": ANSWERS})
    assert f"{tmp_path}/p.yaml:" in str(caught.value)


def test_two_evaluations_are_told_apart(tmp_path: Path) -> None:
    both = {"one": {"tasks": ANSWERS}, "two": {"tasks": ANSWERS}}
    with pytest.raises(InputError, match=r"write one.held.answer_loss or two.held.answer_loss"):
        found(tmp_path, "held.answer_loss", **both)
    two = found(tmp_path, "two.held.answer_loss", **both)
    assert two is not None
    assert two.stage == "two"
