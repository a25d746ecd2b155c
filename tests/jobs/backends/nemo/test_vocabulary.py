"""NeMo's tokenizer of another model is refused before training. Needs NeMo's environment (``make venv-nemo``)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from jobs.core.verdict import FailureClass
from tests.support import environments, stages

SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from types import SimpleNamespace
from jobs.backends.nemo import model
from jobs.core import verdict
from jobs.encoding.load import WrongVocabulary

for embedded in (4000, 300):
    try:
        found = len(model.tokenizer(Path(sys.argv[2]), SimpleNamespace(config=SimpleNamespace(vocab_size=embedded))).tokenizer)
        print("FOUND", json.dumps([found, ""]))
    except WrongVocabulary as error:
        print("FOUND", json.dumps([verdict.classify(error).value, str(error)]))
"""


@pytest.mark.nvidia
@pytest.mark.full
def test_more_ids_than_embeddings(tmp_path: Path) -> None:
    venv = environments.installed("nemo", "nemo")
    python = environments.on_cpu(venv, tmp_path / "venv") / "bin/python"
    stages.make_tokenizer(tmp_path / "hf")
    command = [str(python), "-c", SCRIPT, str(environments.ROOT), str(tmp_path / "hf")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    found = [json.loads(line.removeprefix("FOUND ")) for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert len(found) == 2, done.stderr[-3000:]
    (ids, _), (failure, text) = found
    assert 300 < ids <= 4000
    assert failure == FailureClass.TOKENIZER.value
    assert f"the tokenizer has the id {ids - 1}, and the model embeds the ids below 300" in text
