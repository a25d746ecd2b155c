"""A setting of training is the same everywhere: in the pipeline file and in every back end."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import pytest

import jobs.backends
from jobs import backends
from jobs.core.settings import DpoKeys, Rule, TrainingKeys, rule_of, setting
from jobs.training import interface
from jobs.training.interface import ProcessShape
from jobs.training.settings import BadSettings, TrainingSettings
from launch.base.errors import InputError
from launch.config.document.typed import fields_of
from launch.config.kinds import TRAINING_KINDS
from launch.config.pipeline import Pipeline
from launch.config.pipeline_file import read_pipeline
from launch.config.stages import CptStage, DpoStage
from tests.support import stages

TRAINERS = [
    name
    for module in pkgutil.iter_modules(jobs.backends.__path__)
    if set(backends.load(name := module.name).CAPABILITIES.kinds) & set(TRAINING_KINDS)
]
REQUIRED = {"steps": 4, "lr": 1e-3}
KEYS: dict[str, Field[Any]] = {entry.name: entry for keys in (TrainingKeys, DpoKeys) for entry in fields(keys)}
"""Settings that the pipeline file has keys for."""
MAPPINGS = {key for key, entry in KEYS.items() if rule_of(entry).keys}
"""Those with keys of their own; what of these is refused is in test_validation.py."""


def classes(name: str) -> list[type[TrainingSettings]]:
    """The settings of a back end: those classes that no other one of it extends."""
    face = importlib.import_module(f"jobs.backends.{name}")
    module = importlib.import_module(f"{face.__name__}.settings") if name != "toy" else face
    found = [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__]
    found = [each for each in found if issubclass(each, TrainingSettings)]
    return [each for each in found if not any(each in other.__mro__[1:] for other in found)]


def invalid(rule: Rule) -> Iterator[Any]:
    """The nearest value outside of each bound."""
    if rule.at_least is not None:
        yield int(rule.at_least) - 1
    if rule.above is not None:
        yield rule.above
    if rule.below is not None:
        yield rule.below
    if rule.choices:
        yield "anything"


def test_every_back_end_that_trains_is_walked() -> None:
    assert set(TRAINERS) >= {"trl", "nemo", "nemo_rl", "automodel", "toy"}
    assert [len(classes(name)) for name in TRAINERS] == [2 if name == "nemo_rl" else 1 for name in TRAINERS]


@pytest.mark.parametrize("name", TRAINERS)
def test_of_a_setting_that_is_gone_it_says_what_there_is(name: str) -> None:
    for setting_of_before, command in (
        ("tensorboard", "overnight tensorboard RUN"),
        ("wandb_project", "overnight track RUN"),
    ):
        with pytest.raises(BadSettings, match=f"unknown setting '{setting_of_before}'; {command}"):
            classes(name)[0].read({**REQUIRED, setting_of_before: True})


@pytest.mark.parametrize("name", TRAINERS)
def test_a_default_is_the_same_everywhere(name: str) -> None:
    for cls in classes(name):
        own = {entry.name: entry.default for entry in fields(cls)}
        assert own.keys() >= {entry.name for entry in fields(TrainingKeys)}
        for key, entry in KEYS.items():
            if key in own:
                assert own[key] == entry.default, (cls, key)


def test_the_pipeline_file_has_the_same_keys_and_defaults() -> None:
    found = fields_of(DpoStage)
    assert KEYS.keys() <= found.keys()
    for key, entry in KEYS.items():
        if key == "seed":  # a stage's own; None: that of the pipeline
            assert fields_of(Pipeline)["seed"].default == entry.default
        elif key == "steps":  # None: ``epochs`` stands in its place
            assert found[key].default is None
        elif entry.default is MISSING:
            assert found[key].is_required, key
        else:
            assert found[key].default == entry.default, key
    assert "beta" not in fields_of(CptStage)


def refused_by_back_end(root: Path, name: str, kind: str, settings: dict[str, Any]) -> str:
    able = backends.load(name).CAPABILITIES
    data = {"cpt": "corpus", "sft": "instructions", "dpo": "preferences"}[kind]
    places = {"checkpoint": root / "parent", "data": root / "data"}
    formats = {"checkpoint": min(able.formats_in), "data": data}
    given = stages.stage(root / "stage", kind, name, {**REQUIRED, **settings}, places, formats).spec
    with pytest.raises(BadSettings) as raised:
        interface.rendered(backends.load(name), given, ProcessShape(processes=2))
    return str(raised.value)


@pytest.mark.parametrize("name", TRAINERS)
def test_an_invalid_value_is_refused_by_the_back_end(name: str, tmp_path: Path) -> None:
    tried = set()
    for cls in classes(name):
        kind = getattr(cls, "KIND", min(backends.load(name).CAPABILITIES.kinds & set(TRAINING_KINDS)))
        for entry in fields(cls):
            for value in invalid(rule_of(entry)):
                message = refused_by_back_end(tmp_path, name, kind, {entry.name: value})
                assert re.match(rf"{entry.name} must be .*, not {value!r}(\.0)?$", message), message
                tried.add(entry.name)
    assert tried >= KEYS.keys() - {"beta"} - MAPPINGS


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, entry in KEYS.items() for value in invalid(rule_of(entry))]
)
def test_an_invalid_value_is_refused_in_the_pipeline_file_with_its_line(key: str, value: Any, tmp_path: Path) -> None:
    keys = "".join(f"    {name}: {each}\n" for name, each in {**REQUIRED, key: value}.items())
    path = tmp_path / "pipeline.yaml"
    path.write_text(
        "name: p\nmodel: {base: ./model}\nsources: {mine: {type: path, path: ./rows}}\nstages:\n"
        "  prefs: {kind: preferences, from: mine}\n"
        "  tuned:\n    kind: dpo\n    checkpoint: base\n    data: prefs\n" + keys
    )
    line = 1 + path.read_text().splitlines().index(f"    {key}: {value}")
    with pytest.raises(InputError, match=rf"pipeline\.yaml:{line}:\d+: stages\.tuned\.{key}: (must be|got) .*{value}"):
        read_pipeline(path)


def test_every_setting_of_the_pipeline_file_is_limited() -> None:
    assert {key for key, entry in KEYS.items() if not list(invalid(rule_of(entry)))} == MAPPINGS


@pytest.mark.parametrize(
    ("rule", "value", "problem"),
    [
        ({"at_least": 1}, 1, None),
        ({"at_least": 1}, 0, "must be at least 1, not 0"),
        ({"above": 0}, 0.0, "must be above 0, not 0.0"),
        ({"below": 1}, 1.0, "must be below 1, not 1.0"),
        ({"above": 0}, float("nan"), "must be a finite number, not nan"),
        ({"choices": ("a", "b")}, "c", "must be one of a, b, not 'c'"),
        ({}, "anything", None),
    ],
)
def test_a_rule(rule: dict[str, Any], value: Any, problem: str | None) -> None:
    assert Rule(**rule).problem(value) == problem
    assert rule_of(setting(0, **rule)) == Rule(**rule)


@pytest.mark.parametrize(("every", "kept", "fits"), [(2, 4, True), (2, 3, False), (None, 4, False), (5, 5, True)])
def test_saves_that_are_to_stay_are_made(every: int | None, kept: int, fits: bool) -> None:
    given = {"steps": 9, "lr": 0.1, "save_every": every, "keep_every": kept}
    if fits:
        assert TrainingSettings.read(given).keep_every == kept
    else:
        with pytest.raises(BadSettings, match=rf"keep_every {kept} must be a multiple of save_every \({every}\)"):
            TrainingSettings.read(given)
