"""Many processes on one virtual clock: one runs at a time, and a seed decides which, so that a failure can be replayed.

Each ``Actor`` is a thread that gives the baton away at its points (``World.point``, and wherever it sleeps). At a point it
may find out that it has been killed: ``Killed`` then unwinds it, as far as Python allows that is a SIGKILL.
"""

from __future__ import annotations

import heapq
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

SWITCH = 0.25
"""How often a point hands over to another process."""

EPOCH = 1_700_000_000.0


class Killed(BaseException):
    """SIGKILL."""


def taken() -> threading.Lock:
    """A lock that another thread releases: three times as fast as a semaphore, whose code is Python's."""
    found = threading.Lock()
    found.acquire()
    return found


class Actor:
    """A process. ``wake`` is the time until which it sleeps."""

    def __init__(self, world: World, name: str, host: str, work: Callable[[], Any]) -> None:
        self.world, self.name, self.host = world, name, host
        self.pid = world.next_pid()
        self.wake = world.now
        self.killed = False
        self.is_done = False
        self.signal = False
        self.error: BaseException | None = None
        self.on_end: Callable[[], None] = lambda: None
        self._work = work
        self.baton = taken()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.baton.acquire()
        try:
            if not self.killed:
                self._work()
        except Killed:
            pass
        except BaseException as error:
            self.error = error
        self.is_done = True
        self.world._ended(self)


class World:
    """The clock, the dice, and who runs."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._skews: dict[str, float] = {}
        self.dice = random.Random(seed)
        self.now = EPOCH
        self.actors: list[Actor] = []
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.current: Actor | None = None
        self._pids = 100
        self._main = taken()
        self._count = 0

    def skew(self, host: str) -> float:
        """Seconds by which the clock of a host is ahead."""
        if host not in self._skews:
            self._skews[host] = random.Random(f"{self.seed} {host}").choice((0.0, 0.0, 0.0, -600.0, 600.0))
        return self._skews[host]

    def next_pid(self) -> int:
        self._pids += 1
        return self._pids

    def spawn(self, name: str, host: str, work: Callable[[], Any]) -> Actor:
        """A new process; it runs when it is chosen."""
        actor = Actor(self, name, host, work)
        self.actors.append(actor)
        return actor

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Call ``action`` (which must not block) at that time."""
        self._count += 1
        heapq.heappush(self.timers, (self.now + seconds, self._count, action))

    def kill(self, actor: Actor) -> None:
        """It unwinds when it is chosen next, before it does anything else."""
        actor.killed = True
        actor.wake = self.now

    # Called by actors

    def point(self) -> None:
        """Time passes a little; perhaps somebody else runs; perhaps this process is dead."""
        actor = self.current
        if actor is None:
            return
        self.now += 0.001
        if actor.killed:
            raise Killed
        if self.dice.random() < SWITCH:
            self._switch(actor)

    def sleep(self, seconds: float) -> None:
        actor = self.current
        if actor is None:
            self.now += seconds
            return
        actor.wake = self.now + max(0.0, seconds)
        self._switch(actor)

    def wait_for(self, other: Actor, seconds: float) -> bool:
        """Sleep until another process has ended, at most so long; whether it has."""
        waiter = self.current
        assert waiter is not None
        before = other.on_end

        def wake() -> None:
            before()
            waiter.wake = min(waiter.wake, self.now)

        other.on_end = wake
        self.sleep(seconds)
        other.on_end = before
        return other.is_done

    def _switch(self, actor: Actor) -> None:
        if self._hand_over() is not actor:
            actor.baton.acquire()
        if actor.killed:
            raise Killed

    def _ended(self, actor: Actor) -> None:
        self.actors.remove(actor)
        self.current = None
        actor.on_end()
        self._hand_over()

    def _hand_over(self) -> Actor | None:
        """Give the baton to a process that can run, after moving the clock if none can; to ``run`` if there is none. Who
        runs next; the one that asks needs no baton."""
        before, self.current = self.current, None
        while True:
            if self.timers and self.timers[0][0] <= self.now:
                heapq.heappop(self.timers)[2]()
                continue
            ready = [actor for actor in self.actors if actor.wake <= self.now]
            if ready:
                chosen = ready[0] if len(ready) == 1 else self.dice.choice(ready)
                self.current = chosen
                if chosen is not before:
                    chosen.baton.release()
                return chosen
            times = [actor.wake for actor in self.actors] + [timer[0] for timer in self.timers[:1]]
            if not times:
                self._main.release()
                return None
            self.now = max(self.now, min(times))

    def run(self) -> None:
        """Let everything happen until nothing is left to happen."""
        self._hand_over()
        self._main.acquire()

    @contextmanager
    def clock(self) -> Iterator[None]:
        """``time`` is the virtual one; process and host are those of the actor that runs."""

        def now() -> float:
            return self.now

        def shown() -> float:
            """By the clock of the host, which may differ from the others' by ten minutes."""
            return self.now + (self.skew(self.current.host) if self.current else 0.0)

        def nanoseconds() -> int:
            return int(self.now * 1e9)

        def host() -> str:
            return self.current.host if self.current else "login1"

        def pid() -> int:
            return self.current.pid if self.current else 1

        with (
            mock.patch("time.time", shown),
            mock.patch("time.monotonic", now),
            mock.patch("time.monotonic_ns", nanoseconds),
            mock.patch("time.sleep", self.sleep),
            mock.patch("socket.gethostname", host),
            mock.patch("os.getpid", pid),
            mock.patch("os.fsync", int),  # a mock that counts its calls costs more than all the rest here
        ):
            yield
