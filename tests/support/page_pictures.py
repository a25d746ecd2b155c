"""The pictures of the page of a run in docs/: ``python -m tests.support.page_pictures RUN_DIRECTORY`` makes them anew.

Chromium shows the page of a real run, that of ``make demo``: ``~/overnight/runs/ID``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.browser import browser

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = {
    "report.png": (1000, 900, "en", "light"),
    "report_dark.png": (1000, 700, "en", "dark"),
    "report_phone.png": (360, 1000, "en", "light"),
    "report_korean.png": (1000, 900, "ko", "light"),
}
"""File -> width, height, language, theme."""


def main(run: Path, where: Path = DOCS) -> None:
    """Write them."""
    workspace = str(run.absolute().parent.parent)
    with tempfile.TemporaryDirectory(prefix="overnight-") as scratch, browser(Path(scratch)) as window:
        for name, (width, height, language, theme) in PICTURES.items():
            page = Path(scratch) / "page.html"
            command = [sys.executable, "-m", "launch.cli", "report", run.name, "--workspace", workspace]
            subprocess.run([*command, "--html", str(page), "--language", language], check=True)
            window.open(page.as_uri())
            window.size(width, height)
            window.script(f"document.documentElement.dataset.theme = '{theme}'")
            window.picture(where / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
