"""What ``sbatch --test-only`` says, for people."""

from __future__ import annotations

from launch.base.text import clock
from launch.site.test_only import readable


def test_a_time_is_of_the_users_clock() -> None:
    said = "Job 9 to start at 1795897038 using 2 processors on nodes node1 in partition batch"
    assert readable(said) == said.replace("1795897038", clock(1795897038))
    other = "Job 9 to start at 2026-11-30T02:00:00 using 2 processors"
    assert readable(other) == other
