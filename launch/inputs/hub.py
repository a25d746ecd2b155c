"""Models of a Hugging Face hub, by its own client (extra ``hub``), at an exact commit."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from launch.base.errors import DownloadFailed, InputError
from launch.inputs.packages import directory_bytes

_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
# The transport under the client differs by its version; an error of any of these means "not reached".
_TRANSPORTS = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "hf_xet"}
# Copies of the same weights for other programs; Llama's repositories hold everything twice.
_OTHER_PROGRAMS = re.compile(
    r"(?:original|onnx|openvino|coreml)/.*|.*\.(?:onnx|h5|msgpack|ot|tflite|gguf|mlmodel|pth)|\.gitattributes"
)
_NO_ROWS = re.compile(r".*\.(?:py|pyc|sh)|\.gitattributes")
_TORCH_WEIGHTS = re.compile(r".*\.(?:bin|pt)(?:\.index\.json)?")
# The client's name for the file of one process; older clients use a name without this part; such a file is resumed.
_UNIQUE = re.compile(r".+\.[0-9a-f]{8}\.incomplete")
_POLL_SECONDS = 0.3


@dataclass(frozen=True)
class HubFile:
    """A file of a repository. ``sha256`` of large files, ``blob`` (git's SHA-1) of the others."""

    path: str
    size: int
    sha256: str | None
    blob: str | None


@dataclass(frozen=True)
class Snapshot:
    """The files of a repository that we want, at one commit."""

    repo: str
    revision: str
    files: tuple[HubFile, ...]
    kind: str = "model"

    @property
    def bytes(self) -> int:
        return sum(entry.size for entry in self.files)


def client() -> Any:
    """The hub's own client, imported. Raises InputError: it is not installed, or may not be used."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise InputError("HF_HUB_OFFLINE is set, so the hub may not be asked", hint="unset HF_HUB_OFFLINE")
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(
            f"a hub needs the package huggingface_hub: {error}", hint="pip install 'overnight[hub]'"
        ) from error
    return huggingface_hub


def endpoint() -> str | None:
    """The hub that the user's environment names; None is the client's own."""
    return os.environ.get("HF_ENDPOINT") or None


def resolve(repo: str, revision: str | None, kind: str = "model") -> Snapshot:
    """Commit of a branch or tag (None: the main branch) of a ``model`` or ``dataset``, and its files. Raises
    InputError: no such repository or revision, or no access. Raises DownloadFailed: no response from the hub."""
    hub = client()
    try:
        info = hub.HfApi(endpoint=endpoint()).repo_info(
            repo, revision=revision, files_metadata=True, timeout=30, repo_type=kind
        )
    except Exception as error:
        explain(error, repo, revision)
    if not _COMMIT.match(info.sha or ""):
        raise DownloadFailed(f"{repo}: the hub names no commit for {revision or 'the main branch'}: {info.sha!r}")
    listed = [
        HubFile(entry.rfilename, entry.size or 0, entry.lfs.sha256 if entry.lfs else None, entry.blob_id)
        for entry in info.siblings or []
    ]
    unwanted = _OTHER_PROGRAMS if kind == "model" else _NO_ROWS
    wanted = [entry for entry in listed if not unwanted.fullmatch(entry.path)]
    if any(entry.path.endswith(".safetensors") for entry in wanted):
        wanted = [entry for entry in wanted if not _TORCH_WEIGHTS.fullmatch(entry.path)]
    if not wanted:
        raise InputError(f"{repo} at {info.sha} holds no files that we use")
    return Snapshot(repo, info.sha, tuple(wanted), kind)


def download(snapshot: Snapshot, directory: Path, progress: Callable[[int, int | None], None]) -> None:
    """Download the files of ``snapshot``; complete ones of an earlier try are kept. A broken connection is resumed
    within a file; after a kill the client (2.x) starts the file again, since without reliable locks it cannot know
    whose bytes these are. Raises InputError: no access. Raises DownloadFailed: the connection broke, or a file differs
    from the hub's list."""
    hub = client()
    for leftover in directory.glob(".cache/huggingface/download/**/*.incomplete"):
        if _UNIQUE.fullmatch(leftover.name):
            leftover.unlink()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_POLL_SECONDS):
            progress(min(directory_bytes(directory), snapshot.bytes), snapshot.bytes)

    watcher = threading.Thread(target=watch, name="fetch-progress", daemon=True)
    watcher.start()
    bars_were = os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS")
    try:
        hub.utils.disable_progress_bars()
        hub.snapshot_download(
            snapshot.repo,
            revision=snapshot.revision,
            repo_type=snapshot.kind,
            local_dir=directory,
            allow_patterns=[_literal(entry.path) for entry in snapshot.files],
            endpoint=endpoint(),
            max_workers=4,
        )
    except Exception as error:
        explain(error, snapshot.repo, snapshot.revision)
    finally:
        done.set()
        watcher.join()
        if bars_were is None:
            hub.utils.enable_progress_bars()
    # The client is content with what it finds when it cannot reach the hub: so look at every file ourselves.
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        flaws = [flaw for flaw in pool.map(lambda entry: _flaw(directory, entry), snapshot.files) if flaw is not None]
    if flaws:
        raise DownloadFailed(f"{snapshot.repo} at {snapshot.revision}: not what the hub listed", "\n".join(flaws[:5]))
    shutil.rmtree(directory / ".cache", ignore_errors=True)
    progress(snapshot.bytes, snapshot.bytes)


def _literal(path: str) -> str:
    """A pattern that matches ``path`` only (the client's patterns are fnmatch's)."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def _flaw(directory: Path, entry: HubFile) -> str | None:
    """What is wrong with a downloaded file, by the hub's list; a wrong file is removed, to be fetched anew."""
    path = directory / entry.path
    if not path.is_file():
        return f"{entry.path} did not arrive"
    size = path.stat().st_size
    hasher = hashlib.sha256() if entry.sha256 else hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with open(path, "rb") as stream:
        while block := stream.read(1024 * 1024):
            hasher.update(block)
    expected = entry.sha256 or entry.blob
    if size == entry.size and (expected is None or hasher.hexdigest() == expected):
        return None
    path.unlink()
    return f"{entry.path} is damaged: {size} bytes, listed with {entry.size} bytes and digest {expected}"


def explain(error: Exception, repo: str, revision: str | None) -> NoReturn:
    """Raise what the user can do something about in place of an error of the client."""
    names = {kind.__name__ for kind in type(error).__mro__}
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    said = str(error).strip()
    if isinstance(error, InputError | DownloadFailed):
        raise error
    if "GatedRepoError" in names:
        raise InputError(f"{repo} is behind terms of use", hint="accept them on its page, then: hf auth login")
    if "RepositoryNotFoundError" in names:
        raise InputError(f"{repo}: no such repository, or no access to it", hint="check the name, or: hf auth login")
    if names & {"RevisionNotFoundError", "RevisionResolutionError"}:
        raise InputError(f"{repo} has no revision {revision!r}", hint="name a branch, a tag or a commit after the @")
    if "HFValidationError" in names:
        raise InputError(f"{repo!r} is not a repository name: {said}")
    if names & {"HfHubHTTPError", "LocalEntryNotFoundError", "IncompleteSnapshotError"} or modules & _TRANSPORTS:
        raise DownloadFailed(f"{repo}: the hub cannot be reached or broke off", said) from error
    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # of a file that did not get over
        why = str(error.__cause__).strip().partition("\n")[0]
        why = re.sub(r"\S+://\S+", "its address", why)  # which may hold a signature
        raise DownloadFailed(f"{repo}: the hub cannot be reached or broke off", f"{said} {why}") from error
    if isinstance(error, OSError) and error.errno is None:  # the client's own "consistency check failed"
        raise DownloadFailed(f"{repo}: the hub broke off", said) from error
    raise error
