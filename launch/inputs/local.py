"""A model or wheels that lie on this machine already: nothing is downloaded, the content is digested and sealed."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.core import hashing
from launch.base.errors import InputError
from launch.inputs.packages import DownloadProgress

_CROSSING = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP}


def format_of(path: Path) -> str:
    """Format of a local directory or file: ``hf``, ``gguf`` or ``wheels``. Raises InputError: none of these."""
    names = [entry.name for entry in path.iterdir()] if path.is_dir() else [path.name]
    if "config.json" in names and path.is_dir():
        return "hf"
    for suffix, found in ((".gguf", "gguf"), (".whl", "wheels")):
        if any(name.lower().endswith(suffix) for name in names):
            return found
    raise InputError(
        f"{path}: neither a Hugging Face directory (config.json) nor *.gguf nor *.whl",
        hint="your own text files are read directly: name them as files of a data stage",
    )


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """(relative name, real file) below ``path``, sorted. Links are followed: a hub's cache consists of them."""
    if path.is_file():
        yield path.name, path.resolve()
        return
    names: list[str] = []
    for root, folders, found in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]  # .git, .cache: no part of a model
        names += [os.path.relpath(os.path.join(root, name), path) for name in found]
    for name in sorted(names):
        yield name, (path / name).resolve()


def stamp(path: Path) -> str:
    """Changes when a file below ``path`` may have changed (name, size, time); content is not read."""
    hasher = hashlib.sha256()
    for name, real in _files(path):
        try:
            status = real.stat()
        except FileNotFoundError:
            hasher.update(f"{name}\0gone\n".encode())
            continue
        hasher.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return hasher.hexdigest()


def read(path: Path, progress: DownloadProgress) -> dict[str, Any]:
    """Pin of a path: digest of names and contents, and its stamp. Raises InputError: no or unreadable or changed
    files."""
    before = stamp(path)
    found = list(_files(path))
    if not found:
        raise InputError(f"{path}: no files")
    hasher = hashlib.sha256()
    done = 0
    try:
        total = sum(real.stat().st_size for _, real in found)
        for name, real in found:
            hasher.update(f"{name}\0{hashing.digest_file(real)}\n".encode())
            done += real.stat().st_size
            progress(done, total)
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error
    if stamp(path) != before:
        raise InputError(f"{path}: its files changed while they were read", hint="fetch again when they are complete")
    return {"content": hasher.hexdigest(), "stamp": before}


def link(path: Path, directory: Path, progress: DownloadProgress) -> None:
    """Put the files into ``directory`` by hard links, else as copies: with symbolic links a single ``mv`` could change
    an entry behind its seal."""
    found = list(_files(path))
    total = sum(real.stat().st_size for _, real in found)
    done = 0
    shutil.rmtree(directory)
    for name, real in found:
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(real, target)
        except OSError as error:
            if error.errno not in _CROSSING:
                raise
            shutil.copyfile(real, target)
        done += real.stat().st_size
        progress(done, total)
