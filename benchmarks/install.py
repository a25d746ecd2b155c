"""What the login-node side takes on disk: Overnight without executors, installed by pip into a fresh environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import child, report

TARGET_MB = 40
ROOT = Path(__file__).resolve().parent.parent
MB = 1_000_000
INSTALLERS = ("pip", "setuptools", "wheel", "_distutils_hack", "pkg_resources")


def used(*paths: Path) -> int:
    """Bytes on disk, in blocks as ``du`` counts them, directories included."""
    total = 0
    for path in paths:
        total += path.lstat().st_blocks * 512
        for root, folders, files in os.walk(path):
            total += sum(Path(root, name).lstat().st_blocks * 512 for name in [*folders, *files])
    return total


def is_installer(name: str) -> bool:
    """Whether it is pip or what else a fresh environment begins with: not ours."""
    return name.partition("-")[0] in INSTALLERS


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="onb-") as scratch:
        venv, source = Path(scratch, "venv"), Path(scratch, "source")
        # A copy: the build writes beside the sources.
        tracked = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split("\0")
        for name in filter(None, tracked):
            if (ROOT / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, source / name)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        began = time.monotonic()
        child([venv / "bin" / "python", "-m", "pip", "install", "--constraint", ROOT / "constraints.txt", source])
        seconds = time.monotonic() - began
        child([venv / "bin" / "overnight", "--help"])
        packages = next(venv.glob("lib/python3*/site-packages"))
        mine = [entry for entry in packages.iterdir() if not is_installer(entry.name)]
        core, whole = used(*mine) / MB, used(venv) / MB
        print(f"pip install of the core, {seconds:.0f} s, byte code included")
        report("Overnight and what it needs", f"{core:.1f} MB", f"{TARGET_MB} MB", core <= TARGET_MB)
        for entry in sorted(mine, key=used, reverse=True)[:8]:
            report(f"  {entry.name}", f"{used(entry) / MB:.1f} MB")
        report("site-packages with pip", f"{used(packages) / MB:.1f} MB")
        report("the whole environment, with pip", f"{whole:.1f} MB")


if __name__ == "__main__":
    main()
