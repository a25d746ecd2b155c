"""What ``overnight profile`` prints at three very different sites, and at one that refuses a requeue: ``python -m tests.support.transcripts`` writes it anew.

Everything is real output on the dev cluster; only names of this machine's directories, user and host are replaced.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.shaped import ADDED, SITES, Site, like

PLACE = Path(__file__).parents[2] / "docs" / "transcripts"

_MADE = {
    "dgx-pyxis": "the partition of cluster_profiles/dgx-pyxis.yaml, and a plugin that takes pyxis' options",
    "university": "the partition of cluster_profiles/university.yaml, no accounting",
    "perlmutter": "QOS regular (one day) and debug (30 minutes, the default one), features gpu and cpu",
}

REFUSING = "no-requeue"
"""A university whose jobs may not requeue themselves: the name of its transcript."""

_REFUSED = "sbatch: {no-requeue: true}  # the rule of this site\n"


def transcript(site: Site, name: str) -> str:
    """The commands of somebody who comes to a cluster, and what they print."""
    like_site = "university" if name == REFUSING else name
    lines = [f"# A dev cluster like {like_site}: {_MADE[like_site]}.", ""]

    def say(*arguments: str) -> None:
        lines.append(f"$ overnight profile {' '.join(arguments)}")
        process = site.start(*arguments)
        out, err = process.communicate(timeout=900)
        lines.extend([*err.splitlines(), *out.splitlines(), ""])

    say("init", site.name)
    lines.extend([f"$ cat {site.file}", *site.file.read_text().splitlines(), ""])
    if name in ADDED:
        with site.file.open("a") as stream:
            stream.write(ADDED[name])
        lines.extend(["# Added by hand, for nobody can be asked which image there is:", ADDED[name]])
    if name == REFUSING:
        with site.file.open("a") as stream:
            stream.write(_REFUSED)
        lines.extend(["# Added by hand, as the site wants it:", _REFUSED])
    say("check", site.name)
    say("test", site.name, *(["--minutes", "1"] if name in ADDED else []))
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    text = "\n".join(lines)
    for real, shown in (
        (str(site.home), "/home/me"),
        (sys.executable, "/home/me/venv/bin/python"),
        (f"user {user} ", "user me "),
        (f"from {socket.gethostname().partition('.')[0]} ", "from login1 "),
    ):
        text = text.replace(real, shown)
    return text


def main() -> None:
    """Write all, or those that are named."""
    PLACE.mkdir(exist_ok=True)
    for name in sys.argv[1:] or (*SITES, REFUSING):
        place = "university" if name == REFUSING else name
        with tempfile.TemporaryDirectory(prefix="overnight-") as scratch, like(place, Path(scratch)) as site:
            (PLACE / f"{name}.txt").write_text(transcript(site, name))
            print(name)


if __name__ == "__main__":
    main()
