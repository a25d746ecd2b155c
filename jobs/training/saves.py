"""Periodic saves inside a stage: each is sealed, and only a sealed one is resumed from."""

from __future__ import annotations

import functools
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from jobs.core import claim, files, seal
from jobs.core.claim import Claim
from jobs.core.paths import StorePaths
from jobs.core.patience import Patience, passes

VALIDATIONS = "validations.json"
"""In a save: step and loss of each validation until then."""


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
        self.validations: dict[int, float] = {}
        """Step -> loss of the validations so far; each save holds those of its time."""

    @property
    def directory(self) -> Path:
        """Where the trainer writes ``checkpoint-N``: of this start alone, until the save is sealed."""
        held = self._held
        own = self._store.own_saves(held.attempt, *held.order) if held else self._store.own_saves("none", 0, 0)
        own.mkdir(parents=True, exist_ok=True)
        return own

    def newest_valid(self) -> tuple[int, Path] | None:
        """Step and directory of the newest save that verifies; says which newer ones it passed over and why.

        No trainer chooses for itself: the newest directory may be half written. One that cannot be read is looked at
        again for a while, and then the one before it is taken.
        """
        found = self._newest_valid(Patience())
        return None if found is None else (found, self._store.save(found))

    def _newest_valid(self, waits: Patience, remove: bool = False) -> int | None:
        for step in self._store.save_steps():
            directory, path = self._store.save(step), self._store.save_seal(step)
            try:
                found = waits.call(functools.partial(seal.verify, directory, path))
            except seal.SealBroken as error:
                self._event("save_skipped", step=step, path=seal.shown(error.path), reason=error.reason)
                if remove and not passes(error):
                    self._remove(step)
                continue
            if found.fingerprint == self._fingerprint and found.step == step:
                return step
            self._event("save_skipped", step=step, path=str(directory), reason="belongs to another configuration")
            if remove:
                self._remove(step)
        return None

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

    def seal(self, step: int) -> None:
        """Seal ``checkpoint-<step>``; called on rank 0 after all ranks have written (barrier before).

        Digested in the directory of this start, with the seal inside; then one rename makes it a save of the entry.

        Raises:
            ClaimLost: a later start holds the store entry.
        """
        self._check_held()
        own, target = self.directory, self._store.save(step)
        made = own / target.name
        if not made.exists() and target.exists() and not self._store.save_seal(step).exists():
            os.rename(target, made)  # written in place, as a back end of the version before does
        if self.validations:
            files.write_json(made / VALIDATIONS, sorted(self.validations.items()))
        try:
            self._digest(step, made)
        except (seal.SealBroken, OSError):
            self._check_held()  # who was replaced finds its directory gone
            raise
        files.make_directory(self._store.saves)
        self._check_held()
        claim.put(made, target, own)
        self._event("saved", step=step, path=str(target))

    def _digest(self, step: int, made: Path) -> None:
        seal.seal_directory(
            made,
            made / "seal.json",
            kind=seal.SealKind.SAVE,
            format="trainer",
            fingerprint=self._fingerprint,
            step=step,
            depth=self._depth,
            job=self._held.job if self._held else "",
            restart=self._held.restart if self._held else 0,
        )

    def _check_held(self) -> None:
        if self._held is not None:
            claim.check_held(self._store, self._held)

    def _remove(self, step: int) -> None:
        """Remove a save of the entry, by way of this start's directory: where that was taken away, nothing is removed.

        Raises:
            ClaimLost: it was.
        """
        aside = self.directory / f"removed-{step}-{time.monotonic_ns()}"
        self._check_held()
        claim.move(self._store.save(step), aside)
        shutil.rmtree(aside, ignore_errors=True)

    def discard_newer_than(self, step: int) -> None:
        """Remove saves after ``step``: the trainer must not meet them again."""
        for other in self._store.save_steps():
            if other > step:
                self._remove(other)

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
        steps = self._store.save_steps()
        sealed = self._store.sealed_steps()
        kept = {*sealed[:count], best}
        doomed = [step for step in steps if sealed and step not in kept and step < sealed[0]]
        if not doomed or not any(self._is_sound(step) for step in sealed[:count]):
            return
        for step in doomed:
            self._remove(step)

    def _is_sound(self, step: int) -> bool:
        directory = self._store.save(step)
        try:
            for entry in seal.load(self._store.save_seal(step)).files:
                files.drop_cache(directory / entry.path)  # what the disk has, not what this node remembers
            seal.verify(directory, self._store.save_seal(step))
        except (seal.SealBroken, OSError) as error:
            reason = error.reason if isinstance(error, seal.SealBroken) else str(error)
            self._event("save_unsound", step=step, path=str(getattr(error, "path", directory)), reason=reason)
            return False
        return True
