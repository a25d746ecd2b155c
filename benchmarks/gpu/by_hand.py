"""NeMo's own recipe ``llama32_1b`` or ``llama32_3b``, started by hand: what a stage of Overnight is compared with.

``python by_hand.py ROOT NAME OUT [--steps N]``: same model, data, batch and settings as the pipeline ``ROOT/NAME.yaml``
of ``inputs.py`` gives to its stage, but nothing of Overnight in the loop; by ``srun``, one task for each GPU, where
there are several. What transformer_engine would bring is switched off in the same way where
that is not installed, since the recipe does not start without it. Writes the time at which each step ended.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

from by_hand_trl import meet  # noqa: E402


def recipe(given: Any, tokenizer: Any, prefix: str, steps: int) -> Any:
    """The recipe with our model's vocabulary, our data and no validation and no checkpoint."""
    import nemo_run as run
    from inputs import SIZES
    from lightning.fabric.plugins.environments import LightningEnvironment
    from nemo import lightning as nl
    from nemo.collections import llm

    size = SIZES[given.model]
    wanted = json.loads((given.root / f"{given.shape}.yaml").read_text())["stages"][given.shape]
    world = int(os.environ.get("WORLD_SIZE", "1"))
    made = llm.llama32_3b if given.model == "3b" else llm.llama32_1b
    found = made.pretrain_recipe(name="by-hand", dir=None, num_nodes=world, num_gpus_per_node=1)
    config = found.model.config
    config.seq_length, config.vocab_size = wanted["sequence_length"], size.vocabulary
    config.num_layers, config.hidden_size, config.ffn_hidden_size = size.layers, size.hidden, size.ffn
    config.num_attention_heads, config.num_query_groups = size.heads, size.groups
    config.kv_channels = size.hidden // size.heads
    recompute = wanted.get("options", {}).get("recompute", "none")
    if recompute != "none":
        config.recompute_granularity = recompute
    if recompute == "full":
        config.recompute_method, config.recompute_num_layers = "uniform", 1
    found.model.tokenizer = tokenizer
    found.data = run.Config(
        llm.PreTrainingDataModule,
        paths=[prefix],
        seq_length=wanted["sequence_length"],
        global_batch_size=given.batch or wanted["batch_size"],
        micro_batch_size=given.micro or wanted["micro_batch_size"],
        tokenizer=tokenizer,
        num_workers=0,
        split="1,0,0",
        index_mapping_dir=str(given.out.parent / "index"),
    )
    from jobs.backends.nemo import compat, recipes

    # As in the stage, which could not save it without transformer_engine.
    found.optim.config.use_distributed_optimizer = compat.distributed_optimizer(None)
    if world == 1 or not found.optim.config.use_distributed_optimizer:
        found.trainer.strategy.ddp.overlap_param_gather = False  # only with the distributed optimizer
        found.trainer.strategy.ddp.overlap_grad_reduce = False
    found.trainer.strategy.ddp.check_for_nan_in_grad = not given.unchecked
    found.trainer.max_steps = steps
    found.trainer.limit_val_batches, found.trainer.val_check_interval = 0, None
    found.trainer.num_sanity_val_steps = 0
    found.trainer.log_every_n_steps = 1
    found.trainer.plugins = [found.trainer.plugins, run.Config(LightningEnvironment)]
    for name, value in recipes.FP8[given.fp8 or wanted.get("options", {}).get("fp8", "none")].items():
        setattr(found.trainer.plugins[0], name, value)
    if given.model == "tiny":
        found.trainer.accelerator, found.trainer.plugins = (
            "cpu",
            [run.Config(nl.MegatronMixedPrecision, precision="32"), run.Config(LightningEnvironment)],
        )
        found.trainer.strategy.process_group_backend = "gloo"
        found.optim.config.bf16 = False
    found.trainer.enable_checkpointing = False
    found.log.ckpt = None
    found.log.log_dir = str(given.out.parent / "nemo")
    found.log.tensorboard = None
    found.resume = None
    if given.start is not None:
        restore = run.Config(nl.RestoreConfig, path=str(given.start), load_artifacts=False)
        found.resume = run.Config(nl.AutoResume, restore_config=restore)
    return found


def used(torch: Any) -> int:
    """Bytes taken on the device, by whomever."""
    free, total = torch.cuda.mem_get_info()
    return int(total - free)


def corpus(given: Any) -> str:
    """Prefix of the files that a stage has written; where none has run yet, of the same texts written here."""
    made = sorted(given.root.glob("workspace/runs/*/stages/*/nemo/data/corpus.idx"))
    if made:
        return str(made[0].with_suffix(""))
    import numpy
    import torch
    from inputs import COUNT, texts
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(given.root / "base" / "tokenizer.json"))
    prefix = given.out.with_suffix("")
    if os.environ.get("RANK", "0") != "0":
        while not Path(f"{prefix}.idx").exists():
            time.sleep(0.5)
        return str(prefix)
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=numpy.uint16)
    for text in texts(COUNT):
        ids = tokenizer.encode(text).ids
        builder.add_document(torch.from_numpy(numpy.array(ids, dtype=numpy.uint16)), [len(ids)])
    builder.finalize(f"{prefix}.idx")
    return str(prefix)


def look(module: Any, spoiled: list[str], ended: list[float]) -> None:
    """Note which parameters and outputs of layers are no numbers in the first step, in the order they come."""
    import torch

    def bad(value: Any) -> bool:
        return isinstance(value, torch.Tensor) and value.is_floating_point() and not bool(value.isfinite().all())

    def note(what: str) -> None:
        if len(spoiled) < 40:
            spoiled.append(what)

    for name, value in module.named_parameters():
        if bad(value.data):
            note(f"parameter {name}")
    for name, layer in module.named_modules():
        if not list(layer.children()) or "self_attention" in name or name.endswith("mlp"):

            def after(layer: Any, inputs: Any, output: Any, name: str = name) -> None:
                values = output if isinstance(output, tuple) else (output,)
                if not ended and any(bad(value) for value in values):
                    note(f"output of {name}")

            layer.register_forward_hook(after)


def main() -> None:
    """Train and write ``OUT``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="as given to inputs.py, after a stage has run there")
    parser.add_argument("shape", help="a pipeline of inputs.py with a stage of its name")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--model", default="1b")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--micro", type=int)
    parser.add_argument("--fp8", help="as in a stage; that of the pipeline where it is left out")
    parser.add_argument("--start", type=Path, help="weights of an imported checkpoint, instead of new ones")
    parser.add_argument("--unchecked", action="store_true", help="go on with numbers that are none, and say where")
    given = parser.parse_args()
    given.out = given.out.resolve()
    meet()
    began = time.time()

    import fiddle
    import torch
    from lightning.pytorch.callbacks import Callback
    from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer

    from jobs.backends.nemo import compat

    ended: list[float] = []
    losses: list[float] = []
    spoiled: list[str] = []

    class Clock(Callback):
        def on_train_start(self, trainer: Any, module: Any) -> None:
            if given.unchecked:
                look(module, spoiled, ended)

        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if given.unchecked and not ended:
                for name, value in args[0].named_parameters():
                    if not bool(getattr(value, "main_grad", value).isfinite().all()):
                        spoiled.append(f"gradient of {name}")
                torch.cuda.reset_peak_memory_stats()
            losses.append(float(trainer.callback_metrics.get("reduced_train_loss", "nan")))
            ended.append(time.time())

    prefix = corpus(given)
    with compat.local_configs():
        run = fiddle.build(recipe(given, AutoTokenizer(str(given.root / "base")), prefix, given.steps))
        run.keywords["trainer"].callbacks.append(Clock())
        run()
    found = {"started": began, "ended": ended, "shape": given.shape, "model": given.model, "losses": losses}
    found["spoiled"] = spoiled[:40]
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        found |= {
            "last": time.time(),
            "peak_memory_bytes": torch.cuda.max_memory_allocated(),
            "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
            "used_bytes": used(torch),
        }
    if os.environ.get("RANK", "0") == "0":
        given.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
