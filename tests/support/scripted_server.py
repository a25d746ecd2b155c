"""An OpenAI-compatible server that answers, and fails, by script."""

from __future__ import annotations

import inspect
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from jobs.evaluate.server import Server
from tests.support.loopback import LoopbackServer

Script = Callable[[str, int], tuple[int, Any]]


class ScriptedServer:
    """Answers as ``script`` says it: the prompt and how often it was asked -> status and body (a number: silence)."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[str | None] = []
        self.script: Script = lambda prompt, times: (200, prompt.upper())
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = body["messages"][-1]["content"]
                with owner._lock:
                    owner.asked.append(body)
                    owner.headers.append(self.headers["Authorization"])
                    times = sum(one["messages"][-1]["content"] == prompt for one in owner.asked)
                status, said = owner.script(prompt, times)
                if isinstance(said, float):
                    time.sleep(said)
                text = json.dumps(_body(said)) if status == 200 and isinstance(said, str) else str(said)
                self.send_response(status)
                self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._server = LoopbackServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def impatient(monkeypatch: pytest.MonkeyPatch, *, patience: float, silence: float) -> None:
    """From here on a client of a server gives up so early, in seconds."""
    usual = inspect.signature(Server.__init__).parameters.values()
    by_name = {one.name: one.default for one in usual if one.default is not inspect.Parameter.empty}
    changed = {**by_name, "patience": patience, "silence": silence}
    monkeypatch.setattr(Server.__init__, "__defaults__", tuple(changed.values()))


def _body(text: str) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": f" {text}\n"}, "finish_reason": "stop"}
    return {"choices": [choice], "usage": {"completion_tokens": 7}}
