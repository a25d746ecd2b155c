"""Sweeps on a real Slurm: common stages are submitted once, a kill duplicates nothing, and at most n chains wait."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.core import results, seal
from launch.runs import family as families
from launch.runs.family import Family
from launch.slurm.queue import QueueRow
from tests.support import tracing
from tests.support.chains import Chain, ended, wrapper
from tests.support.inbox import Inbox, serving
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
    slurm: Slurm, directory: Path, settings: dict[str, Any] | None = None, over: Any = None,
    profile: dict[str, Any] | None = None, **budget: int,
) -> Chain:  # fmt: skip
    given = {"corpus": {"split": {"validation": 0.2}}, "final": FINAL, **(settings or {})}
    chain = Chain(slurm, directory, STAGES, settings=given, profile={**ROUTED, **(profile or {})})
    sweep = {"over": over or OVER, "by": {"held.loss": "lower"}, "budget": budget}
    with chain.pipeline.open("a") as stream:
        yaml.safe_dump({"sweep": sweep}, stream)
    chain.fetch()
    return chain


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    yield from serving()


def family_of(chain: Chain) -> Family:
    (found,) = families.all_families([chain.workspace])
    return found


def runs_of(chain: Chain) -> list[str]:
    return [run.id for run in family_of(chain).runs]


def counted(chain: Chain) -> dict[str, int]:
    return dict(Counter(job.stage for job in chain.jobs()))


def report(chain: Chain, code: int | None = 0) -> dict[str, Any]:
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


def _in(text: str, places: tuple[str, ...]) -> bool:
    return any(place in text for place in places)


@pytest.mark.full
@pytest.mark.skipif(not tracing.works(), reason="strace is not installed, or may not trace here")
def test_killed_at_any_call_it_goes_on(slurm: Slurm, tmp_path: Path) -> None:
    """From the first directory of the family to its last job: the calls that others can see, some of each kind."""
    base = swept(slurm, tmp_path / "base", over={"stages.cpt.lr": [0.5, 2.0]})
    clean, log = base.clone(tmp_path / "clean"), tmp_path / "strace"
    ended(clean.start("submit", "--json", before=tracing.recording(log)))
    calls = [call for call in tracing.recorded(log) if " = -1 " not in call.text and "/code/partial-" not in call.text]
    places = ("/families", "/runs/", "/store/")
    seen = [call for call in calls if call.call.startswith(("mkdir", "link", "rename")) and _in(call.text, places)]
    record = next(index for index, call in enumerate(seen) if "family.json" in call.text)
    around = [*range(0, record, max(1, record // 4)), record - 1, record, record + 1]
    later = range(record + 2, len(seen), max(1, (len(seen) - record) // 6))
    clean.wait()
    for number, at in enumerate(sorted({*around, *later})):
        chain = base.clone(tmp_path / f"kill-{number}")
        killed = ended(chain.start("submit", "--json", before=tracing.killing(seen[at])), code=None)
        assert killed.returncode == -signal.SIGKILL or not seen[at].certain, f"not killed at {seen[at]}"
        found = [one for one in families.all_families([chain.workspace]) if one.paths.record.exists()]
        if found:
            chain.overnight("resume", found[0].id)
        else:
            assert not chain.jobs(), f"submitted before there was a family: {seen[at]}"
            chain.overnight("submit")
        chain.wait()
        once = {"corpus": 1, "pairs": 1, "cpt": 2, "sft": 2, "final": 2}
        (family,) = [one for one in families.all_families([chain.workspace]) if one.paths.record.exists()]
        made = {run.id for run in family.runs}
        assert dict(Counter(job.stage for job in chain.jobs() if job.run in made)) == once, f"killed at {seen[at]}"
        assert {one["state"] for one in json.loads(
            chain.overnight("status", family.id, "--json").stdout)["members"]} == {"done"}  # fmt: skip
        chain.assert_queue_explained()


@pytest.mark.parametrize("at_once", [1, pytest.param(None, marks=pytest.mark.full)])
def test_one_letter_from_inside_the_last_job(
    slurm: Slurm, tmp_path: Path, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, at_once: int | None
) -> None:
    """One chain fails and one is done: no letter of their own, one of the family; ``notify`` finds nothing to add."""
    pytest.importorskip("apprise")
    monkeypatch.setenv("LETTERS", inbox.url)
    budget = {} if at_once is None else {"at_once": at_once}
    over = {"stages.sft.options.mishap": ["code", None]}
    chain = swept(slurm, tmp_path / "work", over=over, profile={"notify": {"to": ["LETTERS"]}}, **budget)
    chain.overnight("submit")
    chain.wait_until(lambda: report(chain, code=None)["members"][1]["state"] == "done", "the end of the sweep", 300)
    chain.wait()
    family = family_of(chain)
    failed, done = runs_of(chain)
    (title,) = [one["title"] for one in inbox.got]
    assert title.startswith(f"toy-chain {family.id}: FAILED, 1 of 2 chains done, best {done} (mishap null): loss ")
    assert not any(chain.workspace.run(run).outbox.exists() for run in (failed, done))
    assert chain.workspace.run(failed).page.exists()
    assert "nothing to send" in chain.overnight("notify", "--all").stdout
    assert done in family.paths.page.read_text()
    assert len(inbox.got) == 1


@pytest.mark.parametrize("at_once", [1, pytest.param(2, marks=pytest.mark.full)])
def test_at_most_so_many_chains_are_in_the_queue(slurm: Slurm, tmp_path: Path, at_once: int) -> None:
    """Jobs submit the next chain at their end; one chain fails, and the others go on."""
    mishap = {"stages.sft.options.mishap": ["code", None]}
    chain = swept(slurm, tmp_path / "work", over={"stages.cpt.lr": [0.5, 2.0], **mishap}, at_once=at_once)
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
    assert at_once <= max(seen) <= 2 * at_once  # those that end, and those that they have just submitted
    by = [entry["by"] for entry in family_of(chain).journal.read() if entry["event"] == "deferred"]
    assert by[0] is None
    assert all(by[1:])
    why = chain.overnight("why", found["members"][0]["run"], code=1).stdout
    assert "sft" in why


def test_a_shared_stage_that_fails_is_tried_once(slurm: Slurm, tmp_path: Path) -> None:
    """By the jobs: chains that wait for room do not take their turns at it. The user's resume does, once."""
    settings = {"cpt": {"options": {"mishap": "code", "mishap_step": 2}}}
    chain = swept(slurm, tmp_path / "work", settings, over={"stages.sft.lr": [0.25, 1.0, 2.0]}, at_once=1)
    chain.overnight("submit")
    chain.wait_until(lambda: chain.stage(runs_of(chain)[0], "cpt").root.exists(), "the first chain")
    chain.wait()
    assert len(chain.workers("cpt")) == 1
    assert len(chain.workers("corpus")) == 1
    members = report(chain, code=1)["members"]
    assert [one["state"].partition(":")[0] for one in members] == ["failed"] * 3 or members[0]["state"] == "failed: cpt"
    chain.overnight("resume", family_of(chain).id)
    chain.wait()
    assert len(chain.workers("cpt")) == 2


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
