"""An HTTP server on 127.0.0.1 for the other ones here."""

from __future__ import annotations

from http.server import ThreadingHTTPServer


class LoopbackServer(ThreadingHTTPServer):
    """Takes many connections at once, and ends at once.

    With the usual queue of five the kernel drops the sixth connection that nobody has taken yet, and its client tries
    again after a second, and after three: on a busy machine most of what such a test waited for.
    """

    request_queue_size = 128

    def serve_forever(self, poll_interval: float = 0.01) -> None:
        super().serve_forever(poll_interval)
