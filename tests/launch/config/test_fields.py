"""Names of jobs at sites that want a prefix or refuse long ones: each comes only once, and its stage is found again."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from launch.base.errors import InputError
from launch.config.fields import JobName
from launch.config.profile_file import read_profile

STAGES = ("cpt", "cpt-2", "instructions-of-many-words", "instructions-of-more-words", "dpo")


@pytest.mark.parametrize("prefix", ["on", "lab_7", "a-b.c"])
@pytest.mark.parametrize("more", [None, 0, 1, 4, 9, 200])
def test_a_name_comes_once_is_short_enough_and_is_found_again(prefix: str, more: int | None) -> None:
    links = 12
    least = JobName(prefix=prefix).shortest(links)
    naming = JobName(prefix=prefix, longest=None if more is None else least + more)
    jobs = list(itertools.product(("abcde", "zzzz9"), STAGES, range(links)))
    names = {}
    for number, (run, stage, link) in enumerate(jobs):
        token = f"{number // links:06d}"
        name = naming.of(run, stage, token, link)
        assert name.startswith(f"{prefix}-")
        assert naming.longest is None or len(name) <= naming.longest, name
        found = naming.stage_of(name, run, STAGES)
        assert found is not None
        assert found == stage or naming.of(run, found, token, link) == name, "only where both are cut to the same"
        assert naming.stage_of(name, "other", STAGES) is None
        names[name] = (run, stage, link)
    assert len(names) == len(jobs)
    if more in (None, 200):
        assert all(naming.stage_of(name, run, STAGES) == stage for name, (run, stage, _) in names.items())


def test_jobs_without_a_token_are_told_apart_where_their_stages_are_cut() -> None:
    """Probes and arrays, whose runs have names of six characters."""
    naming = JobName(longest=15)
    names = [naming.of(run, stage, "array", 0) for run in ("abcdef", "abcdeg") for stage in ("read-0", "read-1000")]
    assert len({*names}) == 4
    assert {len(name) for name in names} == {15}


def test_what_cannot_be_unique_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    for text, least in (("job_name: {longest: 14}", 15), ("continuation: chain\njob_name: {longest: 16}", 17)):
        path.write_text(f"executor: slurm\n{text}\n")
        with pytest.raises(InputError, match=f"job_name.longest: .* write {least} or more") as caught:
            read_profile(path)
        assert f"{path}:{text.count(chr(10)) + 2}:" in str(caught.value)
    path.write_text("executor: slurm\njob_name: {prefix: 'a b'}\n")
    with pytest.raises(InputError, match=r"lab.yaml:2.*letters, digits"):
        read_profile(path)
