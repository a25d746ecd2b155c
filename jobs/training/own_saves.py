"""The directory of one start: what it writes there becomes saves of the store entry, and what it removes goes by it.

A later start takes the directory away before it works, so a start that is only taken for dead can neither add a save
to the entry nor remove one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from jobs.core import claim, files, seal
from jobs.core.claim import Claim
from jobs.core.hashing import Depth, FileDigest
from jobs.core.paths import StorePaths
from jobs.core.validation import Losses

VALIDATIONS = "validations.json"
"""In a save: step and loss of each validation until then."""


class OwnSaves:
    """The directory of the start whose claim is ``held``; ``makes``: this process makes it."""

    def __init__(
        self,
        store: StorePaths,
        fingerprint: str,
        held: Claim | None,
        depth: Depth,
        makes: bool,
        go_on: Callable[[int], None],
    ) -> None:
        self._store = store
        self._fingerprint = fingerprint
        self._held = held
        self._depth = depth
        self._makes = makes
        self._go_on = go_on

    @property
    def directory(self) -> Path:
        """Where the trainer writes ``checkpoint-N``."""
        held = self._held
        own = self._store.own_saves(held.attempt, *held.order) if held else self._store.own_saves("none", 0, 0)
        if self._makes:  # the prologue has made it
            own.mkdir(parents=True, exist_ok=True)
        return own

    def check_held(self) -> None:
        """Raises ClaimLost: a later start holds the store entry."""
        if self._held is not None:
            claim.check_held(self._store, self._held)

    def put(self, step: int, losses: Losses, known: Mapping[str, FileDigest], threads: int | None) -> None:
        """Seal what was written for ``step`` and make it a save of the entry, by one rename.

        Raises:
            ClaimLost: a later start holds the store entry.
            SealBroken: there is nothing to seal.
        """
        target = self._store.save(step)
        made = self.directory / target.name  # before the check: what a later start has taken away is not made again
        self.check_held()
        if not made.exists() and self._is_put(step):
            return  # it was put there before an error that passed
        if not made.exists() and target.exists() and not self._store.save_seal(step).exists():
            os.rename(target, made)  # written in place, as a back end of the version before does
        if losses:
            files.write_json(made / VALIDATIONS, sorted(losses.items()))
        try:
            self._seal(step, made, known, threads)
        except (seal.SealBroken, OSError):
            self.check_held()  # who was replaced finds its directory gone
            raise
        files.make_directory(self._store.saves)
        self.check_held()
        claim.put(made, target, made.parent)

    def _is_put(self, step: int) -> bool:
        """Whether the save of ``step`` in the entry is one of this start."""
        with contextlib.suppress(seal.SealBroken):
            found = seal.load(self._store.save_seal(step))
            return self._held is not None and (found.job, found.restart) == (self._held.job, self._held.restart)
        return False

    def _seal(self, step: int, made: Path, known: Mapping[str, FileDigest], threads: int | None) -> None:
        seal.seal_directory(
            made,
            made / "seal.json",
            known=known,
            threads=threads,
            on_bytes=self._go_on,
            kind=seal.SealKind.SAVE,
            format="trainer",
            fingerprint=self._fingerprint,
            step=step,
            depth=self._depth,
            job=self._held.job if self._held else "",
            restart=self._held.restart if self._held else 0,
        )

    def remove(self, step: int) -> None:
        """Remove a save of the entry: where the directory was taken away, nothing is removed.

        Raises:
            ClaimLost: it was.
        """
        aside = self.directory / f"removed-{step}-{time.monotonic_ns()}"
        self.check_held()
        claim.move(self._store.save(step), aside)
        shutil.rmtree(aside, ignore_errors=True)
