"""Whether vLLM gives the first tokens that transformers gives; only where vLLM is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.training import gguf
from jobs.training.gguf import ConversionFailed
from jobs.training.interface import versions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS = 16
SECONDS = 1800.0

CODE = """
import json, sys
from vllm import LLM, SamplingParams
directory, prompts, tokens = json.loads(sys.stdin.read())
model = LLM(model=directory, enforce_eager=True, dtype="float32", max_model_len=512)
how = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
found = model.generate([{"prompt_token_ids": ids} for ids in prompts], how)
print("\\n" + json.dumps([list(one.outputs[0].token_ids) for one in found]))
"""


def answers(directory: Path, model: PreTrainedModel) -> str:
    """What came of it, in a line. Raises ConversionFailed: vLLM fails, or gives other tokens."""
    if "vllm" not in versions("vllm"):
        return "vLLM: not tried, it is not installed in the environment of the export"
    prompts = gguf.probe_ids(directory)
    wanted = [_greedy(model, ids) for ids in prompts]
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        input=json.dumps([str(directory), prompts, TOKENS]),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode:
        raise ConversionFailed(f"vLLM cannot run {directory}: {done.stderr.strip()[-800:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    wrong = [index for index, (one, other) in enumerate(zip(wanted, found, strict=True)) if one != other]
    if wrong:
        raise ConversionFailed(f"vLLM gives other tokens than transformers for {len(wrong)} of {len(prompts)} texts")
    name = f"vLLM {versions('vllm')['vllm']}"
    return f"{name}: the first {TOKENS} tokens of {len(prompts)} fixed texts are those of transformers"


def _greedy(model: PreTrainedModel, ids: list[int]) -> list[int]:
    """The most probable tokens, one after the other."""
    import torch

    found = list(ids)
    with torch.inference_mode():
        for _ in range(TOKENS):
            found.append(int(model(torch.tensor([found])).logits[0, -1].argmax()))
    return found[len(ids) :]
