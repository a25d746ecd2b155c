"""The behaviour gate across versions of transformers: a directory that loads differently must not pass.

The older version lives in an environment of its own: the one whose Python OVERNIGHT_TRANSFORMERS4 names, else one made
here from the package index.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from jobs.backends import trl
from jobs.core import seal
from jobs.worker.work import BehaviourDiffers, behaviour_gate
from tests.support import stages

pytestmark = [pytest.mark.train, pytest.mark.network, pytest.mark.full]


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Python of an environment with transformers 4.57 and without torch."""
    given = os.environ.get("OVERNIGHT_TRANSFORMERS4")
    if given:
        return given
    root = tmp_path_factory.mktemp("transformers4")
    subprocess.run([sys.executable, "-m", "venv", str(root)], check=True)
    subprocess.run([str(root / "bin" / "pip"), "install", "-q", "transformers==4.57.6"], check=True, timeout=300)
    return str(root / "bin" / "python")


def behaviour_under(python: str, checkpoint: Path) -> dict[str, Any]:
    code = "import json, sys; from pathlib import Path; from jobs.training import tokenizers; print(json.dumps(tokenizers.behaviour(Path(sys.argv[1]))))"
    made = subprocess.run(
        [python, "-c", code, str(checkpoint)], capture_output=True, text=True, check=True, cwd=stages.ROOT, timeout=120
    )
    found: dict[str, Any] = json.loads(made.stdout)
    return found


def sealed_stage(root: Path, behaviour: dict[str, Any]) -> stages.Stage:
    """A training stage whose parent was sealed with this behaviour."""
    parent = root / "parent"
    seal.seal_directory(
        parent / "output",
        parent / "seal.json",
        kind=seal.SealKind.CHECKPOINT,
        format="hf",
        fingerprint=stages.FINGERPRINT,
        behaviour=behaviour,
    )
    return stages.stage(root / "child", "cpt", "trl", {}, {"checkpoint": parent})


def test_directory_saved_naively_fails_the_gate(tmp_path: Path, older: str) -> None:
    stages.make_tokenizer(tmp_path / "parent" / "output", tokenizer_class="LlamaTokenizerFast")
    sealed = behaviour_under(older, tmp_path / "parent" / "output")
    stage = sealed_stage(tmp_path, sealed)
    with pytest.raises(BehaviourDiffers, match="gives another probe_ids"):
        behaviour_gate(stage.spec, trl)


def test_directory_of_the_generic_class_passes(tmp_path: Path, older: str) -> None:
    stages.make_tokenizer(tmp_path / "parent" / "output")
    sealed = behaviour_under(older, tmp_path / "parent" / "output")
    behaviour_gate(sealed_stage(tmp_path, sealed).spec, trl)
