"""A snapshot of the user's work tree: what is in it, committed or not, under the name of its content.

Equal trees share one copy in the workspace, whichever run took it; a later edit changes no job that was submitted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.core import attempts, files, strict
from jobs.core.paths import Workspace
from launch.base.errors import InputError
from launch.base.text import control_character

MAX_FILE = 10 << 20
MAX_TOTAL = 100 << 20
"""Bytes. Code is small: what is larger is data or a checkpoint, and goes into the pipeline by its path."""

_SKIPPED = frozenset({"__pycache__", "node_modules", ".tox", ".nox", ".mypy_cache", ".ruff_cache", ".pytest_cache"})
_ENVIRONMENT_MARKS = ("pyvenv.cfg", "conda-meta/history")
"""Files that an environment has at its top: of venv and of conda."""

_GIT_SECONDS = 60.0


@dataclass(frozen=True)
class CodeSnapshot:
    """``digest``: SHA-256 (hex) of names, kinds and contents. ``uncommitted``: files that git has not in its HEAD as
    they are; None where the tree is not under git."""

    digest: str
    path: Path
    files: int
    bytes: int
    uncommitted: int | None

    def __str__(self) -> str:
        state = "not under git" if self.uncommitted is None else f"{self.uncommitted} of them not committed as they are"
        return f"{self.files} files, {self.bytes / 1e6:.1f} MB ({state}), {self.digest[:16]}"


def take(tree: Path, workspace: Workspace, leave_out: Collection[Path] = ()) -> CodeSnapshot:
    """Copy ``tree``, read-only, to ``code/<digest>`` of the workspace unless it is there. Left out: ``leave_out`` (data
    in the tree), ``.git``, Python environments, caches, and what git ignores; a tree that is itself a snapshot
    (``move``) is copied as it is. Raises InputError: no directory, a file or the whole too large, a name that is not
    UTF-8 or has a control character, a link out of the tree, a socket, pipe or device."""
    tree, moved, names = _looked_at(tree, leave_out)
    files.make_directory(workspace.code)
    partial = workspace.code / f"partial-{attempts.new_token(12)}"
    partial.mkdir()
    try:
        # The digest is of the copy: the tree may change while it is read.
        total = sum(_copy(tree, name, partial / name) for name in names)
        if total > MAX_TOTAL:
            raise _too_large(tree, names, total)
        digest = digest_of(partial, names)
        _make_read_only(partial)
        target = publish(partial, workspace, digest)
    finally:
        remove(partial)
    return CodeSnapshot(digest, target, len(names), total, moved.uncommitted if moved else _uncommitted(tree))


def publish(partial: Path, workspace: Workspace, digest: str) -> Path:
    """The snapshot of this digest; ``partial``, a directory beside it with that content, becomes it if there is none.

    One that was changed since it was taken is replaced, which stderr says; ``gc`` removes it.
    """
    target = workspace.code_snapshot(digest)
    files.flush_tree(partial)  # a later reader of the name takes the content as it is
    if target.is_dir() and not is_whole(target):
        print(f"note: {target} was changed since it was taken: it is replaced by a new copy", file=sys.stderr)
        with contextlib.suppress(FileNotFoundError):
            os.rename(target, workspace.code / f"partial-{attempts.new_token(12)}")
    try:
        os.rename(partial, target)
    except OSError:
        if not target.is_dir():
            raise
    files.fsync_directory(workspace.code)
    return target


def is_whole(snapshot: Path) -> bool:
    """Whether a snapshot is there and has the content that its name says."""
    try:
        return digest_of(snapshot, listing(snapshot)) == snapshot.name
    except FileNotFoundError:  # a gc moved it meanwhile
        return False


def digest(tree: Path, leave_out: Collection[Path] = ()) -> str:
    """The digest that ``take`` would give, without a copy. Raises InputError: as ``take``, but for size and links."""
    tree, _, names = _looked_at(tree, leave_out)
    return digest_of(tree, names)


def _looked_at(tree: Path, leave_out: Collection[Path]) -> tuple[Path, CodeSnapshot | None, list[str]]:
    """The resolved directory, the snapshot that it is, and the names of what belongs to the code."""
    tree = tree.resolve()
    if not tree.is_dir():
        raise InputError(f"code: {tree} is not a directory")
    moved = _moved(tree)
    return tree, moved, listing(tree) if moved else _listed(tree, [path.resolve() for path in leave_out])


def digest_of(directory: Path, names: list[str]) -> str:
    """SHA-256 of names, kinds (file, executable, link) and contents."""
    return digest_of_files({name: os.path.join(directory, name) for name in names})


def digest_of_files(paths: Mapping[str, str]) -> str:
    """``digest_of`` for files that lie anywhere, by the names that they would have in the snapshot."""
    whole = hashlib.sha256()
    for name in sorted(paths):
        path = paths[name]
        if os.path.islink(path):
            kind, content = "link", os.fsencode(os.readlink(path))
        else:
            kind, content = _content(path)
        line = f"{kind} {len(os.fsencode(name))} {name} {hashlib.sha256(content).hexdigest()}\n"
        whole.update(os.fsencode(line))
    return whole.hexdigest()


def _content(path: str) -> tuple[str, bytes]:
    """Kind and content of a file. There are hundreds, and small ones: making a stream for each is half of the time."""
    handle = os.open(path, os.O_RDONLY)
    try:
        found = os.fstat(handle)
        kind = "program" if found.st_mode & 0o100 else "file"
        return kind, b"".join(iter(lambda: os.read(handle, found.st_size + 1), b""))
    finally:
        os.close(handle)


def listing(directory: Path, skipped: Collection[str] = ()) -> list[str]:
    """Every file and link below a directory, sorted; links are not followed, Python's caches and directories
    ``skipped`` not entered."""
    found = []
    start = len(os.path.join(directory, ""))
    for root, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if name != "__pycache__"]
        links = [name for name in directories if os.path.islink(os.path.join(root, name))]
        directories[:] = [name for name in directories if name not in skipped]
        found += [os.path.join(root, name)[start:] for name in (*names, *links)]
    return sorted(found)


def move(taken: CodeSnapshot, target: Path) -> None:
    """Take a snapshot out of its workspace, to go to another machine: to ``target``, with a note beside it of what git
    cannot be asked there. ``take`` on ``target`` then makes the same snapshot again, to the byte."""
    os.rename(taken.path, target)
    files.write_json(_note_path(target), {"digest": taken.digest, "uncommitted": taken.uncommitted})


def _note_path(tree: Path) -> Path:
    return tree.with_name(f"{tree.name}.overnight.json")


def _moved(tree: Path) -> CodeSnapshot | None:
    """The snapshot that ``tree`` is, by the note beside it and by what is in it."""
    try:
        value = strict.read(_note_path(tree))
        digest, uncommitted = str(value["digest"]), value["uncommitted"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    names = listing(tree)
    if digest_of(tree, names) != digest or not isinstance(uncommitted, int | None):
        return None
    return CodeSnapshot(digest, tree, len(names), 0, uncommitted)


def remove(directory: Path) -> None:
    """Remove a snapshot, read-only as it is; nothing happens where there is none."""
    if not directory.is_dir() or directory.is_symlink():
        return
    with contextlib.suppress(FileNotFoundError):  # another one removes it, too
        for root, _, _ in os.walk(directory):
            os.chmod(root, 0o700)
    shutil.rmtree(directory, ignore_errors=True)


def _git(tree: Path, *arguments: str) -> bytes | None:
    # A work tree may carry settings that run programs (fsmonitor); those that git itself would run are turned off.
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(tree), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_GIT_SECONDS, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _listed(tree: Path, leave_out: list[Path]) -> list[str]:
    said = _git(tree, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    found = (
        listing(tree, {*_SKIPPED, ".git"})
        if said is None
        else [os.fsdecode(name) for name in said.split(b"\0") if name]
    )
    environments = {
        tree / name.removesuffix(mark)
        for name in found
        for mark in _ENVIRONMENT_MARKS
        if f"/{name}".endswith(f"/{mark}")
    }
    unwanted = {*environments, *leave_out} - {tree}
    kept = []
    for name in sorted(set(found)):
        path = tree / name
        parts = name.split("/")
        if _SKIPPED & set(parts) or ".git" in parts or not os.path.lexists(path):
            continue
        if unwanted and not unwanted.isdisjoint((path, *path.parents)):
            continue
        if path.is_dir() and not path.is_symlink():
            continue  # a submodule or a repository in the tree: git lists it as one name
        _check_name(tree, name)
        kept.append(name)
    return kept


def _check_name(tree: Path, name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"code: a name in {tree} is not UTF-8: {os.fsencode(name)!r}", hint="rename it") from error
    if control_character(name):
        raise InputError(f"code: a name in {tree} has a control character: {name!r}", hint="rename it")


def _copy(tree: Path, name: str, target: Path) -> int:
    source = tree / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        aim = os.readlink(source)
        if os.path.isabs(aim) or not (source.parent / aim).resolve().is_relative_to(tree):
            raise InputError(
                f"code: {source} is a symbolic link out of the tree, to {aim}", hint="copy what it points to"
            )
        os.symlink(aim, target)
        return 0
    if not source.is_file():
        raise InputError(f"code: {source} is neither a file nor a link")
    size = source.stat().st_size
    if size > MAX_FILE:
        raise InputError(
            f"code: {source} has {size / 1e6:.0f} MB; {MAX_FILE / 1e6:.0f} MB is the most for a file of code",
            hint="have git ignore it (.gitignore), or keep it outside the tree and name its path in the pipeline",
        )
    shutil.copyfile(source, target, follow_symlinks=False)
    os.chmod(target, 0o755 if source.stat().st_mode & 0o100 else 0o644)
    return size


def _too_large(tree: Path, names: list[str], total: int) -> InputError:
    by_top: dict[str, int] = {}
    for name in names:
        top = name.split("/")[0]
        by_top[top] = by_top.get(top, 0) + (tree / name).lstat().st_size
    worst = sorted(by_top, key=lambda top: by_top[top], reverse=True)[:3]
    shown = ", ".join(f"{top}: {by_top[top] / 1e6:.0f} MB" for top in worst)
    return InputError(
        f"code: {tree} has {total / 1e6:.0f} MB of files, the most is {MAX_TOTAL / 1e6:.0f} MB ({shown})",
        hint="have git ignore data and checkpoints (.gitignore), or choose a smaller directory",
    )


def _make_read_only(directory: Path) -> None:
    for root, _, names in os.walk(directory, topdown=False):
        for name in names:
            path = os.path.join(root, name)
            if not os.path.islink(path):
                os.chmod(path, 0o555 if os.stat(path).st_mode & 0o100 else 0o444)
        if Path(root) != directory:
            os.chmod(root, 0o555)


def _uncommitted(tree: Path) -> int | None:
    said = _git(tree, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", ".")
    return None if said is None else len([line for line in said.split(b"\0") if line])
