"""A server that the stage itself starts, in an environment of its own, and stops at its end.

It is started when the first row is to be answered, so an evaluation that only puts its samples together needs none.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path
from typing import ClassVar

from jobs.core import files
from jobs.core.launchers import without_launcher
from jobs.core.server_command import filled
from jobs.core.symptoms import recognise
from jobs.core.verdict import FailureClass
from jobs.evaluate.server import OutOfTime, Reply, Request, Server
from jobs.evaluate.serving import keeper
from jobs.training.deadline import StopRequest
from jobs.training.settings import BadSettings

LOOK_SECONDS = 0.2
ANSWER_SECONDS = 5.0
SHOWN_LINES, SHOWN_CHARACTERS = 12, 300
"""Of the end of its log, in an error."""

TAIL_BYTES = 64 * 1024
KEYS = ("VLLM_API_KEY", "LLAMA_API_KEY")
"""Variables in which servers take the key that a request has to bring: nobody else on the node is answered, and no
other server that has got our port is taken for ours."""

_without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class ServerFailed(RuntimeError):
    """The server ended, or was never ready; ``failure`` is what its log shows."""

    def __init__(self, text: str, failure: FailureClass) -> None:
        super().__init__(text)
        self.failure = failure


@dataclass
class OwnServer:
    """A server of this process. ``command``: with ``{checkpoint}`` and ``{port}`` where these belong; ``ready``: how
    many seconds it may take to its first answer; ``log``: where it writes; ``client``: how it is asked, all but the
    address; ``called``: what the model is called there; None: as the server says; ``unseen``: variables that are not
    for it."""

    command: Sequence[str]
    checkpoint: Path
    ready: float
    log: Path
    model: str
    client: Server
    stop: StopRequest
    called: str | None = None
    unseen: Collection[str] = ()
    engine: ClassVar[str] = "server"
    _keeper: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _began: int = field(default=0, init=False)

    def groups(self, parts: Sequence[Request]) -> Iterator[list[int]]:
        """Requests that are under way at the same time."""
        return self.client.groups(parts)

    def answer(self, requests: Sequence[Request]) -> list[Reply]:
        """The replies to one group, of a server that is started where it is not there yet.

        Raises:
            ServerFailed: it ended, or was not ready in time; with the end of its log.
            BadSettings: it refuses what every row asks, or does not have the model.
            OutOfTime: the allocation ends.
        """
        if self._keeper is None:
            self._start()
        return self.client.answer(requests)

    def close(self) -> None:
        """Stop it, with all its processes."""
        if self._keeper is None:
            return
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait()

    def _start(self) -> None:
        port, key = _free_port(), secrets.token_urlsafe(24)
        given = {"checkpoint": str(self.checkpoint), "port": str(port)}
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as stream:
            self._began = stream.tell()
            self._keeper = subprocess.Popen(
                # -I: neither its directory nor PYTHONPATH brings modules
                [sys.executable, "-I", keeper.__file__, *filled(self.command, given)],
                env=environment(os.environ, key, self.unseen),
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        client = replace(
            self.client, url=f"http://127.0.0.1:{port}/v1", bearer=key, meets=self._meet, opens=_without_proxy
        )
        self.client = replace(client, model=self._name(self._wait(client)))

    def _wait(self, client: Server) -> list[str]:
        """The names of its models, once it tells them."""
        end = time.monotonic() + self.ready
        while True:
            self._meet()
            found = _models(client)
            if found is not None:
                return found
            if self._must_stop():
                raise OutOfTime
            if time.monotonic() > end:
                failure, _ = recognise(self._tail())
                text = f"the server was not ready after {self.ready:g} s (engine: {{server: {{ready: SECONDS}}}})"
                raise ServerFailed(
                    self._told(text), FailureClass.HANG if failure is FailureClass.CODE_ERROR else failure
                )
            time.sleep(LOOK_SECONDS)

    def _name(self, listed: Sequence[str]) -> str:
        if self.called is None:
            return listed[0]
        if self.called not in listed:
            raise BadSettings(f"engine: model {self.called!r} is none of the server's: it has {', '.join(listed)}")
        return self.called

    def _meet(self) -> None:
        """Raises ServerFailed: it has ended; OutOfTime: as everything of the job, since this is to end."""
        assert self._keeper is not None
        code = self._keeper.poll()
        if code is None:
            return
        if self._must_stop():
            raise OutOfTime
        failure, _ = recognise(self._tail())
        if code == keeper.NOT_STARTED:
            failure = FailureClass.BAD_CONFIGURATION
        elif failure is FailureClass.CODE_ERROR and code > 128:
            failure = FailureClass.KILLED
        how = f"signal {code - 128}" if code > 128 else f"exit code {code}"
        raise ServerFailed(self._told(f"the server ended with {how}"), failure)

    def _must_stop(self) -> bool:
        end = self.stop.end()
        return self.stop.reason() is not None or (end is not None and time.time() > end - self.stop.lead)

    def _told(self, what: str) -> str:
        lines = [line[:SHOWN_CHARACTERS] for line in self._tail().splitlines() if line.strip()][-SHOWN_LINES:]
        said = "\n".join(lines) if lines else "(nothing)"
        return f"{what}; the end of its log {self.log}:\n{said}"

    def _tail(self) -> str:
        return "\n".join(files.tail(self.log, min(TAIL_BYTES, self.log.stat().st_size - self._began)))


def environment(ours: Mapping[str, str], key: str, unseen: Collection[str] = ()) -> dict[str, str]:
    """Variables for the server: ours without those of launchers, of our Python and the ``unseen``; of several processes
    on a node each has its own GPU."""
    found = {name: value for name, value in without_launcher(ours).items() if name not in unseen}
    count, rank = int(ours.get("LOCAL_WORLD_SIZE", "1")), int(ours.get("LOCAL_RANK", "0"))
    if count > 1:
        shown = [one for one in ours.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
        found["CUDA_VISIBLE_DEVICES"] = shown[rank] if rank < len(shown) else str(rank)
    return {**found, **dict.fromkeys(KEYS, key)}


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _models(client: Server) -> list[str] | None:
    """The names of the models of a server; None: it does not say them yet."""
    asked = urllib.request.Request(f"{client.url}/models", headers=client.headers())
    try:
        with _without_proxy(asked, timeout=ANSWER_SECONDS) as stream:
            return [str(one["id"]) for one in json.loads(stream.read())["data"]] or None
    except (OSError, HTTPException, ValueError, KeyError, TypeError):  # HTTPError is an OSError
        return None
