"""An HTTP server that takes letters as apprise's ``json://`` sends them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.loopback import LoopbackServer


class Inbox(LoopbackServer):
    """Takes letters as apprise's ``json://`` sends them. ``answer``: its status; None: it never answers."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.answer: int | None = 200
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.server_address[1]}/secret-token"


class _Handler(BaseHTTPRequestHandler):
    server: Inbox

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.answer is None:
            time.sleep(60)
            return
        if self.server.answer == 200:
            self.server.got.append(json.loads(body))
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


def serving() -> Iterator[Inbox]:
    """An inbox that takes letters until it is closed: for a fixture."""
    server = Inbox()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
