"""What goes wrong on the way from outside."""

from __future__ import annotations

from launch.errors import OvernightError


class DownloadFailed(OvernightError):
    """The world outside did not deliver: no network, an index or hub that is down, a damaged file.

    Typing the same command again later may help; what has arrived is kept. ``said``: the tool's own words.
    """

    exit_code = 4

    def __init__(self, message: str, said: str = "", *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.said = said

    def __str__(self) -> str:
        return self.message + "".join(f"\n  {line}" for line in self.said.strip().splitlines())
