"""The pictures of the page of a run in docs/: ``python -m tests.support.page_pictures RUN_DIRECTORY`` makes them anew.

Chromium shows the page of a real run, that of ``make demo``: ``~/overnight/runs/ID``. Paths of this machine are shown as
those of a user ``me``. Korean needs a font: Debian's ``fonts-nanum``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.browser import browser

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
HOME = "/home/me"
PICTURES = {
    "report.png": (1000, 900, "en", "light"),
    "report_dark.png": (1000, 700, "en", "dark"),
    "report_phone.png": (360, 1000, "en", "light"),
    "report_korean.png": (1000, 900, "ko", "light"),
}
"""File -> width, height, language, theme."""


def main(run: Path, where: Path = DOCS) -> None:
    """Write them."""
    workspace = run.absolute().parent.parent
    shown_as = {str(workspace): f"{HOME}/overnight", str(ROOT): f"{HOME}/code", str(Path.home()): HOME}
    with tempfile.TemporaryDirectory(prefix="overnight-") as scratch, browser(Path(scratch)) as window:
        for name, (width, height, language, theme) in PICTURES.items():
            page = Path(scratch) / "page.html"
            command = [sys.executable, "-m", "launch.cli", "report", run.name, "--workspace", str(workspace)]
            made = subprocess.run([*command, "--html", str(page), "--language", language], check=False)
            if made.returncode not in (0, 1):  # 1: the run failed, and has a page
                made.check_returncode()
            text = page.read_text(encoding="utf-8")
            for path, instead in shown_as.items():
                text = text.replace(path, instead)
            page.write_text(text, encoding="utf-8")
            window.open(page.as_uri())
            window.size(width, height)
            window.script(f"document.documentElement.dataset.theme = '{theme}'")
            window.picture(where / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
