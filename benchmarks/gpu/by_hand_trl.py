"""transformers' own Trainer with FSDP2, started by hand: what a stage of ``trl`` is held against.

``srun python by_hand_trl.py ROOT OUT --model SIZE [--steps N]``, one task for each GPU: same model, data, batch and
settings as ``inputs.fsdp`` gives to the stage, with nothing of Overnight in the loop. Rank 0 writes the time at which
each step ended.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any


def meet() -> None:
    """What torch asks of its environment, from Slurm's."""
    nodes = subprocess.run(
        ["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]], capture_output=True, text=True, check=True
    )
    os.environ |= {
        "RANK": os.environ["SLURM_PROCID"], "WORLD_SIZE": os.environ["SLURM_NTASKS"], "LOCAL_RANK": "0",
        "MASTER_ADDR": nodes.stdout.split()[0], "MASTER_PORT": str(20000 + int(os.environ["SLURM_JOB_ID"]) % 1000),
    }  # fmt: skip


def blocks(root: Path, length: int, batch: int) -> Any:
    """The texts as sequences of ``length`` ids, in an order of their own; whole batches only, since the trainer would
    make a short step of the rest of each epoch."""
    import torch
    from inputs import COUNT, texts
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(root / "base" / "tokenizer.json"))
    ids = [token for text in texts(COUNT) for token in [*tokenizer.encode(text).ids, 2]]
    count = len(ids) // length // batch * batch
    whole = torch.tensor(ids[: count * length]).view(count, length)
    return [{"input_ids": row, "labels": row} for row in whole]


def main() -> None:
    """Train, and write ``OUT`` on rank 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="3b")
    parser.add_argument("--steps", type=int, default=25)
    given = parser.parse_args()
    meet()
    from inputs import SIZES

    size, world = SIZES[given.model], int(os.environ["WORLD_SIZE"])
    import torch
    import transformers

    ended: list[float] = []
    losses: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            ended.append(time.time())

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
            losses.extend([float(logs["loss"])] if "loss" in (logs or {}) else [])

    gpu = torch.cuda.is_available()
    arguments = transformers.TrainingArguments(
        output_dir=str(given.out.parent / "by-hand"),
        max_steps=given.steps,
        learning_rate=3e-4,
        weight_decay=0.1,
        per_device_train_batch_size=size.micro,
        gradient_accumulation_steps=size.batch // size.micro // world,
        bf16=size.precision == "bf16",
        optim="adamw_torch_fused",
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=7,
        **({"fsdp": True} if gpu else {"use_cpu": True, "ddp_backend": "gloo"}),
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(given.root / "base", dtype=torch.float32)
    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=blocks(given.root, size.length, size.batch),
        data_collator=transformers.default_data_collator,
        callbacks=[Clock()],
    )
    trainer.train()
    if os.environ["RANK"] == "0":
        found: dict[str, Any] = {"ended": ended, "losses": losses, "world": world}
        if gpu:
            found["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
            found["peak_reserved_bytes"] = torch.cuda.max_memory_reserved()
        given.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
