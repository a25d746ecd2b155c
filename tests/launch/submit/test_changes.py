"""``resume`` says what has changed since a run was planned, and does not queue what can only be refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from launch.config.document import reader
from launch.config.pipeline_file import read_pipeline
from launch.runs import rundir
from tests.support.toy_chain import STAGES, Chain

CORPUS, _, _, CPT = STAGES.splitlines(keepends=True)[:4]
ROOT = Path(__file__).parents[3]


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    made = Chain.make(tmp_path / "c", CORPUS + CPT)
    made.fetch()
    return made


def test_what_the_pipeline_says_now_is_compared_with_the_copy_of_the_run(chain: Chain) -> None:
    chain.start("--set", "stages.cpt.lr=0.25", "--set", "seed=9")
    assert "note:" not in chain.overnight("resume").stderr
    chain.pipeline.write_text(chain.pipeline.read_text().replace("steps: 12", "steps: 13"))
    done = chain.overnight("resume")
    assert "stages.cpt.steps: 12 -> 13" in done.stderr
    assert f"overnight run {chain.pipeline} --cluster" in done.stderr
    assert "--set stages.cpt.lr=0.25 --set seed=9" in done.stderr
    assert "--workspace" not in done.stderr  # it is the default of this user
    environment = {"OVERNIGHT_WORKSPACE": str(chain.directory / "other")}
    elsewhere = replace(chain, environment=environment).overnight("resume", "--workspace", str(chain.workspace.root))
    assert f"--workspace {chain.workspace.root}" in elsewhere.stderr
    # What options said of the run is no change of the file.
    assert "stages.cpt.lr:" not in done.stderr
    chain.pipeline.write_text("name: [\n")
    assert "cannot be read now" in chain.overnight("resume").stderr
    chain.pipeline.unlink()
    assert "note:" not in chain.overnight("resume").stderr


def test_changed_data_are_refused_before_anything_is_started(chain: Chain) -> None:
    chain.start()
    (chain.directory / "raw" / "00.txt").write_text("Other text.\n")
    assert "reused" in chain.overnight("resume").stderr  # its stage is done: nobody reads the file again
    entry = chain.workspace.entry("dataset", "x").root.parent
    for made in entry.glob("dataset-*"):
        shutil.rmtree(made)
    runs = {*chain.workspace.runs.iterdir()}
    done = chain.overnight("resume", check=False)
    assert done.returncode == 2
    assert "raw/00.txt: changed since run" in done.stderr
    assert f"next: overnight run {chain.pipeline} --cluster" in done.stderr
    assert {*chain.workspace.runs.iterdir()} == runs


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_copy_of_a_pipeline_reads_as_the_pipeline(path: Path, tmp_path: Path) -> None:
    import yaml

    read = read_pipeline(path, ["seed=3", "stages.final.backend=toy"])
    assert read.overrides == ["seed=3", "stages.final.backend=toy"]
    copy = tmp_path / "pipeline.yaml"
    copy.write_text(yaml.dump(read.data, Dumper=rundir._DUMPER, sort_keys=False, allow_unicode=True))
    assert reader.read(copy).data == read.data
