"""A browser for tests: Chromium, driven by its own driver over the WebDriver protocol (w3.org/TR/webdriver2)."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

MISSING = shutil.which("chromedriver") is None or shutil.which("chromium") is None
needs_browser = pytest.mark.skipif(MISSING, reason="chromium and chromedriver are not installed")

_QUIET = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
          "--disable-component-update", "--disable-sync", "--disable-quic")  # fmt: skip


class Browser:
    """One window."""

    def __init__(self, root: str, downloads: Path) -> None:
        self._root = root
        options = {
            "args": list(_QUIET),
            "prefs": {"download.default_directory": str(downloads)},
        }
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        made = self._ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self._root += f"/{made['sessionId']}"

    def _ask(self, how: str, path: str, body: Any = None) -> Any:
        data = None if how == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self._root + path, data, {"Content-Type": "application/json"}, method=how)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, url: str) -> None:
        self._ask("POST", "/url", {"url": url})

    def size(self, width: int, height: int) -> None:
        self._ask("POST", "/window/rect", {"width": width, "height": height})

    def script(self, text: str, *arguments: Any) -> Any:
        """What the script returns."""
        return self._ask("POST", "/execute/sync", {"script": text, "args": list(arguments)})

    def press(self, *keys: str) -> None:
        """Keys one after another; special ones as WebDriver's code points."""
        steps = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": steps}]})

    def console(self) -> list[str]:
        """What was written to the console since the last call: errors, refused by the content policy among them."""
        return [entry["message"] for entry in self._ask("POST", "/se/log", {"type": "browser"})]

    def requests(self) -> list[str]:
        """Addresses that were asked for since the last call."""
        entries = [
            json.loads(one["message"])["message"] for one in self._ask("POST", "/se/log", {"type": "performance"})
        ]
        return [
            entry["params"]["request"]["url"] for entry in entries if entry["method"] == "Network.requestWillBeSent"
        ]

    def picture(self, path: Path) -> None:
        import base64

        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))

    def close(self) -> None:
        self._ask("DELETE", "")


@contextmanager
def browser(downloads: Path) -> Iterator[Browser]:
    """A browser whose downloads go into a directory."""
    with subprocess.Popen(
        ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as driver:
        assert driver.stdout is not None
        try:
            port = next(line.rsplit(" ", 1)[1].strip(". \n") for line in driver.stdout if "started success" in line)
            window = Browser(f"http://127.0.0.1:{port}/session", downloads)
            yield window
            window.close()
        finally:
            driver.terminate()


def wait_for(path: Path, seconds: float = 20) -> Path:
    """The file, once it is there."""
    end = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.1)
    return path
