"""What a job asks of the shared file system grows with the job, and not faster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import load


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[int, load.Counts]:
    return {size: load.count(load.Job(tmp_path_factory.mktemp(f"of{size}"), size)) for size in (4, 8, 16)}


@pytest.mark.failure(35, 43)
def test_the_load_of_a_job_is_a_straight_line_of_its_nodes(counted: dict[int, load.Counts]) -> None:
    found = load.lines((4, counted[4]), (8, counted[8]))
    assert load.off(found, 16, counted[16]) == []
    of = {key: load.at(line, 1000) for key, line in found.items()}
    assert ("each step", "other", "stat") not in of, "no rank but the first looks at the file system at a step"
    assert of["each step", "first", "stat"] == 2
    assert of["a hang", "first", "open"] < 50, "no node reads the files of the others"
    files = load.PROCESSES * 1000 + load.ALWAYS
    save = [key for key in found if key[0].startswith("a save")]
    assert sum(of[key] for key in save if key[2] == "bytes") == 2 * files * load.Job.size, "written once, read once"
    assert sum(of[key] for key in save if key[2] in load.KINDS) < 15 * files


def test_what_grows_faster_is_found(counted: dict[int, load.Counts]) -> None:
    """The other way round: with every node looking at every file these lines do not hold."""
    worse = {}
    for size, one in counted.items():
        worse[size] = load.Counts(Path("/"))
        worse[size].found = one.found.copy()
        worse[size].found["gate: content of the input", "other", "stat"] += (size - 1) * load.PROCESSES * size
    found = load.lines((4, worse[4]), (8, worse[8]))
    assert load.off(found, 16, worse[16]) != []
