"""A configuration before NeMo-RL's own parser: ``python validate.py CONFIG KIND`` with the stage's Python.

Run as a script, in a process of its own: NeMo-RL takes half a minute to import and starts threads. Releases before 0.7
describe their configuration by types that nothing checks; for those only what loading itself refuses is found here, and
the recorded keys (``schemas``) do the rest.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REFUSED, NOT_ASKED = 3, 4
"""Exit codes: the parser refuses; it cannot be asked here (a package of it is missing)."""


@dataclass(frozen=True)
class ParserAnswer:
    """Whether NeMo-RL's parser has read a configuration; ``reason``: why not."""

    read: bool
    reason: str = ""


def ask(config: Path, kind: str, python: str = sys.executable, seconds: float = 300.0) -> ParserAnswer:
    """Let the installed NeMo-RL read ``config``, of a kind of stage.

    Raises:
        BadSettings: what it says against it.
    """
    from jobs.training.settings import BadSettings  # not at the top: the script runs where only NeMo-RL is importable

    command = [python, str(Path(__file__)), str(config), kind]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return ParserAnswer(False, f"no answer within {seconds:.0f} s")
    said = [line for line in answer.stdout.splitlines() if line.strip()]
    if answer.returncode == REFUSED:
        raise BadSettings(f"this NeMo-RL refuses the configuration of the stage: {' '.join(said)[:1500]}")
    if answer.returncode == 0:
        return ParserAnswer(True)
    last = said if answer.returncode == NOT_ASKED else [line for line in answer.stderr.splitlines() if line.strip()]
    return ParserAnswer(False, last[-1][:300] if last else f"exit code {answer.returncode}")


def main(path: str, kind: str) -> int:
    """Load the configuration and build what NeMo-RL builds of it before anything starts."""
    import os

    os.environ.setdefault("NO_VCS_VERSION", "1")  # NeMo-RL would run git in its checkout
    try:
        algorithm = importlib.import_module(f"nemo_rl.algorithms.{kind}")
        from nemo_rl.utils.config import load_config
        from omegaconf import OmegaConf
    except ImportError as error:
        print(f"{type(error).__name__}: {error}")
        return NOT_ASKED
    try:
        algorithm.MasterConfig(**OmegaConf.to_container(load_config(path), resolve=True))
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.path[:] = [entry for entry in sys.path if entry != str(Path(__file__).resolve().parent)]
    sys.exit(main(*sys.argv[1:3]))
