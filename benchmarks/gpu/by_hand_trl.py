"""transformers' own Trainer with FSDP2, started by hand: what a stage of ``trl`` is compared with.

``srun python by_hand_trl.py ROOT NAME OUT [--steps N]``, one task for each GPU: same model, data, batch and settings as
the pipeline ``ROOT/NAME.yaml`` gives to its stage, with nothing of Overnight in the loop. Rank 0 writes the time at
which each step ended. ``--try MICRO:PASSES:LIGER,...``: none of that, but the rates of some shapes one after the other.
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
    """What torch asks of its environment, from Slurm's; nothing to do where it is there."""
    if "RANK" in os.environ or "SLURM_PROCID" not in os.environ:
        return
    nodes = subprocess.run(
        ["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]], capture_output=True, text=True, check=True
    )
    os.environ |= {
        "RANK": os.environ["SLURM_PROCID"], "WORLD_SIZE": os.environ["SLURM_NTASKS"], "LOCAL_RANK": "0",
        "NODE_RANK": os.environ["SLURM_NODEID"],
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


def clocked() -> Any:
    """What notes when each step ended, and its loss."""
    import torch
    import transformers

    class Clock(transformers.TrainerCallback):
        def __init__(self) -> None:
            self.ended: list[float] = []
            self.losses: list[float] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.ended.append(time.time())

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
            self.losses.extend([float(logs["loss"])] if "loss" in (logs or {}) else [])

    return Clock()


def trainer(given: argparse.Namespace, wanted: dict[str, Any], **more: Any) -> Any:
    """A trainer of transformers for a stage with the settings ``wanted``."""
    import torch
    import transformers
    from torch.distributed.fsdp import MixedPrecisionPolicy

    gpu, world, options = torch.cuda.is_available(), int(os.environ["WORLD_SIZE"]), wanted["options"]
    arguments = transformers.TrainingArguments(
        output_dir=str(given.out.parent / "by-hand"),
        max_steps=given.steps,
        learning_rate=wanted["lr"],
        weight_decay=wanted["weight_decay"],
        per_device_train_batch_size=wanted["micro_batch_size"],
        gradient_accumulation_steps=wanted["batch_size"] // wanted["micro_batch_size"] // world,
        bf16=wanted["precision"] == "bf16",
        optim="adamw_torch_fused",
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=7,
        use_liger_kernel=options.get("liger", False),
        **({"fsdp": True} if gpu else {"use_cpu": True, "ddp_backend": "gloo"}),
    )
    if gpu:  # gradients are summed in fp32, as in the stage
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        arguments.fsdp_plugin_args["mixed_precision_policy"] = policy
    model = transformers.AutoModelForCausalLM.from_pretrained(given.root / "base", dtype=torch.float32)
    return transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=blocks(given.root, wanted["sequence_length"], wanted["batch_size"]),
        data_collator=transformers.default_data_collator,
        **more,
    )


def tried(given: argparse.Namespace, wanted: dict[str, Any]) -> None:
    """One line for each shape of ``--try``: tokens a second and memory of its last three steps."""
    import gc

    import torch

    given.steps, world = 6, int(os.environ["WORLD_SIZE"])
    for shape in given.trial.split(","):
        micro, passes, liger = map(int, shape.split(":"))
        wanted |= {"micro_batch_size": micro, "batch_size": micro * passes * world, "options": {"liger": bool(liger)}}
        torch.cuda.reset_peak_memory_stats()
        found: dict[str, Any] = {"micro": micro, "passes": passes, "liger": bool(liger), "world": world}
        try:
            clock = clocked()
            loop = trainer(given, wanted, callbacks=[clock])
            loop.train()
            seconds = (clock.ended[-1] - clock.ended[2]) / 3
            found |= {"tokens_per_second": wanted["batch_size"] * wanted["sequence_length"] / seconds}
            found |= {"losses": clock.losses, "peak_memory_bytes": torch.cuda.max_memory_allocated()}
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            found["error"] = str(error)[:300]
        loop = None
        gc.collect()
        torch.cuda.empty_cache()
        if os.environ["RANK"] == "0":
            with open(given.out, "a") as stream:
                stream.write(json.dumps(found) + "\n")


def main() -> None:
    """Train, and write ``OUT`` on rank 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("name")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--model", help="as for by_hand.py; not used")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--micro", type=int)
    parser.add_argument("--try", dest="trial")
    given = parser.parse_args()
    meet()
    wanted = json.loads((given.root / f"{given.name}.yaml").read_text())["stages"][given.name]
    wanted |= {"batch_size": given.batch or wanted["batch_size"]}
    wanted |= {"micro_batch_size": given.micro or wanted["micro_batch_size"]}
    if given.trial:
        return tried(given, wanted)
    import torch

    clock = clocked()
    trainer(given, wanted, callbacks=[clock]).train()
    if os.environ["RANK"] == "0":
        found: dict[str, Any] = {"ended": clock.ended, "losses": clock.losses, "world": os.environ["WORLD_SIZE"]}
        if torch.cuda.is_available():
            found["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
            found["peak_reserved_bytes"] = torch.cuda.max_memory_reserved()
        given.out.write_text(json.dumps(found))
    return None


if __name__ == "__main__":
    main()
