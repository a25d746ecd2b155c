"""Every back end through one contract: what the planner and the lifecycle ask of it, and nothing more."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import jobs.backends
from jobs import backends
from jobs.backends import Capabilities
from launch.kinds import DATA_KINDS, FORMATS, TRAINING_KINDS

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(module.name for module in pkgutil.iter_modules(jobs.backends.__path__))
KINDS = {*DATA_KINDS, *TRAINING_KINDS, "evaluate", "convert"}
OTHER_FORMATS = {"toy", "gguf", "wheels", "metrics", "corpus", "instructions", "preferences", "tokens"}


@pytest.mark.parametrize("name", NAMES)
def test_capabilities(name: str) -> None:
    backend = backends.load(name)
    able = backend.CAPABILITIES
    assert name == backend.NAME
    assert isinstance(able, Capabilities)
    assert able.kinds
    assert able.kinds <= KINDS
    assert able.formats_in | able.formats_out <= {*FORMATS, *OTHER_FORMATS}
    assert able.launcher in ("python", "torchrun", "ray")
    assert not able.converts or "convert" in able.kinds
    for source, target in able.converts:
        assert source != target
        assert {source, target} <= {*FORMATS, *OTHER_FORMATS}


@pytest.mark.parametrize("name", NAMES)
def test_probe_answers_or_says_what_is_missing(name: str) -> None:
    try:
        found = backends.load(name).probe()
    except ImportError as error:
        assert "install" in str(error) or "import" in str(error)
        return
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in found.items())


def test_loading_and_probing_imports_no_framework() -> None:
    """The planner asks on the login node; importing torch there takes seconds and gigabytes."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from jobs import backends\n"
        f"for name in {NAMES!r}:\n"
        "    try: backends.load(name).probe()\n"
        "    except ImportError: pass\n"
        "heavy = {'torch', 'transformers', 'nemo', 'ray', 'megatron', 'lightning'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_an_unknown_back_end_is_a_lookup_error() -> None:
    with pytest.raises(LookupError, match="no back end"):
        backends.load("nosuch")
