"""A configuration before NeMo-RL's own parser: ``python validate.py CONFIG`` with the stage's Python.

Run as a script, in a process of its own: NeMo-RL takes half a minute to import and starts threads. Releases before 0.7
describe their configuration by types that nothing checks; for those only what loading itself refuses is found here, and
the recorded keys (``schemas``) do the rest.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from jobs.settings import BadSettings

REFUSED, NOT_ASKED = 3, 4
"""Exit codes: the parser refuses; it cannot be asked here (a package of it is missing)."""


def ask(config: Path, python: str = sys.executable, seconds: float = 300.0) -> bool:
    """Let the installed NeMo-RL read ``config``; whether it could be asked.

    Raises:
        BadSettings: what it says against it.
    """
    command = [python, str(Path(__file__)), str(config)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    if answer.returncode == REFUSED:
        said = [line for line in answer.stdout.splitlines() if line.strip()]
        raise BadSettings(f"this NeMo-RL refuses the configuration of the stage: {' '.join(said)[:1500]}")
    return answer.returncode == 0


def main(path: str) -> int:
    """Load the configuration and build what NeMo-RL builds of it before anything starts."""
    import os

    os.environ.setdefault("NO_VCS_VERSION", "1")  # NeMo-RL would run git in its checkout
    try:
        from nemo_rl.algorithms.dpo import MasterConfig
        from nemo_rl.utils.config import load_config
        from omegaconf import OmegaConf
    except ImportError as error:
        print(f"{type(error).__name__}: {error}")
        return NOT_ASKED
    try:
        MasterConfig(**OmegaConf.to_container(load_config(path), resolve=True))
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.path[:] = [entry for entry in sys.path if entry != str(Path(__file__).resolve().parent)]
    sys.exit(main(sys.argv[1]))
