"""Sweeps on a real Slurm: common stages are submitted once, a kill duplicates nothing, and at most n chains wait."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.core import results, seal
from launch.runs import family as families
from launch.runs.family import Family
from launch.slurm.queue import QueueRow
from tests.support.chains import Chain, ended, wrapper
from tests.support.slurm import Slurm

pytestmark = pytest.mark.slurm

STAGES = ("corpus", "pairs", "cpt", "sft", "final")
TASKS = {"held": {"task": "perplexity", "data": "corpus", "split": "validation"}, "perplexity": {"data": "corpus"}}
FINAL = {"checkpoint": "sft", "tasks": TASKS, "compare_to": None}
ROUTED = {"executors": {"default": "submitit", "training": "submitit"}}
"""Every job that ends imports the library of the next one's executor; this one is quick."""

OVER = {"stages.cpt.lr": [0.5, 2.0], "stages.sft.lr": [0.25, 1.0]}
ONCE = {"corpus": 1, "pairs": 1, "cpt": 2, "sft": 4, "final": 4}
"""Jobs of a grid of two by two."""


def swept(
    slurm: Slurm, directory: Path, settings: dict[str, Any] | None = None, over: Any = None, **budget: int
) -> Chain:
    given = {"corpus": {"split": {"validation": 0.2}}, "final": FINAL, **(settings or {})}
    chain = Chain(slurm, directory, STAGES, settings=given, profile=ROUTED)
    sweep = {"over": over or OVER, "by": {"held.loss": "lower"}, "budget": budget}
    with chain.pipeline.open("a") as stream:
        yaml.safe_dump({"sweep": sweep}, stream)
    chain.fetch()
    return chain


def family_of(chain: Chain) -> Family:
    (found,) = families.all_families([chain.workspace])
    return found


def runs_of(chain: Chain) -> list[str]:
    return [run.id for run in family_of(chain).runs]


def counted(chain: Chain) -> dict[str, int]:
    return dict(Counter(job.stage for job in chain.jobs()))


def report(chain: Chain, code: int = 0) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(chain.overnight("report", family_of(chain).id, "--json", code=code).stdout)
    return value


def assert_done_once(chain: Chain) -> None:
    """Every chain is sealed and sound; what several share was worked on once, by one job."""
    assert counted(chain) == ONCE
    sealed = set()
    for run in runs_of(chain):
        for name in STAGES:
            store = chain.store(run, name)
            sealed.add((name, store.root.name, seal.verify(store.output, store.seal).job))
    assert Counter(name for name, _, _ in sealed) == ONCE
    for name, count in ONCE.items():
        assert len(chain.events(name, "sealed")) == len(chain.workers(name)) == count
    chain.assert_queue_explained()


def loss(chain: Chain, run: str, task: str) -> float:
    tasks = results.read(chain.store(run, "final").output / results.FILE)
    return float(tasks[task]["metrics"]["loss"]["value"])


def test_a_grid_shares_its_stages_and_is_ranked(slurm: Slurm, tmp_path: Path) -> None:
    chain = swept(slurm, tmp_path / "work")
    said = json.loads(chain.overnight("submit", "--json").stdout)
    family = family_of(chain)
    assert said["family"] == family.id
    assert [tuple(one["set"].values()) for one in said["chains"]] == list(product(*OVER.values()))
    assert sum(one["jobs"] for one in said["chains"]) == sum(ONCE.values())
    waiting = chain.overnight("status", family.id).stdout
    assert f"family {family.id}: toy-chain on devcluster; " in waiting
    chain.wait()
    assert_done_once(chain)

    found = report(chain)
    losses = {run: loss(chain, run, "held") for run in runs_of(chain)}
    order = sorted(losses, key=lambda run: losses[run])
    ranks = {one["run"]: one["rank"] for one in found["members"]}
    assert [ranks[run] for run in order] == [1, 2, 3, 4]
    assert found["best"]["run"] == order[0]
    assert found["best"]["test"]["value"] == loss(chain, order[0], "perplexity")
    # By hand: the mean over the two pairs that differ in one key alone.
    one, two, three, four = (losses[run] for run in runs_of(chain))
    effects = {one["key"]: one for one in found["effects"]}
    assert effects["stages.cpt.lr"]["mean"] == pytest.approx(((three - one) + (four - two)) / 2)
    assert effects["stages.sft.lr"]["mean"] == pytest.approx(((two - one) + (four - three)) / 2)
    assert effects["stages.sft.lr"]["least"] == pytest.approx(min(two - one, four - three))
    assert {one["pairs"] for one in effects.values()} == {2}

    text = chain.overnight("report", family.id).stdout
    assert f"run {order[0]}, best of 4 by final.held.loss" in text
    assert "the best of several looks better than it is, believe the second" in text
    assert chain.overnight("list").stdout.count(family.id) == 4
    chain.overnight("report", family.id, "--html")
    assert order[0] in family.paths.page.read_text()
    # Once more: nothing is left to do, and another family takes all of it from the store.
    chain.overnight("resume", family.id)
    again = json.loads(chain.overnight("submit", "--json").stdout)
    assert {one["state"] for one in again["chains"]} == {"done"}
    assert counted(chain) == ONCE


@pytest.mark.parametrize("at", [1, 5, 11])
def test_a_submission_that_is_killed_goes_on_without_a_duplicate(slurm: Slurm, tmp_path: Path, at: int) -> None:
    chain = swept(slurm, tmp_path / "work")
    count = tmp_path / "count"
    body = f"""echo x >>'{count}'
if [ "$(wc -l <'{count}')" -eq {at} ]; then "$REAL" "$@"; kill -KILL $PPID; exit 0; fi
exec "$REAL" "$@"
"""
    killed = ended(chain.start("submit", environment=wrapper(tmp_path / "bin", "sbatch", body)), code=None)
    assert killed.returncode == -signal.SIGKILL
    assert len(count.read_text().split()) == at
    family = family_of(chain)
    if at > 1:
        chain.wait()
    chain.overnight("resume", family.id)
    chain.overnight("resume", family.id)
    chain.wait()
    assert_done_once(chain)
    assert [one["rank"] for one in report(chain)["members"]].count(None) == 0


def test_at_most_one_chain_is_in_the_queue(slurm: Slurm, tmp_path: Path) -> None:
    """Jobs submit the next chain at their end; one chain fails, and the others go on."""
    mishap = {"stages.sft.options.mishap": ["code", None]}
    chain = swept(slurm, tmp_path / "work", over={"stages.cpt.lr": [0.5, 2.0], **mishap}, at_once=1)
    chain.overnight("submit")
    seen: list[int] = []

    def is_over() -> bool:
        rows = [row for row in chain.gateway.squeue() if not row.state.is_final]
        seen.append(len({job.run for job in chain.jobs(rows) if counts(job.row)}))
        return not rows

    chain.wait_until(is_over, "the end of all chains", timeout=400)
    found = report(chain, code=1)
    assert [one["state"] for one in found["members"]] == ["failed: sft", "done"] * 2
    assert [one["rank"] is None for one in found["members"]] == [True, False] * 2
    assert max(seen) <= 2  # the job that ends, and those that it has just submitted
    by = [entry["by"] for entry in family_of(chain).journal.read() if entry["event"] == "deferred"]
    assert by[0] is None
    assert all(by[1:])
    why = chain.overnight("why", found["members"][0]["run"], code=1).stdout
    assert "sft" in why


def counts(row: QueueRow) -> bool:
    return row.reason != "DependencyNeverSatisfied"


def test_a_cancelled_family_submits_nothing_more(slurm: Slurm, tmp_path: Path) -> None:
    chain = swept(slurm, tmp_path / "work", {"cpt": {"options": {"step_seconds": 0.5}}}, at_once=1)
    chain.overnight("submit")
    family = family_of(chain)
    chain.wait_until(lambda: chain.workers("cpt"), "the first training")
    assert "jobs cancelled" in chain.overnight("cancel", family.id).stdout
    chain.wait()
    before = counted(chain)
    assert before["cpt"] == before["final"] == 1
    state = {one["run"]: one["state"] for one in report(chain)["members"]}
    assert sorted(set(state.values()))[-1] == "not submitted yet"
    chain.overnight("resume", family.id)
    chain.wait_until(lambda: counted(chain)["final"] == 5, "all chains", timeout=400)
    chain.wait()
    assert {one["state"] for one in report(chain)["members"]} == {"done"}


def test_what_was_cut_off_while_it_was_made_has_submitted_nothing(slurm: Slurm, tmp_path: Path) -> None:
    chain = swept(slurm, tmp_path / "work")
    made = families.begin(chain.workspace)
    for name, code in (("resume", 2), ("status", 2), ("report", 2), ("cancel", 2)):
        refused = chain.overnight(name, made.id, code=code).stderr
        assert "was cut off before anything was submitted" in refused
    assert "there is no family 'f-nosuch'" in chain.overnight("status", "f-nosuch", code=2).stderr
    os.rmdir(made.paths.root)
