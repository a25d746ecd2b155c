"""Periodic saves inside a stage: each is sealed, and only a sealed one is resumed from."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from jobs.core import files, seal, shares
from jobs.core.claim import Claim
from jobs.core.hashing import Depth, FileDigest
from jobs.core.paths import StorePaths
from jobs.core.patience import Patience, passes
from jobs.core.shares import Node
from jobs.core.validation import Losses
from jobs.training.own_saves import VALIDATIONS, OwnSaves


class GivenUp(RuntimeError):
    """The work ended while a save was being sealed."""


def stay(steps: Iterable[int], every: int | None) -> list[int]:
    """Those of sealed saves that stay whatever comes: of steps that are multiples of ``keep_every``."""
    return [] if every is None else [step for step in steps if step % every == 0]


class Saves:
    """The saves of one store entry, as seen by one start of a job (``held`` is its claim) on one of its nodes."""

    def __init__(
        self,
        store: StorePaths,
        fingerprint: str,
        held: Claim | None,
        event: Callable[..., None],
        depth: Depth = Depth.FULL,
        node: Node | None = None,
        keep_every: int | None = None,
    ) -> None:
        self._store = store
        self._fingerprint = fingerprint
        self._event = event
        self._depth = depth
        self._node = node or Node()
        self._own = OwnSaves(store, fingerprint, held, depth, self._node.collects, self._go_on)
        self._keep_every = keep_every
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._given_up = False
        self._read: int | None = None
        self._sealed: list[int] = []
        self.validations: dict[int, float] = {}
        """Step -> loss of the validations so far; each save holds those of its time."""

    @property
    def directory(self) -> Path:
        """Where the trainer writes ``checkpoint-N``: of this start alone, until the save is sealed."""
        return self._own.directory

    @property
    def _desk(self) -> Path:
        return self.directory / "answers"

    def newest_valid(self) -> tuple[int, Path] | None:
        """Step and directory of the newest save that verifies; says which newer ones it passed over and why.

        No trainer chooses for itself: the newest directory may be half written. One that cannot be read is looked at
        again for a while, and then the one before it is taken.
        """
        found = self._newest_valid(Patience())
        return None if found is None else (found, self._store.save(found))

    def _newest_valid(self, waits: Patience, remove: bool = False) -> int | None:
        for step in waits.call(self._steps):
            directory, path = self._store.save(step), self._store.save_seal(step)
            look = seal.check_sizes if step == self._read else seal.verify
            try:
                found = waits.call(functools.partial(look, directory, path))
            except seal.SealBroken as error:
                self._event("save_skipped", step=step, path=seal.shown(error.path), reason=error.reason)
                if remove and not passes(error):
                    self._own.remove(step)
                continue
            if found.fingerprint == self._fingerprint and found.step == step:
                return step
            self._event("save_skipped", step=step, path=str(directory), reason="belongs to another configuration")
            if remove:
                self._own.remove(step)
        return None

    def _steps(self) -> list[int]:
        """Steps of saves, newest first, also of those that another node has made a moment ago."""
        files.ask_again(self._store.saves)
        return self._store.save_steps()

    def resume(self) -> tuple[int, Path] | None:
        """Step and directory of the save to go on from; called on rank 0. Newer ones that are broken are removed; one
        that could not be read now stays: it may be whole."""
        found = self._newest_valid(Patience(), remove=True)
        if found is None:
            return None
        directory = self._store.save(found)
        self._event("resumed", step=found, path=str(directory))
        self.validations = dict(files.read_json_or_none(directory / VALIDATIONS) or ())
        return found, directory

    def read_newest(self) -> None:
        """Have the nodes read the newest save together, where one would take long; called on every rank, before
        ``resume``, which reads by itself what they could not."""
        step = self._newest_sealed()
        if step is None or self._node.count == 1 or not self._node.leads:
            return
        with contextlib.suppress(seal.SealBroken, OSError):
            if seal.load(self._store.save_seal(step)).bytes >= shares.LARGE and self._read_together(step, "newest"):
                self._read = step

    def seal(self, step: int, known: dict[str, FileDigest] | None = None) -> None:
        """Seal ``checkpoint-<step>`` here and now; called by one process after all have written. ``known``: digests
        that others have made.

        Digested in the directory of this start, with the seal inside; then one rename makes it a save of the entry.

        Raises:
            ClaimLost: a later start holds the store entry.
        """
        self._publish(step, self.validations, known or {}, None)

    def seal_beside(
        self,
        step: int,
        keep: int,
        sealed: Callable[[float], None],
        goes_on: bool = True,
        best: int | None = None,
        write: Callable[[], None] | None = None,
    ) -> None:
        """Seal ``checkpoint-<step>`` while the training goes on, and keep ``keep`` saves and that of step ``best``;
        called on every rank after all have written, or with ``write``, which writes beside the training, too, and
        returns when all have written. It counts, and ``sealed`` gets the seconds that it took, once the seal is there.

        One save at a time: the one before is waited for; and this one where the training does not go on.

        Raises:
            Exception: what went wrong with the one before, or this one if it is waited for.
        """
        self.wait()
        if self._node.leads or write is not None:
            threads = max(1, len(os.sched_getaffinity(0)) // 2) if goes_on else None
            losses = {at: loss for at, loss in self.validations.items() if at <= step}  # the training adds to them
            given = (step, losses, sealed, threads, keep, best, write)
            self._thread = threading.Thread(target=self._beside, args=given, daemon=True)
            self._thread.start()
        if not goes_on:
            self.wait()

    def wait(self) -> None:
        """Wait for the save that is being sealed.

        Raises:
            Exception: what went wrong with it.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def give_up(self) -> None:
        """End the sealing of a save: the work has failed, and the save may never become whole."""
        self._given_up = True
        with contextlib.suppress(Exception):
            self.wait()

    @property
    def depth(self) -> Depth:
        """Of its seals."""
        return self._depth

    def _go_on(self, done: int = 0) -> None:
        if self._given_up:
            raise GivenUp("the work has ended")

    def _beside(
        self,
        step: int,
        losses: Losses,
        sealed: Callable[[float], None],
        threads: int | None,
        keep: int,
        best: int | None,
        write: Callable[[], None] | None,
    ) -> None:
        began = time.monotonic()
        try:
            if write is not None:
                write()
            if not self._node.leads:
                return
            parts = self._for_all(f"part-{step}", lambda: self._digest_written(step, threads))
            if parts is not None:
                self._publish(step, losses, shares.digests_of(parts), threads)
                sealed(time.monotonic() - began)
            self._sealed.append(step)
            if self._node.count == 1:
                self.keep_last(keep, best)
            else:
                self._keep_together(keep, best)
        except BaseException as error:
            self._error = error

    def _digest_written(self, step: int, threads: int | None) -> list[dict[str, Any]]:
        made = self.directory / f"checkpoint-{step}"
        return shares.as_answer(shares.digest_written(made, self._node, self._depth, threads, self._go_on))

    def _for_all(self, topic: str, make: Callable[[], Any]) -> list[Any] | None:
        """What ``make`` returns on all nodes, for the process that collects; None for the others."""
        began = time.monotonic()
        try:
            value = Patience().call(make)
        except Exception as error:
            self._own.check_held()  # who was replaced finds its directory gone
            if not self._node.collects:
                shares.answer(self._desk, topic, self._node, error)
            raise
        if self._node.count == 1:
            return [value]
        shares.answer(self._desk, topic, self._node, value)
        if not self._node.collects:
            return None
        seconds = shares.LEAST_SECONDS + shares.SLOWER * (time.monotonic() - began)
        found = shares.answers(self._desk, topic, self._node.count, seconds, self._go_on)
        for path in self._desk.glob(f"{topic}-*.json"):
            path.unlink()
        return found

    def _publish(self, step: int, losses: Losses, known: dict[str, FileDigest], threads: int | None) -> None:
        def put() -> None:
            self._own.put(step, losses, known, threads)
            self._event("saved", step=step, path=str(self._store.save(step)))

        Patience().call(put)

    def discard_newer_than(self, step: int) -> None:
        """Remove saves after ``step``: the trainer must not meet them again."""
        for other in self._store.save_steps():
            if other > step:
                self._own.remove(other)

    def discard_unsealed(self) -> None:
        """Remove what this start was writing, and saves without a seal. Sealed ones are not touched."""
        unsealed = set(self._store.save_steps()) - set(self._store.sealed_steps())
        for path in [*self.directory.glob("checkpoint-*"), *map(self._store.save, sorted(unsealed))]:
            step = path.name.rpartition("-")[2]
            if step.isdigit():
                self._event("save_discarded", step=int(step), newest_sealed=self._newest_sealed() or 0)
            shutil.rmtree(path, ignore_errors=True)

    def _newest_sealed(self) -> int | None:
        return next(iter(self._store.sealed_steps()), None)

    def verified(self, step: int) -> Path | None:
        """Directory of the save of ``step``; None where there is none or, with an event, it does not match its seal."""
        directory = self._store.save(step)
        if not directory.exists():
            return None
        try:
            Patience().call(lambda: seal.verify(directory, self._store.save_seal(step)))
        except seal.SealBroken as error:
            self._event("save_skipped", step=step, path=seal.shown(error.path), reason=error.reason)
            return None
        return directory

    def keep_last(self, count: int, best: int | None = None) -> None:
        """Remove all but the newest ``count`` sealed saves, and that of step ``best``. Unsealed ones older than the
        newest sealed go, too.

        Nothing is removed before one of those that stay has been read again in full: the newest seal may be of a save
        that the file system has damaged since, and the one before it would be the only good one.
        """
        Patience().call(lambda: self._keep_last(count, best))

    def _keep_last(self, count: int, best: int | None) -> None:
        doomed = self._doomed(count, best)
        if doomed and any(self._is_sound(step) for step in self._store.sealed_steps()[:count]):
            self._remove_all(doomed)

    def _doomed(self, count: int, best: int | None) -> list[int]:
        sealed = self._store.sealed_steps()
        kept = {*sealed[:count], best, *stay(sealed, self._keep_every)}
        return [step for step in self._store.save_steps() if sealed and step not in kept and step < sealed[0]]

    def _remove_all(self, steps: list[int]) -> None:
        for step in steps:
            self._own.remove(step)

    def _keep_together(self, count: int, best: int | None) -> None:
        """``keep_last`` on several nodes, each of which reads a share; what they read is what they have sealed, so that
        they need not agree on a listing. Of two saves that stay the older one is read."""
        if len(self._sealed) <= count:
            return
        is_sound = self._read_together(self._sealed[-min(count, 2)], "again")
        if is_sound:
            Patience().call(lambda: self._remove_all(self._doomed(count, best)))

    def _read_together(self, step: int, topic: str) -> bool:
        """Whether the nodes find a save sound, for the one that collects; False for the others."""
        path = self._store.save_seal(step)
        files.wait_for(path, shares.LEAST_SECONDS, interval=5.0)

        def read() -> int:
            found = seal.load(path)
            for entry in self._node.share(found.files):
                files.drop_cache(self._store.save(step) / entry.path)
            shares.check_share(self._store.save(step), found, self._node)
            return found.bytes

        try:
            return self._for_all(f"{topic}-{step}", read) is not None
        except (seal.SealBroken, OSError) as error:
            self._unsound(step, error)
            return False

    def _is_sound(self, step: int) -> bool:
        directory = self._store.save(step)
        try:
            for entry in seal.load(self._store.save_seal(step)).files:
                files.drop_cache(directory / entry.path)  # what the disk has, not what this node remembers
            seal.verify(directory, self._store.save_seal(step), on_bytes=self._go_on)
        except (seal.SealBroken, OSError) as error:
            self._unsound(step, error)
            return False
        return True

    def _unsound(self, step: int, error: Exception) -> None:
        reason = error.reason if isinstance(error, seal.SealBroken) else str(error)
        self._event("save_unsound", step=step, path=str(getattr(error, "path", self._store.save(step))), reason=reason)
