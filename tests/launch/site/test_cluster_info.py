"""What is read from a site's answers, and what is recorded as unknown."""

from __future__ import annotations

import pytest

from launch.site import choose, cluster_info
from launch.slurm import ask
from launch.slurm.client import Gateway
from tests.support.site_answers import site


@pytest.mark.parametrize(
    ("gres", "found"),
    [
        ("gpu:h100:8(S:0-1)", (8, "h100")),
        ("gpu:4", (4, None)),
        ("gpu", (1, None)),
        ("gpu:a100:2(S:0,3),nvme:1600,gpu:a100:2", (4, "a100")),
        ("gpu:nvidia_h100_80gb_hbm3:4", (4, "nvidia_h100_80gb_hbm3")),
        ("(null)", (0, None)),
        ("gpumem:80", (0, None)),
        ("craynetwork:4", (0, None)),
    ],
)
def test_gpus_of_a_node(gres: str, found: tuple[int, str | None]) -> None:
    assert cluster_info.gpus_of(gres) == found


def test_what_does_not_answer_is_given_up_and_said() -> None:
    response = ask.ask(Gateway(), ["sleep", "600"], seconds=0.2)
    assert (response.text, response.problem) == (None, "sleep did not answer")
    assert ask.ask(Gateway(), ["no-such-command-here"]).problem == "there is no no-such-command-here on this machine"
    assert ask.ask(Gateway(), ["bash", "-c", "echo banner; echo no luck >&2; exit 3"]).problem == "no luck"
    found = site(partitions=None)
    assert found.unknown == {"partitions": "did not answer", "modules": "did not answer"}
    assert choose.choose(found, ()).partition is None
