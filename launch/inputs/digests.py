"""Content digests of the user's source files, cached by (size, mtime, inode): ``touch`` costs a re-read, no re-run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.core import files, hashing, strict
from jobs.core.spec import Source
from launch.base import waiting
from launch.base.errors import InputError


class DigestCache:
    """SHA-256 of files, remembered in the workspace. A broken or missing cache is only slower."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = False
        self._known: dict[str, list[str | int]] = {}
        try:
            known = strict.convert(dict[str, Any], strict.read(path), "digests")
            self._known = {name: entry for name, entry in known.items() if isinstance(entry, list) and len(entry) == 4}
        except (OSError, ValueError):
            pass

    def digest(self, path: Path) -> Source:
        """Digest one file. Raises InputError: it cannot be read."""
        try:
            status = path.stat()
            key = [status.st_size, status.st_mtime_ns, status.st_ino]
            known = self._known.get(str(path))
            if known is not None and known[:3] == key:
                return Source(str(path), str(known[3]), status.st_size)
            with waiting.on(f"reading {path.name}"):
                value = hashing.digest_file(path)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}", hint=f"ls -l {path}") from error
        self._known[str(path)] = [*key, value]
        self._changed = True
        return Source(str(path), value, status.st_size)

    def save(self) -> None:
        """Keep what was learned; silently not where the workspace cannot be written (plan needs no write access)."""
        if not self._changed:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(self._path, self._known)
        except OSError:
            pass


def source_files(path: Path) -> list[Path]:
    """The path itself, or all regular files below it, sorted, without hidden ones. Raises InputError: there are
    none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"no such file or directory: {path}")
    found = sorted(
        entry
        for entry in path.rglob("*")
        if entry.is_file() and not any(part.startswith(".") for part in entry.relative_to(path).parts)
    )
    if not found:
        raise InputError(f"no files below {path}")
    return found
