"""A stage loads no library that it does not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from jobs.training import startup
startup.leave_out_sklearn()
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
from transformers.generation.candidate_generator import AssistedCandidateGenerator
assert "transformers.models.llama.modeling_llama" in sys.modules
print(sorted({"sklearn", "pandas"} & set(sys.modules)))
"""


def test_transformers_loads_no_scikit_learn() -> None:
    pytest.importorskip("sklearn", reason="it is not installed here")
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr[-2000:]
