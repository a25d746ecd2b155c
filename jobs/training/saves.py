"""Periodic saves inside a stage: each is sealed, and only a sealed one is resumed from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from jobs.core import claim, files, seal
from jobs.core.claim import Claim
from jobs.core.paths import StorePaths


class Saves:
    """The saves of one store entry, as seen by one start of a job (``held`` is its claim)."""

    def __init__(
        self,
        store: StorePaths,
        fingerprint: str,
        held: Claim | None,
        event: Callable[..., None],
        depth: seal.Depth = seal.Depth.FULL,
    ) -> None:
        self._store = store
        self._fingerprint = fingerprint
        self._held = held
        self._event = event
        self._depth = depth

    @property
    def directory(self) -> Path:
        """Where the trainer writes ``checkpoint-N``."""
        return self._store.saves

    def newest_valid(self) -> tuple[int, Path] | None:
        """Step and directory of the newest save that verifies; says which newer ones it passed over and why.

        No trainer chooses for itself: the newest directory may be half written.
        """
        for step in self._store.save_steps():
            directory = self._store.save(step)
            try:
                found = seal.verify(directory, self._store.save_seal(step))
            except seal.SealBroken as error:
                self._event("save_skipped", step=step, path=str(error.path), reason=error.reason)
                continue
            if found.fingerprint != self._fingerprint or found.step != step:
                self._event("save_skipped", step=step, path=str(directory), reason="belongs to another configuration")
                continue
            return step, directory
        return None

    def resume(self) -> tuple[int, Path] | None:
        """Step and directory of the save to go on from, after removing newer ones; called on rank 0."""
        found = self.newest_valid()
        self.discard_newer_than(found[0] if found else 0)
        if found is not None:
            self._event("resumed", step=found[0], path=str(found[1]))
        return found

    def seal(self, step: int) -> None:
        """Seal ``checkpoint-<step>``; called on rank 0 after all ranks have written (barrier before).

        Raises:
            ClaimLost: a later start holds the store entry.
        """
        if self._held is not None:
            claim.check_held(self._store, self._held)
        directory = self._store.save(step)
        # Of the save the sealing sees to; the way to it has to be on disk before an older save may go.
        files.fsync_directory(self._store.root)
        seal.seal_directory(
            directory,
            self._store.save_seal(step),
            kind=seal.SealKind.SAVE,
            format="trainer",
            fingerprint=self._fingerprint,
            step=step,
            depth=self._depth,
            job=self._held.job if self._held else "",
            restart=self._held.restart if self._held else 0,
        )
        self._event("saved", step=step, path=str(directory))

    def discard_newer_than(self, step: int) -> None:
        """Remove saves after ``step``: they did not verify, and the trainer must not meet them again."""
        for other in self._store.save_steps():
            if other > step:
                shutil.rmtree(self._store.save(other), ignore_errors=True)

    def discard_unsealed(self) -> None:
        """Remove saves without a seal: cut off while they were written. Sealed ones are not touched."""
        for step in self._store.save_steps():
            if not self._store.save_seal(step).exists():
                self._event("save_discarded", step=step, newest_sealed=self._newest_sealed() or 0)
                shutil.rmtree(self._store.save(step), ignore_errors=True)

    def _newest_sealed(self) -> int | None:
        return next(iter(self._store.sealed_steps()), None)

    def keep_last(self, count: int) -> None:
        """Remove all but the newest ``count`` sealed saves. Unsealed ones older than the newest sealed go, too.

        Nothing is removed before one of those that stay has been read again in full: the newest seal may be of a save
        that the file system has damaged since, and the one before it would be the only good one.
        """
        steps = self._store.save_steps()
        sealed = self._store.sealed_steps()
        kept = set(sealed[:count])
        doomed = [step for step in steps if sealed and step not in kept and step < sealed[0]]
        if not doomed or not any(self._is_sound(step) for step in sealed[:count]):
            return
        for step in doomed:
            shutil.rmtree(self._store.save(step), ignore_errors=True)

    def _is_sound(self, step: int) -> bool:
        directory = self._store.save(step)
        try:
            seal.verify(directory, self._store.save_seal(step))
        except seal.SealBroken as error:
            self._event("save_unsound", step=step, path=str(error.path), reason=error.reason)
            return False
        return True
