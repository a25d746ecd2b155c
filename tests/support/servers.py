"""A package index and a hub that speak just enough HTTP for pip and huggingface_hub, on 127.0.0.1.

Each can be told to stop in the middle of a file (``cut_at``: the connection breaks, ``cuts`` times; ``hold_at``: it
waits for ``release``), and keeps the requests it got.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote

from jobs.core.paths import Workspace
from launch.inputs.fetch import FetchItem
from tests.support.loopback import LoopbackServer

ROOT = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}


class Server:
    """A threading HTTP server whose answers are made by the subclass."""

    def __init__(self) -> None:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            server_owner: ClassVar[Server] = owner

            def do_GET(self) -> None:
                owner.requests.append((self.command, self.path, self.headers.get("Range")))
                owner.answer(self)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        self.requests: list[tuple[str, str, str | None]] = []
        self.cut_at: int | None = None
        self.cuts = 1000
        self.hold_at: int | None = None
        self.release = threading.Event()
        self._server = LoopbackServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        raise NotImplementedError

    def send(self, request: BaseHTTPRequestHandler, body: bytes, headers: dict[str, str], code: int = 200) -> None:
        request.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)

    def send_file(self, request: BaseHTTPRequestHandler, body: bytes, headers: dict[str, str] | None = None) -> None:
        """A file, or the rest of it from the start of a Range; breaks off or waits where the test wants it to."""
        start = 0
        if (wanted := re.match(r"bytes=(\d+)-", request.headers.get("Range", ""))) and request.command == "GET":
            start = int(wanted[1])
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            request.send_response(200)
        for name, value in {"Content-Length": str(len(body) - start), **(headers or {})}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "HEAD":
            return
        cut = self.cut_at if self.cuts > 0 else None
        stop = self.hold_at if cut is None else cut
        if stop is None or len(body) <= stop:
            request.wfile.write(body[start:])
            return
        request.wfile.write(body[start:stop])
        request.wfile.flush()
        if cut is not None:
            self.cuts -= 1
            request.close_connection = True
            return
        self.release.wait(60)
        request.wfile.write(body[max(start, stop) :])

    def count(self, part: str, method: str = "GET") -> int:
        """Requests so far whose path contains ``part``."""
        return sum(part in path and command == method for command, path, _ in self.requests)


class Index(Server):
    """A package index in the simple layout. ``wheels``: file name -> content."""

    def __init__(self) -> None:
        super().__init__()
        self.wheels: dict[str, bytes] = {}

    def __enter__(self) -> Index:
        super().__enter__()
        return self

    def add(self, project: str, version: str, members: dict[str, bytes], directory: Path) -> str:
        stem = f"{project.replace('-', '_')}-{version}"
        name = f"{stem}-py3-none-any.whl"
        path = directory / name
        with zipfile.ZipFile(path, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
            facts = f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n"
            archive.writestr(f"{stem}.dist-info/METADATA", facts)
            archive.writestr(f"{stem}.dist-info/licenses/LICENSE", "Do as you like.\n")
            archive.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        self.wheels[name] = path.read_bytes()
        path.unlink()
        return name

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        if found := re.match(r"/simple/([^/]+)/", request.path):
            links = [
                f'<a href="/files/{name}#sha256={hashlib.sha256(content).hexdigest()}">{name}</a>'
                for name, content in self.wheels.items()
                if name.partition("-")[0].replace("_", "-") == found[1]
            ]
            body = f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode()
            self.send(request, body, {"Content-Type": "text/html"}, code=200 if links else 404)
        elif (name := request.path.removeprefix("/files/")) in self.wheels:
            self.send_file(request, self.wheels[name], {"Content-Type": "application/octet-stream"})
        else:
            self.send(request, b"not here", {}, code=404)


class Hub(Server):
    """A hub. ``commits``: repository -> commit -> file -> content; ``heads``: repository -> branch -> commit."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.heads: dict[str, dict[str, str]] = {}
        self.damaged = False

    def __enter__(self) -> Hub:
        super().__enter__()
        return self

    def push(self, repo: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Commit ``files`` to a branch; returns the commit."""
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits.setdefault(repo, {})[commit] = files
        self.heads.setdefault(repo, {})[branch] = commit
        return commit

    @staticmethod
    def _entry(name: str, content: bytes, key: str) -> dict[str, object]:
        entry: dict[str, object] = {key: name, "type": "file", "size": len(content)}
        blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        entry["blobId" if key == "rfilename" else "oid"] = blob
        if name.endswith((".safetensors", ".bin")):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"sha256": digest, "oid": digest, "size": len(content), "pointerSize": 130}
        return entry

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(request.path.partition("?")[0])
        api = re.match(r"/api/(?:models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?\Z", path)
        resolved = re.match(r"/(?:datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)\Z", path)
        repo, revision = (api[1], api[3] or "main") if api else (resolved[1], resolved[2]) if resolved else ("", "")
        commit = self.heads.get(repo, {}).get(revision, revision)
        if repo not in self.commits or commit not in self.commits[repo]:
            code = "RevisionNotFound" if repo in self.commits else "RepoNotFound"
            self.send(request, b"{}", {**JSON, "X-Error-Code": code}, code=404)
            return
        files = self.commits[repo][commit]
        if api and api[2] == "tree":
            body: object = [self._entry(name, content, "path") for name, content in files.items()]
            self.send(request, json.dumps(body).encode(), JSON)
        elif api:
            siblings = [self._entry(name, content, "rfilename") for name, content in files.items()]
            body = {"id": repo, "modelId": repo, "sha": commit, "siblings": siblings, "private": False, "tags": []}
            self.send(request, json.dumps(body).encode(), JSON)
        elif resolved and (content := files.get(resolved[3])) is not None:
            etag = hashlib.sha256(content).hexdigest()
            if self.damaged:
                content = bytes([content[0] ^ 1]) + content[1:]
            self.send_file(request, content, {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"})
        else:
            self.send(request, b"not here", {"X-Error-Code": "EntryNotFound"}, code=404)


def missing(items: Sequence[FetchItem], workspace: Workspace) -> list[FetchItem]:
    """Items that have no seal, as a plan sees it."""
    return [item for item in items if not item.entry(workspace).seal.exists()]


def start_fetch(workspace: Path, request: object) -> subprocess.Popen[str]:
    """Fetch one item in a process of its own, as the command would."""
    code = textwrap.dedent(
        """
        import json, sys
        from pathlib import Path
        from jobs.core.paths import Workspace
        from launch.inputs.fetch import fetch, item
        (found,) = fetch([item("base", json.loads(sys.argv[2]))], Workspace(Path(sys.argv[1])),
                         progress=lambda item, done, total, what: print(what, flush=True))
        print("new" if found.new else "here", flush=True)
        """
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(workspace), json.dumps(request)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
