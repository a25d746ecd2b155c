"""What the profile asks of seals, and what is measured from saves that were really made."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.core import files, hashing, seal
from jobs.lifecycle import space, steps
from jobs.lifecycle.start import Start, event
from jobs.lifecycle.steps import Entry
from jobs.training.deadline import StopRequest
from jobs.training.saves import Saves
from jobs.worker import monitor
from jobs.worker.work import _seconds_to_seal, _SignalledStop
from launch.config.profile_file import read_profile
from launch.status import results
from launch.status.assess import look
from launch.status.cluster import Queue
from launch.status.model import State
from tests.file_faults.job import carry, prepare, put, spec_of
from tests.support import made_runs
from tests.support.stages import write_deadline


def stop_of(spec: Any, start: Start) -> _SignalledStop:
    """As ``jobs.worker.work`` makes it at the beginning of a start."""
    stop = _SignalledStop(
        spec.stage_paths,
        spec.stage_paths.deadline(start.job, start.restart),
        spec.lead_seconds,
        lambda name, **facts: event(spec.stage_paths, start, name, **facts),
    )
    StopRequest.sealed(stop, monitor.longest_save(spec))
    return stop


@pytest.mark.failure(29)
def test_a_start_saves_as_early_as_the_saves_of_earlier_starts_took(tmp_path: Path) -> None:
    spec = replace(spec_of(tmp_path), lead_seconds=0.001)
    prepare(spec)
    first, second = Start("100", 0, 0, "node1"), Start("100", 1, 0, "node2")
    stop = stop_of(spec, first)
    assert stop.lead == 0.001, "nothing has been measured: what the profile says"
    saves, took = Saves(spec.store_paths, spec.fingerprint, None, lambda name, **facts: None), []
    for step in (2, 4):
        began = time.monotonic()
        spec.store_paths.save(step).mkdir(parents=True)
        put(spec.store_paths.save(step) / "state", os.urandom(3_000_000))
        saves.seal(step)
        took.append(time.monotonic() - began)
        stop.saved(took[-1])
    assert stop.lead == pytest.approx(3 * max(took))
    later = stop_of(spec, second)
    assert later.lead == pytest.approx(3 * max(took), abs=0.002), "another start, on another node, knows it"
    write_deadline(spec.stage_paths.deadline("100", 1), time.time() + 1000)
    assert later.reason(time.time() + 1000 - later.lead - 1) is None
    assert "the allocation ends" in (later.reason(time.time() + 1000) or "")


@pytest.mark.failure(35)
def test_no_room_for_two_checkpoints_ends_the_job_before_its_work(tmp_path: Path) -> None:
    """The size is that of a save that was made; the free space is the file system's own."""
    spec = replace(spec_of(tmp_path), quota_bytes=1500)
    prepare(spec)
    spec.store_paths.save(2).mkdir(parents=True)
    put(spec.store_paths.save(2) / "state", bytes(1000))
    Saves(spec.store_paths, spec.fingerprint, None, lambda name, **facts: None).seal(2)
    assert steps.prologue(spec, Start("100", 0, 0, "node1")) is Entry.FAIL
    said = json.loads(spec.stage_paths.verdict("100", 0).read_text())
    assert (said["failure"], said["step"]) == ("storage_full", 2), "and the save that is there can be gone on from"
    assert "1 checkpoint(s) of" in said["evidence"]
    assert space.lack(replace(spec, quota_bytes=None)) is None


@pytest.mark.parametrize("seals", ["full", "light"])
def test_a_light_seal_is_asked_for_and_labelled(tmp_path: Path, seals: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(f"executor: slurm\nseals: {seals}\n")
    disk = tmp_path / "disk"
    spec = replace(spec_of(disk), seals=read_profile(path).profile.seals.value)
    disk.mkdir()
    prepare(spec)
    assert carry(spec, 0) == "done"
    sealed = seal.verify(spec.store_paths.output, spec.store_paths.seal)
    assert sealed.depth.value == seals
    notes = [line.get("note") for line in files.read_json_lines(spec.stage_paths.events) if line["event"] == "sealed"]
    assert notes == [seal.LIGHT_NOTE if seals == "light" else None]


def test_status_and_results_say_which_seals_are_light(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    run = made_runs.make(tmp_path / "ws", made_runs.stage("cpt"), made_runs.stage("sft", "cpt"))
    for name in ("cpt", "sft"):
        made_runs.sealed(run, name)
    store = made_runs.store_of(run, "cpt")
    seal.seal_directory(
        store.output,
        store.seal,
        depth=hashing.Depth.LIGHT,
        kind=seal.SealKind.CHECKPOINT,
        format="hf",
        fingerprint=run.plan().stage("cpt").fingerprint,
    )
    line = {"time": time.time() + 9, "event": "sealed", "note": seal.LIGHT_NOTE}
    files.append_json_line(run.paths.stage("cpt").events, line)
    first, second = look(run, run.plan(), Queue.of([])).stages
    assert (first.state, first.text) == (State.SEALED, f"sealed ({seal.LIGHT_NOTE})")
    assert second.text == "sealed"
    results.print_results(run, run.plan(), as_json=False)
    assert f"{seal.LIGHT_NOTE}: cpt\n" in capsys.readouterr().out


@pytest.mark.failure(33)
def test_the_lead_covers_what_sealing_an_output_of_this_size_takes(tmp_path: Path) -> None:
    """By the rate at which the inputs were read; half of an allocation stays for the work."""
    spec = replace(spec_of(tmp_path), lead_seconds=60.0)
    prepare(spec)
    start = Start("100", 0, 0, "node1")
    assert _seconds_to_seal(spec, None) == 0.0, "nothing has been read: nothing to go by"
    put_save = spec.store_paths.save(2)
    put_save.mkdir(parents=True)
    put(put_save / "state", bytes(4_000_000))
    Saves(spec.store_paths, spec.fingerprint, None, lambda name, **facts: None).seal(2)
    event(spec.stage_paths, start, "file_gate", role="data", bytes=1_000_000, seconds=50.0, seal="x")
    event(spec.stage_paths, start, "file_gate", role="checkpoint", bytes=1_000_000, seconds=150.0, seal="x")
    assert _seconds_to_seal(spec, None) == pytest.approx(400.0)
    stop = stop_of(spec, start)
    StopRequest.sealed(stop, _seconds_to_seal(spec, None))
    assert stop.lead == pytest.approx(1200.0)
    assert _seconds_to_seal(spec, time.time() + 1200.0) == pytest.approx(200.0, abs=1.0)
