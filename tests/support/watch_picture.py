"""The picture of ``overnight watch`` in docs/: ``python -m tests.support.watch_picture`` makes it anew.

A real chain on a throw-away Slurm, followed in a terminal of 80 x 24 of tmux; what tmux shows is drawn by rich.
"""

from __future__ import annotations

import io
import subprocess
import tempfile
import time
from pathlib import Path

from launch.slurm.devcluster.cluster import DevCluster
from tests.support import night
from tests.support.inspect_picture import SVG_FORM
from tests.support.slurm import Slurm

PICTURE = Path(__file__).parents[2] / "docs" / "watch.svg"
COLUMNS, LINES = 80, 24


def drawn(shown: str, title: str) -> str:
    """A terminal's text with its colours, as SVG."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in shown.split("\n")[:LINES]:
        console.print(Text.from_ansi(line), no_wrap=True, overflow="crop", soft_wrap=False)
    return console.export_svg(title=title, code_format=SVG_FORM)


def main() -> None:
    """Write it."""
    scratch = Path(tempfile.mkdtemp(prefix="overnight-"))
    cluster, tmux = DevCluster(scratch / "cluster"), ["tmux", "-S", str(scratch / "tmux")]
    try:
        cluster.up(with_accounting=False)
        settings = {**night.PRETENDED, "sft": {**night.PRETENDED["sft"], "steps": 400}}
        made = night.chain(Slurm(cluster, False), scratch / "work", settings)
        made.fetch()
        run = made.submit()
        night.wait_for_step(made, run, "sft", 60)
        words = [f"{name}={value}" for name, value in made.environment.items() if name != "TERM"]
        size = ["-x", str(COLUMNS), "-y", str(LINES)]
        subprocess.run([*tmux, "new-session", "-d", *size, "env", *words, *made.command("watch", run)], check=True)
        subprocess.run([*tmux, "set-option", "status", "off"], check=True)
        time.sleep(20)
        shown = subprocess.run(
            [*tmux, "capture-pane", "-p", "-e", "-N"], capture_output=True, text=True, check=True
        ).stdout
        PICTURE.write_text(drawn(night.shown(made, shown), f"overnight watch {run}"))
        made.cancel(run)
        print(PICTURE)
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)
        cluster.down()


if __name__ == "__main__":
    main()
