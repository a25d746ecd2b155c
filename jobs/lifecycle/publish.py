"""From what one start has written to the sealed output of the entry: one conditional step under the claim.

A start writes in directories of its own: the output in one, the seal of it in another. Both get to their places by a
rename and a link from there. A later start takes the directories of earlier ones away before it works, so of a start
that is only taken for dead the rename or the link fails, whenever it comes: there is no moment between check and act.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.core import attempts, claim, files, hashing, progress, seal, shares, validation
from jobs.core.claim import Claim, ClaimLost
from jobs.core.paths import StorePaths
from jobs.core.patience import passes
from jobs.core.spec import StageSpec
from jobs.lifecycle.start import Start, claim_of, event, notes, output_of

SEAL = "seal.json"
"""In a start's directory of saves: what becomes the seal of the entry."""

FLUSHED = "flushed"
"""In a start's directory of saves: its output was on disk before it was digested."""

WRITTEN = "written"
"""What every node leaves where several wrote the output: the digests of its part, which is on disk then."""

ADOPTED = "adopted"
"""In a start's directory of saves: the output of an earlier start that it seals."""


def revoke_earlier(spec: StageSpec, start: Start, but: Path | None = None) -> None:
    """Take the directories of all earlier starts away; what those still write goes nowhere. Of later ones nothing, and
    not the one that is, or holds, ``but``."""
    store, mine = spec.store_paths, claim_of(spec, start)
    for path, owner in store.own_directories():
        if _is_earlier(store, owner, mine) and (but is None or path not in (but, but.parent)):
            files.take_away(path)


def _is_earlier(store: StorePaths, owner: tuple[str, int, int], mine: Claim) -> bool:
    if owner[0] == mine.attempt:
        return owner[1:] < mine.order
    return owner[0] in attempts.tokens_before(store, mine.attempt)


def publish(spec: StageSpec, start: Start, result: dict[str, Any], made: Path | None = None) -> None:
    """Make what this start wrote (or ``made``) the sealed output of the entry. An output that is sealed already stays.

    Raises:
        ClaimLost: a later start holds the entry.
        SealBroken: there is nothing to seal.
    """
    store, stage = spec.store_paths, spec.stage_paths
    held, own = claim_of(spec, start), made or output_of(spec, start)
    if store.seal.exists():
        event(stage, start, "already_sealed", store=store.root.name)
        return
    claim.check_held(store, held)
    began = time.monotonic()
    desk = store.own_saves(held.attempt, *held.order)
    if own.exists() or not (desk / SEAL).exists():  # else all but the last act was done before an error that passed
        _put_output(spec, start, result, own, desk)
    claim.check_held(store, held)
    _make_seal(desk / SEAL, store.seal)
    sealed = seal.load(store.seal)
    seconds = round(time.monotonic() - began, 3)
    label = {} if sealed.depth is hashing.Depth.FULL else {"depth": sealed.depth.value}
    remarks = ["" if sealed.depth is hashing.Depth.FULL else seal.LIGHT_NOTE, validation.early_text(sealed.metrics)]
    if any(remarks):
        label["note"] = "; ".join(filter(None, remarks))
    event(
        stage,
        start,
        "sealed",
        store=store.root.name,
        bytes=sealed.bytes,
        files=len(sealed.files),
        seconds=seconds,
        **label,
    )
    _remove_saves(spec, desk)


def _put_output(spec: StageSpec, start: Start, result: dict[str, Any], own: Path, desk: Path) -> None:
    if "writers" not in result and own.is_dir():  # of a back end's own worker; ours has flushed what it says is done
        files.flush_tree(own)
        files.make_directory(desk)
        files.write_atomic(desk / FLUSHED, "")
    seal.seal_directory(
        own,
        desk / SEAL,
        known=_digested(spec, result),
        kind=seal.SealKind(spec.produces["kind"]),
        format=spec.produces["format"],
        fingerprint=spec.fingerprint,
        step=result.get("step"),
        behaviour=result.get("behaviour"),
        parents={role: _digest_of_parent(spec, start, role) for role in spec.inputs},
        metrics=_of_all_starts(spec, result.get("metrics", {})),
        run=spec.run,
        stage=spec.stage,
        job=start.job,
        restart=start.restart,
        depth=spec.seal_depth,
    )
    claim.check_held(spec.store_paths, claim_of(spec, start))
    claim.put(own, spec.store_paths.output, desk)


def _of_all_starts(spec: StageSpec, metrics: dict[str, Any]) -> dict[str, Any]:
    """What a start measured of itself, but for the first loss: that is the one with which the training began."""
    if "first_loss" not in metrics:
        return metrics
    told = (one.metrics["loss"] for one in progress.read(spec.stage_paths.progress) if "loss" in one.metrics)
    return {**metrics, "first_loss": next(told, metrics["first_loss"])}


def _remove_saves(spec: StageSpec, desk: Path) -> None:
    """The finished output replaces them, and what the work has kept on its way; but those that are to stay."""
    store, every = spec.store_paths, spec.settings.get("keep_every")
    with contextlib.suppress(ClaimLost, OSError):
        if every is None:
            claim.move(store.saves, desk / "saves")
        else:
            for step in sorted({*store.save_steps()} - {one for one in store.sealed_steps() if one % every == 0}):
                claim.move(store.save(step), desk / store.save(step).name)
    files.take_away(store.work)
    files.take_away(desk)


def _make_seal(made: Path, target: Path) -> None:
    """Let the seal appear, from the directory of the start: a link, which replaces nothing; a rename where the file
    system has no links.

    Raises:
        ClaimLost: a later start has taken the directory away.
    """
    try:
        os.link(made, target)
    except FileNotFoundError as error:
        raise ClaimLost(f"{made}: a later start has taken it away") from error
    except FileExistsError:
        if not os.path.samefile(made, target):  # a server may have linked it and lost the answer
            raise ClaimLost(f"{target}: another start has sealed it") from None
    except OSError as error:
        if error.errno not in files.NO_LINKS:
            raise
        claim.move(made, target)
    files.fsync_directory(target.parent)


def _digest_of_parent(spec: StageSpec, start: Start, role: str) -> str:
    """Of its seal, as the gate has read it: the parent may have been removed since."""
    for note in notes(spec, start, "file_gate"):
        if note.get("role") == role and note.get("seal"):
            return str(note["seal"])
    return seal.digest_of(spec.inputs[role].paths.seal)


# What an earlier start has finished


def seal_finished(spec: StageSpec, start: Start) -> dict[str, Any] | None:
    """The result of an earlier start whose work was done, once its output is sealed here; None: there is none.

    Its job may have ended while it sealed: time limit, lost node, an error of the file system.

    Raises:
        ClaimLost: a later start holds the entry.
    """
    store = spec.store_paths
    finished = next(_finished(spec), None)
    if finished is None:
        return None
    result, found = finished
    held = claim_of(spec, start)
    mine = store.own_saves(held.attempt, *held.order) / ADOPTED
    event(spec.stage_paths, start, "finishes", job_before=str(result.get("job", "")), step=result.get("step"))
    if found != mine:
        claim.check_held(store, held)
        revoke_earlier(spec, start, but=found)  # who has put it there cannot seal it any more
        if store.seal.exists():
            return result
        claim.put(found, mine, mine.parent)
    try:
        publish(spec, start, result, mine)
    except seal.SealBroken as error:
        if passes(error):  # it says nothing of the output
            raise
        event(spec.stage_paths, start, "not_finished", reason=str(error))
        return None
    revoke_earlier(spec, start)
    return result


def _finished(spec: StageSpec) -> Iterator[tuple[dict[str, Any], Path]]:
    """Results that say "done" and the output of each, where it is there. An attempt of another run has written its
    result into the directory of that run."""
    earlier = attempts.before(spec.store_paths, spec.attempt)
    for directory in dict.fromkeys([spec.stage_dir, *(attempt.stage_dir for attempt in earlier)]):
        there = replace(spec, stage_dir=directory)
        result = result_of(there)
        is_ours = directory == spec.stage_dir or "attempt" in result
        if result.get("outcome") != "done" or not is_ours or lacks_steps(there, result):
            continue
        passed_on = [*notes(there, None, "finishes"), *notes(spec, None, "finishes")]
        for path in _outputs_of(there, result, passed_on):
            if path.is_dir() and any(path.iterdir()):
                yield result, path


_TYPES = {"step": int, "metrics": dict, "behaviour": dict, "restart": int, "job": str, "attempt": str, "writers": int}


def result_of(spec: StageSpec) -> dict[str, Any]:
    """What the work last said; empty where it said nothing that can be read."""
    try:
        found = files.read_json_or_none(spec.stage_paths.result)
    except ValueError:
        return {}
    given = found.items() if isinstance(found, dict) else ()
    return {name: value for name, value in given if isinstance(value, _TYPES.get(name, object))}


def lacks_steps(spec: StageSpec, result: dict[str, Any]) -> int | None:
    """The step at which the stage is done, where ``result`` is not so far, and does not say that the stage was to end
    before; of epochs, whose steps the work has counted, what its reports say."""
    step, target = result.get("step"), spec.target_step
    ended = validation.early(result.get("metrics"))
    if ended is not None and spec.settings.get("early_stopping") and ended["step"] == step:
        return None
    if target is None and spec.trains:
        last = progress.latest(spec.stage_paths.progress)
        target = None if last is None else last.total
    return target if target is not None and (not isinstance(step, int) or step < target) else None


def _outputs_of(spec: StageSpec, result: dict[str, Any], passed_on: list[dict[str, Any]]) -> list[Path]:
    """Where the output of a result may lie, if all of it was flushed: in the directory of its start, in that of a start
    that was sealing it and was cut off, too, or in ``output`` without a seal, where the version before put it."""
    store = spec.store_paths
    given = result.get("attempt")  # which a worker of a back end's own may not say
    tokens = {given} if given else {spec.attempt, *attempts.tokens_before(store, spec.attempt)}
    starts = {(token, result.get("job"), result.get("restart")) for token in tokens}
    for note in passed_on:
        if note.get("job_before") == result.get("job"):
            starts.add((str(note.get("attempt")), note.get("job"), note.get("restart")))
    owners = [
        one
        for token in sorted({name[0] for name in starts})
        for one in claim.of_attempt(store, token)
        if (token, one.job, one.restart) in starts
    ]
    desks = [store.own_saves(one.attempt, *one.order) for one in owners]
    if not _is_flushed(spec, result) and not any((desk / FLUSHED).exists() for desk in desks):
        return []
    outputs = [store.partial_of(one.attempt, *one.order) for one in owners]
    return [*outputs, *(desk / ADOPTED for desk in desks), *([store.output] if owners else [])]


def _is_flushed(spec: StageSpec, result: dict[str, Any]) -> bool:
    """Whether every node has flushed what it wrote: one that has died since took the rest with it."""
    writers = result.get("writers", 0)
    return writers == 1 or (writers > 1 and shares.all_answered(_marks(spec, result), WRITTEN, writers))


def _marks(spec: StageSpec, result: dict[str, Any]) -> Path:
    return spec.stage_paths.ranks(result.get("job", ""), result.get("restart", 0))


def _digested(spec: StageSpec, result: dict[str, Any]) -> dict[str, hashing.FileDigest]:
    """Digests that the nodes have made of what they wrote; empty where there are none that can be read."""
    try:
        return shares.digests_of(shares.answers(_marks(spec, result), WRITTEN, result.get("writers", 0), 0.0))
    except (TimeoutError, FileNotFoundError, ValueError, TypeError, seal.SealBroken):
        return {}
