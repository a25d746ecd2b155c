"""The file gate: no work begins on an input that does not match its seal."""

from __future__ import annotations

import functools
import time

from jobs.core import patience, seal, shares
from jobs.core.patience import Patience
from jobs.core.spec import Input, StageSpec
from jobs.lifecycle.start import Start, event, notes

WAIT_SECONDS = 60.0
"""How long a parent's seal may stay invisible (NFS caches a directory for up to 60 s, acdirmax)."""


def check(spec: StageSpec, start: Start) -> None:
    """Verify every input against its seal, each once per job. Of one that is large only the sizes where the
    nodes read it together, before their work.

    Raises:
        SealBroken: with the file at fault.
    """
    passed = {note.get("role") for note in notes(spec, start, "file_gate") if note.get("seal")}
    waits = Patience(WAIT_SECONDS)
    for role, parent in spec.inputs.items():
        if role in passed:
            continue
        began = time.monotonic()
        patience.check_mounted(parent.paths.root.parent)
        found = waits.call(functools.partial(input_seal, parent), lambda error: isinstance(error, seal.SealBroken))
        if start.spread and len(start.nodes) > 1 and found.bytes >= shares.LARGE:
            seal.check_sizes(parent.output, parent.paths.seal, waits)
            event(spec.stage_paths, start, "gate_by_nodes", role=role, bytes=found.bytes, nodes=len(start.nodes))
            continue
        seal.verify(parent.output, parent.paths.seal, patience=waits)
        seconds = round(time.monotonic() - began, 3)
        event(
            spec.stage_paths,
            start,
            "file_gate",
            role=role,
            parent=parent.stage,
            bytes=found.bytes,
            seconds=seconds,
            seal=seal.digest_of(parent.paths.seal),
        )


def input_seal(parent: Input) -> seal.Seal:
    """The seal of an input.

    Raises:
        SealBroken: there is none, or it is not the one that the stage was planned on.
    """
    found = seal.load(parent.paths.seal)
    if found.fingerprint != parent.fingerprint:
        raise seal.SealBroken(
            parent.paths.seal,
            f"is the seal of {found.fingerprint[:16]}, this stage was planned on {parent.fingerprint[:16]}",
        )
    return found
