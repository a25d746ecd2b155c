"""Inputs of the runs on a GPU machine: a random Llama with a byte-level tokenizer, texts, pipelines, a profile.

``python inputs.py DIRECTORY --venvs DIRECTORY --model tiny|small|1b|3b``; needs torch, transformers and tokenizers. The
models are random on purpose: what is shown is chain, memory and speed, not what a model learns.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

COUNT = 20_000
"""Texts: of the large shapes a batch needs that many."""

WORDS = (
    "checkpoint", "node", "queue", "seal", "step", "loss", "night", "model", "data", "token", "limit", "hour", "save",
    "resume", "chain", "gate", "rank", "share",
)  # fmt: skip


@dataclass(frozen=True)
class Size:
    """A Llama, and how its chain trains it. ``nemo_rl``: DPO by NeMo-RL, else by TRL (which needs no GPU)."""

    layers: int
    hidden: int
    heads: int
    groups: int
    ffn: int
    vocabulary: int
    dtype: str = "bfloat16"
    steps: int = 200
    batch: int = 64
    micro: int = 16
    length: int = 1024
    precision: str = "bf16"
    nemo_rl: bool = True


SIZES = {
    "tiny": Size(2, 64, 4, 2, 192, 1024, "float32", 40, 8, 4, 64, "fp32", nemo_rl=False),  # a trial on a CPU
    "small": Size(12, 768, 12, 4, 2304, 1024),
    "1b": Size(16, 2048, 32, 8, 8192, 128256),  # the architecture of Llama-3.2-1B
    "3b": Size(28, 3072, 24, 8, 8192, 128256, batch=4, micro=1, length=4096),  # that of Llama-3.2-3B
}

SHAPES: dict[str, dict[str, Any]] = {
    "selective": {"sequence_length": 2048, "batch_size": 8, "micro_batch_size": 4,
                  "options": {"recompute": "selective"}},
    "full": {"sequence_length": 2048, "batch_size": 8, "micro_batch_size": 8, "options": {"recompute": "full"}},
    "kept": {"sequence_length": 1024, "batch_size": 16, "micro_batch_size": 2, "options": {"recompute": "none"}},
    "lora": {"sequence_length": 2048, "batch_size": 8, "micro_batch_size": 4,
             "options": {"recompute": "selective", "lora_rank": 16}},
    "best": {"sequence_length": 2048, "batch_size": 64, "micro_batch_size": 8, "options": {"recompute": "none"}},
    "wide": {"sequence_length": 2048, "batch_size": 64, "micro_batch_size": 16, "options": {"recompute": "none"}},
    "guide": {"sequence_length": 4096, "batch_size": 4, "micro_batch_size": 1, "options": {"recompute": "none"}},
    "long": {"sequence_length": 4096, "batch_size": 32, "micro_batch_size": 2, "options": {"recompute": "none"}},
    "fp8": {"sequence_length": 4096, "batch_size": 16, "micro_batch_size": 2,
            "options": {"recompute": "none", "fp8": "delayed"}},
    "fp8-tensorwise": {"sequence_length": 4096, "batch_size": 16, "micro_batch_size": 2,
                       "options": {"recompute": "none", "fp8": "tensorwise"}},
}  # fmt: skip
"""Shapes of the large models whose memory and step time are compared with the estimate; they can be timed by hand, too.
The last six are for transformer_engine, whose attention keeps no scores; the last four also for the 3b model."""


def texts(count: int) -> list[str]:
    """Sentences of a small world, each with some regularity to learn."""
    return [
        f"The {WORDS[n % 18]} number {n} waits for the {WORDS[n * 5 % 18]} of {n % 7} o'clock and meets the "
        f"{WORDS[n * 7 % 18]}. After {n} comes {n + 1}, and the {WORDS[n * 11 % 18]} goes on until the morning."
        for n in range(count)
    ]


def write_model(directory: Path, size: Size) -> None:
    """A Llama with random weights, and the tokenizer that its texts need.

    Its configuration names no padding id: transformers sets the embedding of that id to zero, and here it would be the
    end of a document. A sequence that begins with a vector of zeros has zeros in every layer, whose norms multiply its
    gradient by ``1 / sqrt(eps)`` each: 1e26 after 12 layers, and no number after 16.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    directory.mkdir(parents=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=["<unk>", "<s>", "</s>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts(COUNT), trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "pad_token": "</s>", "model_max_length": 2048, "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    torch.manual_seed(1)
    dtype = getattr(torch, size.dtype)
    shape = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.ffn,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.groups,
        head_dim=size.hidden // size.heads,
        max_position_embeddings=max(2048, size.length),
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
        dtype=size.dtype,
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(shape)
    model.cpu().to(dtype).save_pretrained(directory)


def more(size: Size) -> dict[str, Any]:
    """What the chain leaves out: adapters and packed sequences in NeMo, SFT by NeMo-RL, and DPO by NeMo-RL over a time
    limit; all from the base model, each evaluated (which exports it)."""
    whole = chain(size)
    sft = {**whole["sft"], "checkpoint": "base", "batch_size": 16, "micro_batch_size": min(4, size.micro)}
    packed = {**sft, "options": {"packed": True}, "batch_size": 8, "micro_batch_size": 1, "sequence_length": 256}
    stages: dict[str, Any] = {name: whole[name] for name in ("corpus", "pairs", "prefs")}
    stages |= {"lora": {**sft, "lr": 1e-3, "options": {"lora_rank": 16}}, "packed": packed}
    if size.nemo_rl:
        stages["rl-dpo"] = {**whole["dpo"], "checkpoint": "base", "steps": 120, "time": "0:02:30"}
        stages["rl-sft"] = {**stages["rl-dpo"], "kind": "sft", "data": "pairs", "steps": 8, "time": "0:10:00"}
    trained = [name for name in stages if name not in ("corpus", "pairs", "prefs")]
    perplexity = {"perplexity": {"data": "corpus", "limit": 10}}
    for name in trained:
        stages[f"eval-{name}"] = {"kind": "evaluate", "backend": "trl", "checkpoint": name, "tasks": perplexity}
    return stages


def chain(size: Size) -> dict[str, Any]:
    """NeMo CPT and SFT, export, DPO, evaluation; the time limit of ``cpt`` is shorter than its training."""
    training = {
        "backend": "nemo", "lr": 3e-4, "batch_size": size.batch, "micro_batch_size": size.micro,
        "sequence_length": size.length, "precision": size.precision,
    }  # fmt: skip
    perplexity = {"perplexity": {"data": "corpus", "limit": 20}}
    dpo: dict[str, Any] = {
        "kind": "dpo", "checkpoint": "sft", "data": "prefs", "steps": 8, "lr": 1e-5, "batch_size": 8,
        "micro_batch_size": 4, "sequence_length": 256, "schedule": "constant", "precision": size.precision,
        "backend": "nemo_rl" if size.nemo_rl else "trl",
    }  # fmt: skip
    preferred = {"preferences": {"data": "prefs", "limit": 40}}
    return {
        "corpus": {"kind": "corpus", "from": "./raw", "document_chars": 400, "split": {"group": "document"}},
        "pairs": {"kind": "instructions", "from": "./pairs.jsonl"},
        "prefs": {"kind": "preferences", "from": "./prefs.jsonl"},
        "baseline": {
            "kind": "evaluate",
            "backend": "trl",
            "checkpoint": "base",
            "tasks": {**perplexity, **preferred},
        },
        "cpt": {
            "kind": "cpt",
            "checkpoint": "base",
            "data": "corpus",
            **training,
            "steps": size.steps,
            "time": "0:02:00",
            "schedule": "constant",
        },
        "sft": {"kind": "sft", "checkpoint": "cpt", "data": "pairs", **training, "steps": 20},
        "dpo": dpo,
        "final": {
            "kind": "evaluate",
            "backend": "trl",
            "checkpoint": "dpo",
            "tasks": {**perplexity, **preferred},
            "compare_to": "baseline",
        },
    }


def shape(name: str, size: Size, steps: int) -> dict[str, Any]:
    """A short CPT of one shape."""
    wanted = dict(SHAPES[name]) if size.layers > 2 else {"sequence_length": 64, "batch_size": 8, "micro_batch_size": 4}
    return {
        "kind": "cpt",
        "backend": "nemo",
        "checkpoint": "base",
        "data": "corpus",
        "steps": steps,
        "lr": 3e-4,
        "weight_decay": 0.1,
        "precision": size.precision,
        **wanted,
    }


def sharded(size: Size) -> dict[str, Any]:
    """CPT and SFT by TRL, each process with its part of the model, then DPO and evaluation; one node in two is lost."""
    whole = chain(size)
    trl = {"backend": "trl", "precision": size.precision, "save_every": max(1, size.steps // 10)}
    cpt = {**whole["cpt"], **trl, "options": {"shard": "full"}, "time": "0:10:00", "batch_size": min(32, size.batch)}
    sft = {
        **whole["sft"],
        **trl,
        "options": {"shard": "full"},
        "steps": size.steps,
        "batch_size": 16,
        "micro_batch_size": 4,
    }
    dpo = {**whole["dpo"], **trl, "steps": size.steps, "save_every": 1 + size.steps // 10, "micro_batch_size": 2}
    return {**{name: whole[name] for name in ("corpus", "pairs", "prefs", "baseline")},
            "cpt": cpt, "sft": sft, "dpo": dpo, "final": whole["final"]}  # fmt: skip


def across(size: Size) -> dict[str, Any]:
    """NeMo over two nodes: CPT with each layer on both, SFT with a replica on each, a node lost in both; then the way
    back, DPO by TRL and evaluation."""
    whole = chain(size)
    split = {"tensor_parallel": 2, "sequence_parallel": True} if size.layers > 2 else {"tensor_parallel": 2}
    cpt = {**whole["cpt"], "time": "0:10:00", "steps": max(20, size.steps // 2), "save_every": 20, "options": split}
    sft = {**whole["sft"], "steps": 60, "save_every": 15, "batch_size": 16, "micro_batch_size": 4}
    dpo = {**whole["dpo"], "backend": "trl", "micro_batch_size": 2, "steps": 20}
    return {**{name: whole[name] for name in ("corpus", "pairs", "prefs", "baseline")},
            "cpt": cpt, "sft": sft, "dpo": dpo, "final": whole["final"]}  # fmt: skip


def adapters(size: Size) -> dict[str, Any]:
    """SFT and DPO by TRL with LoRA and DoRA, a copy of the model on each node."""
    whole = sharded(size)
    lora = {"options": {"lora_rank": 16}, "steps": 40, "save_every": 100, "lr": 1e-3}
    dora = {"options": {"lora_rank": 16, "lora_dora": True}, "steps": 20, "lr": 1e-4}
    return {**{name: whole[name] for name in ("corpus", "pairs", "prefs")},
            "sft": {**whole["sft"], **lora, "checkpoint": "base"}, "dpo": {**whole["dpo"], **dora},
            "final": {name: value for name, value in whole["final"].items() if name != "compare_to"}}  # fmt: skip


def fewer(size: Size) -> dict[str, Any]:
    """CPT by TRL over two nodes, which ends in the middle and goes on with one."""
    whole = sharded(size)
    return {"corpus": whole["corpus"], "fewer": {**whole["cpt"], "lr": 1e-4}}


def ray(size: Size) -> dict[str, Any]:
    """DPO by NeMo-RL over two nodes of a Ray cluster, one of which is lost; then the way back and evaluation."""
    whole = chain(size)
    dpo = {**whole["dpo"], "checkpoint": "base", "steps": 40, "save_every": 10}
    return {"prefs": whole["prefs"], "dpo": dpo,
            "final": {**evaluation(whole), "tasks": {"preferences": {"data": "prefs", "limit": 40}}}}  # fmt: skip


def evaluation(whole: dict[str, Any]) -> dict[str, Any]:
    """The last stage of a chain, compared with nothing."""
    return {name: value for name, value in whole["final"].items() if name != "compare_to"}


def auto(size: Size, nodes: int) -> dict[str, Any]:
    """CPT, SFT and SFT with LoRA by NeMo AutoModel; CPT loses a node, SFT is cancelled and submitted again.
    A single process of it trains in fp32 only."""
    whole = chain(size)
    common = {"backend": "automodel", "save_every": 10, "precision": size.precision if nodes > 1 else "fp32"}
    cpt = {**whole["cpt"], **common, "time": "0:10:00", "batch_size": min(32, size.batch), "steps": 60}
    sft = {**whole["sft"], **common, "batch_size": 16, "micro_batch_size": 4, "steps": 60}
    # First, while the other has not ended: LoRA on the base model, which needs nothing before it.
    lora = {**sft, "checkpoint": "base", "lr": 1e-3, "steps": 40, "options": {"lora_rank": 16}}
    measured = {**evaluation(whole), "tasks": PERPLEXITY}
    return {**{name: whole[name] for name in ("corpus", "pairs")}, "lora": lora, "cpt": cpt, "sft": sft,
            "final": {**measured, "checkpoint": "sft"}, "final-lora": {**measured, "checkpoint": "lora"}}  # fmt: skip


def eight(size: Size) -> dict[str, Any]:
    """CPT by NeMo in FP8, a replica on each node, of which one is lost; then the way back and evaluation."""
    whole = chain(size)
    cpt = {**whole["cpt"], "time": "0:10:00", "steps": 80, "save_every": 20, "options": {"fp8": "delayed"}}
    return {"corpus": whole["corpus"], "cpt": cpt,
            "final": {**evaluation(whole), "checkpoint": "cpt", "tasks": PERPLEXITY}}  # fmt: skip


PERPLEXITY = {"perplexity": {"data": "corpus", "limit": 20}}


def fsdp(size: Size, steps: int, liger: bool) -> dict[str, Any]:
    """A short CPT by TRL, its model spread over the processes."""
    return {
        "kind": "cpt", "backend": "trl", "checkpoint": "base", "data": "corpus", "steps": steps, "lr": 3e-4,
        "weight_decay": 0.1, "precision": size.precision, "sequence_length": size.length, "batch_size": size.batch,
        "micro_batch_size": size.micro, "save_every": 10 * steps,
        "options": {"shard": "full", **({"liger": True} if liger else {})},
    }  # fmt: skip


def bits(size: Size, steps: int) -> dict[str, dict[str, Any]]:
    """What bitsandbytes holds in fewer bits, on one GPU: QLoRA, and all weights with an optimizer of 8 bits."""
    one = {**fsdp(size, steps, False), "nodes": 1, "batch_size": 8, "micro_batch_size": 1 if size.layers > 20 else 4}
    lora = {"lora_rank": 16, "lora_base": "nf4"}
    return {"qlora": {**one, "options": {"recompute": True, **lora}},
            "adamw8": {**one, "options": {"recompute": True, "optimizer": "adamw_8bit"}}}  # fmt: skip


def profile(root: Path, venvs: Path, gpus: int, nodes: int, gpu: str, mem: str, partition: str) -> dict[str, Any]:
    """``nodes`` for a training stage, each with a GPU, of which the plan may use what CUDA shows."""
    resources: dict[str, Any] = {"default": {"cpus": 1, "time": "0:10:00", "mem": "2G"}}
    if gpus:
        resources["default"] |= {"cpus": 4, "mem": mem, "gpus_per_node": 1}
        resources |= {kind: {"gpus_per_node": 0, "mem": "4G"} for kind in ("corpus", "instructions", "preferences")}
        resources["convert"] = {"gpus_per_node": 0}  # beside the evaluation that has the one GPU
    for kind in ("cpt", "sft", "dpo") if nodes > 1 else ():
        resources[kind] = {"nodes": nodes}
    named = {"nemo": "nemo", "nemo_rl": "nemo_rl", "automodel": "automodel", "trl": "core"}
    model, memory = gpu.split(":")
    # Several GPUs of a virtual machine may share a switch with others: no multicast.
    quiet = {"NCCL_NVLS_ENABLE": "0", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1", "NVSHMEM_DISABLE_NVLS": "1"}
    return {
        "name": "gpu",
        "executor": "slurm",
        "env": quiet if nodes > 1 else {},
        "workspace": str(root / "workspace"),
        "poll_seconds": 1.0,
        "lead": "0:15",
        "partition": partition,
        "partitions": {partition: {"gpus": 1, "gpu_model": model, "gpu_memory": memory} if gpus else {}},
        "executors": {"default": "submitit", "training": "submitit"},
        "environments": {name: {"venv": str(venvs / venv)} for name, venv in named.items()},
        "resources": resources,
    }


def main() -> None:
    """Write everything into the directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--venvs", type=Path, required=True)
    parser.add_argument("--model", choices=SIZES, default="small")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=1, help="of a training stage")
    parser.add_argument("--gpu", default="h100:79G", help="model and memory of a GPU")
    parser.add_argument("--mem", default="40G", help="of a node, for a stage with a GPU")
    parser.add_argument("--steps", type=int, default=25, help="of each shape")
    parser.add_argument("--partition", default="batch")
    parser.add_argument("--liger", action="store_true", help="the kernels of liger-kernel in the stage fsdp")
    given = parser.parse_args()
    root, size = given.directory.resolve(), SIZES[given.model]
    if not (given.venvs / "nemo_rl").is_dir():
        size = replace(size, nemo_rl=False)
    (root / "raw").mkdir(parents=True)
    for part in range(20):
        (root / "raw" / f"{part:02d}.txt").write_text("\n\n".join(texts(COUNT)[part::20]))
    numbers = range(600)
    rows = [{"prompt": f"After {n} comes ", "completion": f"{n + 1}, as every night."} for n in numbers]
    (root / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"prompt": f"After {n} comes ", "chosen": f"{n + 1}.", "rejected": f"{n - 1}."} for n in numbers]
    (root / "prefs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    venvs = given.venvs.resolve()
    made = profile(root, venvs, given.gpus, given.nodes, given.gpu, given.mem, given.partition)
    (root / "gpu.yaml").write_text(json.dumps(made, indent=1))
    pipelines = {"chain": chain(size), "more": more(size), "sharded": sharded(size)}
    pipelines |= {"across": across(size), "fewer": fewer(size), "adapters": adapters(size)}
    corpus = {"corpus": chain(size)["corpus"]}
    prefs, dpo = pipelines["chain"]["prefs"], pipelines["chain"]["dpo"]
    pipelines["dpo"] = {"prefs": prefs, "dpo": {**dpo, "checkpoint": "base"}}
    pipelines |= {"ray": ray(size), "auto": auto(size, given.nodes), "eight": eight(size)}
    pipelines["fsdp"] = {**corpus, "fsdp": fsdp(size, given.steps, given.liger)}
    for name, stage in bits(size, given.steps).items():
        pipelines[name] = {**corpus, name: stage}
    for name in SHAPES:
        pipelines[name] = {**corpus, name: shape(name, size, given.steps)}
    for name, stages in pipelines.items():
        found = {"name": name, "seed": 7, "model": {"base": str(root / "base")}, "stages": stages}
        (root / f"{name}.yaml").write_text(json.dumps(found, indent=1))
    write_model(root / "base", size)


if __name__ == "__main__":
    main()
