"""Inputs of the chain on a GPU machine: a random Llama with a byte-level tokenizer, texts, pairs, pipeline, profile.

``python inputs.py DIRECTORY --venv VENV [--steps N] [--cpt-time H:MM:SS] [--profile-base FILE]``; needs torch,
transformers and tokenizers. The model is random on purpose: what is shown is the chain, not what a model learns.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

WORDS = (
    "checkpoint", "node", "queue", "seal", "step", "loss", "night", "model", "data", "token", "limit", "hour", "save",
    "resume", "chain", "gate", "rank", "share",
)  # fmt: skip


def texts(count: int) -> list[str]:
    """Sentences of a small world, each with some regularity to learn."""
    return [
        f"The {WORDS[n % 18]} number {n} waits for the {WORDS[n * 5 % 18]} of {n % 7} o'clock and meets the "
        f"{WORDS[n * 7 % 18]}. After {n} comes {n + 1}, and the {WORDS[n * 11 % 18]} goes on until the morning."
        for n in range(count)
    ]


def write_model(directory: Path, hidden: int, layers: int, dtype: str) -> None:
    """A Llama with random weights, and the tokenizer that its texts need."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    directory.mkdir(parents=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts(2000), trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "pad_token": "</s>", "model_max_length": 2048, "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    torch.manual_seed(1)
    shape = LlamaConfig(
        vocab_size=1024, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 64, num_key_value_heads=max(1, hidden // 256), max_position_embeddings=2048,
        bos_token_id=1, eos_token_id=2, pad_token_id=2, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(shape).to(getattr(torch, dtype))
    model.config.torch_dtype = getattr(torch, dtype)
    model.save_pretrained(directory)


def main() -> None:
    """Write everything into the directory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--venv", required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--cpt-time", default="0:01:00")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--devcluster", action="store_true")
    given = parser.parse_args()
    root = given.directory.resolve()
    write_model(root / "base", given.hidden, given.layers, "bfloat16" if given.precision == "bf16" else "float32")
    (root / "raw").mkdir()
    for part in range(20):
        (root / "raw" / f"{part:02d}.txt").write_text("\n\n".join(texts(2000)[part::20]))
    rows = [{"prompt": f"After {n} comes ", "completion": f"{n + 1}, as every night."} for n in range(600)]
    (root / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    training = {
        "backend": "nemo", "lr": 3e-4, "batch_size": 8, "micro_batch_size": 8, "sequence_length": 256,
        "precision": given.precision,
    }  # fmt: skip
    perplexity = {"perplexity": {"data": "corpus", "limit": 20}}
    pipeline = {
        "name": "nemo-night", "seed": 7, "model": {"base": str(root / "base")},
        "stages": {
            "corpus": {"kind": "corpus", "from": str(root / "raw"), "document_chars": 400},
            "pairs": {"kind": "instructions", "from": str(root / "pairs.jsonl")},
            "baseline": {"kind": "evaluate", "backend": "trl", "checkpoint": "base", "tasks": perplexity},
            "cpt": {
                "kind": "cpt", "checkpoint": "base", "data": "corpus", **training, "steps": given.steps,
                "time": given.cpt_time, "schedule": "constant",
            },
            "sft": {"kind": "sft", "checkpoint": "cpt", "data": "pairs", **training, "steps": 30},
            "final": {
                "kind": "evaluate", "backend": "trl", "checkpoint": "sft", "tasks": perplexity,
                "compare_to": "baseline",
            },
        },
    }  # fmt: skip
    profile = {
        "name": "gpu", "executor": "slurm", "workspace": str(root / "workspace"), "poll_seconds": 1.0, "lead": "0:15",
        "devcluster": given.devcluster,
        "partition": "batch" if given.devcluster else None,
        "executors": {"default": "submitit", "training": "submitit"},
        "environments": {name: {"venv": given.venv} for name in ("nemo", "trl")},
        "resources": {"default": {"cpus": 2, "time": "0:10:00"}},
    }  # fmt: skip
    if not given.devcluster:
        profile["resources"]["default"] |= {"cpus": 4, "gpus_per_node": 1, "mem": "24G"}
        for kind in ("corpus", "instructions"):
            profile["resources"][kind] = {"gpus_per_node": 0}
    (root / "pipeline.yaml").write_text(json.dumps(pipeline, indent=1))
    kept = {name: value for name, value in profile.items() if value is not None}
    (root / "gpu.yaml").write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
