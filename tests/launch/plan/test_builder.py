"""The way from one checkpoint format to another, over what the back ends of a pipeline can convert."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs import backends
from jobs.core.capabilities import Capabilities
from launch.base.errors import InputError
from launch.config.pipeline_file import read_pipeline
from launch.config.profile import Profile
from launch.plan import builder, estimates
from launch.plan.builder import conversions
from launch.plan.model import BackEndFacts, Facts, FetchedFacts, Plan


def able(*converts: tuple[str, str]) -> BackEndFacts:
    able = Capabilities(frozenset({"convert"}), frozenset(), frozenset(), converts=frozenset(converts))
    return BackEndFacts({}, "python3", able)


ABLE = {
    "convert": able(("gguf", "hf")),
    "nemo": able(("hf", "nemo"), ("nemo", "hf")),
    "nemo_rl": able(("dcp", "hf")),
    "other": able(("hf", "own"), ("own", "hf")),
}


@pytest.mark.parametrize(
    ("given", "wanted", "way"),
    [
        ("hf", ("hf",), []),
        ("gguf", ("hf",), [("convert", "hf")]),
        ("gguf", ("nemo",), [("convert", "hf"), ("nemo", "nemo")]),
        ("nemo", ("hf",), [("nemo", "hf")]),
        ("dcp", ("nemo",), [("nemo_rl", "hf"), ("nemo", "nemo")]),
        ("hf", ("own",), [("other", "own")]),
        ("own", ("hf",), [("other", "hf")]),
        ("nemo", ("own",), [("nemo", "hf"), ("other", "own")]),
        ("own", ("nemo",), [("other", "hf"), ("nemo", "nemo")]),
        ("dcp", ("own",), [("nemo_rl", "hf"), ("other", "own")]),
        ("hf", ("dcp",), None),
        ("wheels", ("hf",), None),
    ],
)
def test_shortest_way(given: str, wanted: tuple[str, ...], way: list[tuple[str, str]] | None) -> None:
    assert conversions(ABLE, given, wanted) == way


def declared(name: str) -> BackEndFacts:
    """What the planner would hear from a back end whose packages are there."""
    return BackEndFacts({}, "python3", backends.load(name).CAPABILITIES)


def test_what_an_older_revision_of_a_back_end_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It, and all that is made from it; the rest keeps its fingerprint."""
    able = backends.load("nemo").CAPABILITIES
    assert able.revision == 3
    chain = (("cpt", "trl", "base"), ("sft", "nemo", "s1"), ("sft", "trl", "s2"))
    before, after = ({}, {})
    for found, revision in ((before, able.revision), (after, 4)):
        monkeypatch.setattr(backends.load("nemo"), "CAPABILITIES", replace(able, revision=revision))
        found |= {stage.name: stage.fingerprint for stage in planned(tmp_path, *chain).stages}
    assert [name for name in after if before[name] == after[name] and name.startswith("s")] == ["s1"]
    assert sorted(before) == sorted(after)


def planned(
    directory: Path,
    *stages: tuple[str, str, str],
    names: tuple[str, ...] = (),
    options: dict[str, dict[str, Any]] | None = None,
) -> Plan:
    """A chain of (kind, back end, checkpoint), as its back ends declare themselves; stages are called s1, s2, ..."""
    data = {"cpt": "corpus", "sft": "instructions", "dpo": "preferences"}
    text = "name: c\nmodel: {base: ./base}\nstages:\n"
    for kind in ("corpus", "instructions", "preferences"):
        text += f"  {kind}: {{kind: {kind}, from: ./rows.jsonl}}\n"
    named = itertools.zip_longest(names, stages)
    for number, (name, (kind, backend, checkpoint)) in enumerate(named, 1):
        keys = {"kind": kind, "backend": backend, "checkpoint": checkpoint, "data": data[kind], "steps": 1, "lr": 0.1}
        keys |= {"options": (options or {}).get(f"s{number}", {})}
        text += f"  {name or f's{number}'}: {json.dumps(keys)}\n"
    (directory / "c.yaml").write_text(text)
    pipeline = read_pipeline(directory / "c.yaml").pipeline
    found = {name: declared(name) for name in builder.back_ends_of(pipeline)}
    base = FetchedFacts("base", "./base", "hf", "ab" * 32, present=True)
    facts = Facts(found, {}, {"base": base}, "python3")
    return builder.build(pipeline, Profile.read({"name": "site", "executor": "slurm"}), facts)


@pytest.mark.parametrize(
    ("stages", "inserted"),
    [
        ([("cpt", "nemo", "base"), ("dpo", "trl", "s1")], ["base-nemo", "s1-hf"]),
        (
            [("cpt", "nemo", "base"), ("sft", "trl", "s1"), ("cpt", "nemo", "s2")],
            ["base-nemo", "s1-hf", "s2-nemo"],
        ),
        (
            [("cpt", "nemo", "base"), ("sft", "nemo", "s1"), ("dpo", "nemo_rl", "s2"), ("sft", "trl", "s3")],
            ["base-nemo", "s2-hf", "s3-hf"],
        ),
        ([("cpt", "automodel", "base"), ("dpo", "trl", "s1")], []),
    ],
    ids=["nemo", "there_and_back", "guide", "automodel"],
)
def test_conversions_are_inserted_by_what_back_ends_declare(
    tmp_path: Path, stages: list[tuple[str, str, str]], inserted: list[str]
) -> None:
    found = planned(tmp_path, *stages)
    assert sorted(stage.name for stage in found.stages if stage.inserted) == sorted(inserted)
    order = [stage.name for stage in found.stages]
    for stage in found.stages:
        assert all(order.index(parent) < order.index(stage.name) for parent in stage.parents)
        reads = stage.inputs.get("checkpoint") or stage.inputs.get("source")
        if reads is not None:
            able = backends.load(stage.backend).CAPABILITIES
            assert reads.format in {*able.formats_in, *(source for source, _ in able.converts)}


def test_a_stage_may_not_have_the_name_of_a_conversion_that_is_needed(tmp_path: Path) -> None:
    """Of any format that a back end declares, and only where the conversion is there."""
    stages = [("cpt", "nemo", "base"), ("dpo", "trl", "s1"), ("sft", "trl", "base")]
    with pytest.raises(InputError, match="stage 'base-nemo' has the name of the conversion of 'base' to 'nemo'"):
        planned(tmp_path, *stages, names=("s1", "s2", "base-nemo"))
    planned(tmp_path, ("cpt", "trl", "base"), ("sft", "trl", "s1"), names=("s1", "s1-hf"))


def test_adapters_alone_are_a_format_that_no_stage_reads(tmp_path: Path) -> None:
    alone = {"s1": {"lora_rank": 8, "output": "adapter"}}
    (made,) = [stage for stage in planned(tmp_path, ("sft", "trl", "base"), options=alone).stages if stage.name == "s1"]
    (merged,) = [stage for stage in planned(tmp_path, ("sft", "trl", "base")).stages if stage.name == "s1"]
    assert (made.produces_format, merged.produces_format) == ("adapter", "hf")
    assert made.fingerprint != merged.fingerprint
    with pytest.raises(InputError, match=r"nothing converts 'adapter' of 's1' to that: leave options\.output"):
        planned(tmp_path, ("sft", "trl", "base"), ("dpo", "trl", "s1"), options=alone)


def test_what_an_evaluation_compares_with_and_runs_is_part_of_it(tmp_path: Path) -> None:
    """The model of ``kl``, and the user's code: of the stages that run it, and of no other."""

    def built(measure: dict[str, Any], code: str) -> Plan:
        tasks = {"support": {"measure": measure}}
        stages = {
            "pairs": {"kind": "instructions", "from": "./rows.jsonl"},
            "before": {"kind": "evaluate", "checkpoint": "base", "tasks": {"support": {"measure": {"f1": {}}}}},
            "sft": {"kind": "sft", "checkpoint": "base", "data": "pairs", "steps": 1, "lr": 0.1},
            "after": {"kind": "evaluate", "checkpoint": "sft", "compare_to": "before", "tasks": tasks},
        }
        (tmp_path / "c.yaml").write_text(
            json.dumps({"name": "c", "model": {"base": "./base"}, "code": ".", "stages": stages})
        )
        pipeline = read_pipeline(tmp_path / "c.yaml").pipeline
        found = {name: declared(name) for name in builder.back_ends_of(pipeline)}
        base = FetchedFacts("base", "./base", "hf", "ab" * 32, present=True)
        facts = Facts(found, {}, {"base": base}, "python3", code)
        return builder.build(pipeline, Profile.read({"name": "site", "executor": "slurm"}), facts)

    plain, compared = (built(measure, "1").stage("after") for measure in ({"f1": {}}, {"kl": {}}))
    assert "reference" not in plain.inputs
    assert compared.inputs["reference"].stage == "base"  # what compare_to has measured
    assert built({"kl": {"reference": "sft"}}, "1").stage("after").inputs["reference"].stage == "sft"
    first, second = (built({"code": "own:f"}, digest).stages for digest in ("1", "2"))
    changed = {one.name for one, other in zip(first, second, strict=True) if one.fingerprint != other.fingerprint}
    assert changed == {"after"}


def test_a_curve_has_the_saves_kept_and_a_choice_makes_a_model(tmp_path: Path) -> None:
    def built(backend: str = "trl", curve: bool = True, **keys: Any) -> Plan:
        training = {"checkpoint": "base", "data": "corpus", "steps": 20, "lr": 0.1, "save_every": 5, "backend": backend}
        stages: dict[str, Any] = {
            "corpus": {"kind": "corpus", "from": "./rows.jsonl"},
            "cpt": {"kind": "cpt", **training, **keys},
        }
        if curve:
            stages["curve"] = {"kind": "curve", "checkpoints": "cpt", "every": 2, "tasks": ["perplexity"]}
            stages["best"] = {"kind": "choose", "from": "cpt", "by": {"perplexity": "lower"}}
            stages["more"] = {"kind": "cpt", **training, "checkpoint": "best", "backend": "trl"}
        (tmp_path / "c.yaml").write_text(json.dumps({"name": "c", "model": {"base": "./base"}, "stages": stages}))
        pipeline = read_pipeline(tmp_path / "c.yaml").pipeline
        found = {name: declared(name) for name in builder.back_ends_of(pipeline)}
        base = FetchedFacts("base", "./base", "hf", "ab" * 32, present=True)
        facts = Facts(found, {}, {"base": base}, "python3")
        return builder.build(pipeline, Profile.read({"name": "site", "executor": "slurm"}), facts)

    plan = built()
    assert plan.stage("cpt").settings["keep_every"] == 10
    assert built(keep_every=4).stage("cpt").settings["keep_every"] == 2  # both have the saves that they need
    assert "keep_every" not in built(curve=False).stage("cpt").settings
    curve, best = plan.stage("curve"), plan.stage("best")
    assert curve.settings["curve"] == {"every": 10, "backend": "trl"}
    assert {role: one.stage for role, one in curve.inputs.items()} == {
        "checkpoint": "cpt", "source": "base", "corpus": "corpus",
    }  # fmt: skip
    assert (curve.kind, curve.produces_kind) == ("evaluate", "evaluation")
    assert (best.produces_kind, best.produces_format) == ("checkpoint", "hf")
    assert {one.stage for one in best.inputs.values()} == {"curve", "cpt", "base", "corpus"}
    assert plan.stage("more").inputs["checkpoint"].fingerprint == best.fingerprint
    assert estimates.of_kept_saves(plan, []) == [
        "cpt: 2 saves of every 10 steps stay, for curve, best, until `overnight gc` removes the stage"
    ]
    with pytest.raises(InputError, match="'trl' reads no saves of 'nemo'"):
        built("nemo")


@pytest.mark.parametrize(("form", "parent"), [("hf", "base"), ("gguf", "base-hf")])
def test_the_tokenizer_of_the_base_model_is_read_from_files(tmp_path: Path, form: str, parent: str) -> None:
    """A model of one file has its tokenizer inside, which a data stage does not read: the conversion comes first."""
    text = "name: c\nmodel: {base: ./base}\nstages:\n  pairs: {kind: instructions, from: ./rows.jsonl, prepare: {tokenizer: base}}\n"
    (tmp_path / "c.yaml").write_text(text)
    pipeline = read_pipeline(tmp_path / "c.yaml").pipeline
    found = {name: declared(name) for name in builder.back_ends_of(pipeline)}
    base = FetchedFacts("base", "./base", form, "ab" * 32, present=True)
    plan = builder.build(
        pipeline, Profile.read({"name": "site", "executor": "slurm"}), Facts(found, {}, {"base": base}, "python3")
    )
    assert plan.find("pairs").inputs["tokenizer"].stage == parent
