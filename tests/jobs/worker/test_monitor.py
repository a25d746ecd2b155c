"""How long the monitor waits for a step before it takes the work to hang."""

from __future__ import annotations

import pytest

from jobs.core.progress import Report
from jobs.worker.monitor import START_SECONDS, Patience


@pytest.mark.failure(43)
def test_patience_follows_the_steps_and_the_saves() -> None:
    patience = Patience(None, save_seconds=100.0, began=0.0)
    assert patience.seconds == START_SECONDS
    for step in range(1, 6):
        patience.see(Report(60.0 * step, step, 10, "", {}))
    assert patience.seconds == 20 * 60 + 100, "twenty steps of a minute, and a save"
    patience.see(Report(60.0 * 5 + 1000, 6, 10, "", {}))
    assert patience.seconds == 3000 + 100, "a step that took long may do so again"
    slow_start = Patience(None, save_seconds=0.0, began=0.0)
    slow_start.see(Report(3600.0, 1, 99, "", {}))
    assert slow_start.seconds == 3 * 3600, "the next step may take as long, for all that is known"
    for step in range(2, 8):
        slow_start.see(Report(3600.0 + step, step, 99, "", {}))
    assert slow_start.seconds == 600, (
        "steps of a second: an hour to load the model does not make a hang three hours long"
    )
    told = Patience(5.0, save_seconds=0.0, began=0.0)
    told.see(Report(30.0, 1, 10, "", {}))
    assert told.seconds == 90, "slower than stall_after is not a hang"
