"""A hub that takes files, too: as much of it as huggingface_hub asks for a commit, on 127.0.0.1."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.servers import JSON, Hub


class UploadHub(Hub):
    """``private``: repository -> whether it is; ``blobs``: large files by SHA-256; ``tokens``: what came as one.
    ``refuse``: the code of the answer to a commit, in place of making it; ``opens``: it makes all public; ``on_blob``:
    called before a large file is taken, and takes it not where it says so."""

    def __init__(self) -> None:
        super().__init__()
        self.private: dict[str, bool] = {}
        self.blobs: dict[str, bytes] = {}
        self.uploads: list[str] = []
        self.tokens: set[str] = set()
        self.messages: list[str] = []
        self.refuse = 0
        self.opens = False
        self.on_blob: Callable[[], bool] = lambda: True
        self.created: list[dict[str, Any]] = []
        handler = self._server.RequestHandlerClass
        handler.do_POST = handler.do_PUT = lambda request: self.take(request)  # type: ignore[attr-defined]

    def __enter__(self) -> UploadHub:
        super().__enter__()
        return self

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self._note(request)
        found = re.match(r"/api/models/([^/]+/[^/]+?)(?:/revision/main)?(?:\?|\Z)", request.path)
        if found and found[1] in self.private:
            repo = found[1]
            files = self._head(repo)
            siblings = [self._entry(name, content, "rfilename") for name, content in files.items()]
            body = {"id": repo, "modelId": repo, "sha": self.heads.get(repo, {}).get("main", "0" * 40),
                    "siblings": siblings, "private": self.private[repo], "tags": []}  # fmt: skip
            self.send(request, json.dumps(body).encode(), JSON)
            return
        super().answer(request)

    def _head(self, repo: str) -> dict[str, bytes]:
        return self.commits.get(repo, {}).get(self.heads.get(repo, {}).get("main", ""), {})

    def _note(self, request: BaseHTTPRequestHandler) -> bytes:
        self.tokens.add(request.headers.get("Authorization") or "")
        return request.rfile.read(int(request.headers.get("Content-Length") or 0))

    def take(self, request: BaseHTTPRequestHandler) -> None:
        """POST and PUT."""
        body, path = self._note(request), request.path.partition("?")[0]
        self.requests.append((request.command, request.path, None))
        if path == "/api/repos/create":
            asked = json.loads(body)
            self.created.append(asked)
            repo = f"{asked['organization']}/{asked['name']}"
            self.private[repo] = not self.opens and (asked.get("visibility") == "private" or bool(asked.get("private")))
            self._say(request, {"url": f"{self.url}/{repo}"})
        elif path == "/api/validate-yaml":
            self._say(request, {"errors": [], "warnings": []})
        elif found := re.match(r"/api/models/([^/]+/[^/]+)/preupload/main\Z", path):
            large = (".safetensors", ".gguf")
            files = [
                {"path": one["path"], "uploadMode": "lfs" if one["path"].endswith(large) else "regular",
                 "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]  # fmt: skip
            self._say(request, {"files": files})
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = []
            for one in json.loads(body)["objects"]:
                known = one["oid"] in self.blobs
                where = {"upload": {"href": f"{self.url}/blob/{one['oid']}"}}
                objects.append({**one, "authenticated": True, **({} if known else {"actions": where})})
            self._say(request, {"transfer": "basic", "objects": objects})
        elif found := re.match(r"/blob/([0-9a-f]{64})\Z", path):
            assert hashlib.sha256(body).hexdigest() == found[1]
            if not self.on_blob():
                self.send(request, b"{}", JSON, code=403)
                return
            self.blobs[found[1]] = body
            self.uploads.append(found[1])
            self._say(request, {})
        elif found := re.match(r"/api/models/([^/]+/[^/]+)/commit/main\Z", path):
            if self.refuse:
                text = json.dumps({"error": f"no: {request.headers.get('Authorization')}"}).encode()
                self.send(request, text, JSON, code=self.refuse)
                return
            self._say(request, self._commit(found[1], body))
        else:
            self.send(request, b"{}", JSON, code=404)

    def _commit(self, repo: str, body: bytes) -> dict[str, Any]:
        files = dict(self._head(repo))
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = self.push(repo, files)
        return {
            "success": True,
            "commitOid": commit,
            "commitUrl": f"{self.url}/{repo}/commit/{commit}",
            "hookOutput": "",
        }

    def _say(self, request: BaseHTTPRequestHandler, value: object) -> None:
        self.send(request, json.dumps(value).encode(), JSON)
