"""What the cluster of a run says when it is asked: one squeue now, and a sacct for what that does not tell."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from launch.base.errors import InputError, OvernightError
from launch.config.profile import Profile
from launch.runs.attempt_state import QueueView
from launch.runs.client import gateway
from launch.slurm.client import Gateway
from launch.slurm.queue import AccountRow, QueueRow

Sacct = Callable[[float], list[AccountRow] | None]
"""Asks for the jobs that have ended since a time; None: there is no accounting, or it does not respond."""


def no_accounting(since: float) -> list[AccountRow] | None:
    """None, of any time."""
    return None


@dataclass(frozen=True)
class Queue:
    """What squeue answered, and when it was asked; or why it did not answer. Asked *before* files are read, so that a
    job which ends meanwhile is seen by its seal and not taken for lost."""

    view: QueueView
    asked_at: float
    unreachable: str = ""

    @classmethod
    def ask(cls, gateway: Gateway | None) -> Queue:
        """One squeue; none for a run without Slurm."""
        now = time.time()
        if gateway is None:
            return cls(QueueView(()), now)
        try:
            return cls(QueueView(gateway.squeue()), now)
        except OvernightError as error:
            return cls.silent(error)

    @classmethod
    def of(cls, rows: Iterable[QueueRow]) -> Queue:
        """An answer that is here already."""
        return cls(QueueView(rows), time.time())

    @classmethod
    def silent(cls, error: OvernightError) -> Queue:
        """Squeue did not respond."""
        return cls(QueueView(()), time.time(), str(error))


def ask(profile: Profile) -> tuple[Queue, Sacct]:
    """What squeue of the profile's cluster answers, and how to ask for more."""
    if profile.executor == "local":
        return Queue.ask(None), no_accounting
    try:
        client = gateway(profile)
    except InputError as error:  # the throw-away cluster is down
        return Queue.silent(error), no_accounting
    return Queue.ask(client), client.sacct
