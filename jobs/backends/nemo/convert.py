"""Hugging Face directory to NeMo checkpoint and back, by NeMo's own converters; the result is compared by its logits.

Both ways the written checkpoint is loaded again and its logits on fixed prompts are compared with those of the source,
in fp32 on both sides (``run`` of the back end turns TF32 off). Besides, no weight may have changed: NeMo's exporter
must give back each tensor that its importer was given, to the bit, and the exported files must hold what the exporter
gave. Weights keep the type of the source (bf16 after bf16 training).

Where NeMo keeps an output layer of its own for a model that had none (Qwen2), the exported model has one, too.

NeMo's ``export_ckpt`` fails after bf16 training: it builds the target in the type that the model's description names
(fp32) while the weights come as bf16 ("dtype mismatch"). Here both sides are put into the type of the stored weights.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_utils import no_init_weights

from jobs.backends.nemo import compat, layout, model
from jobs.core.spec import StageSpec
from jobs.training import finished, models, rope, tokenizers
from jobs.training.gguf import ConversionFailed, check_same_tokenizer, compare_logits, compare_weights, probe_ids
from jobs.training.interface import Result, WorkContext

if TYPE_CHECKING:
    from nemo.collections.llm import GPTModel

STEPS = 3


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Convert the input ``source``, on rank 0.

    Raises:
        ConversionFailed: other weights or logits, or a tokenizer that is not the same afterwards.
    """
    if ctx.rank != 0:
        return Result("done", step=STEPS)
    given = spec.inputs["source"]
    convert = import_hf if given.format == "hf" else export_hf
    metrics = convert(given.output, ctx.output, lambda step, phase: ctx.progress.report(step, STEPS, phase))
    return Result("done", step=STEPS, metrics=metrics)


def import_hf(source: Path, output: Path, report: Any = lambda step, phase: None) -> dict[str, float]:
    """Write the Hugging Face directory ``source`` as a NeMo checkpoint; largest logit difference and tolerance.

    Raises: see ``run``.
    """
    read = rope.readable(source)
    importer = model.importer(read)
    with compat.local_configs():
        target = importer.init()
    config = models.config_of(read)
    dtype = models.type_of(config)
    _set_type(target, dtype)
    if getattr(target.config, "window_size", None) is not None:
        # As many tokens as transformers attends to: Megatron's window does not count the token itself.
        _describe(target, window_size=(config.sliding_window - 1, 0))
    theirs = models.load_model(read, dtype)
    trainer = importer.nemo_setup(target, _single(ckpt_save_optimizer=False, always_save_context=True))
    target.to(dtype)  # the norms of the local layers do not follow params_dtype; NeMo copies between equal types only
    with compat.local_names():
        importer.convert_state(theirs, target)
    report(1, "converted")
    importer.nemo_save(output, trainer)
    tokenizers.carry_as_hf(layout.tokenizer_directory(source), output)
    report(2, "saved")
    probes = probe_ids(source)
    weights = models.digests(theirs)
    expected = models.logits(theirs.float().to(_device()), probes)
    del target, theirs
    _tear_down(trainer)

    layout.check(output)
    where = f"{output} against {source}"
    written, trainer = load_nemo(output)
    found = nemo_logits(written, probes)
    compare_weights(weights, models.digests(_to_hf(written, output)), where)
    _tear_down(trainer)
    report(3, "compared")
    check_same_tokenizer(layout.tokenizer_directory(source), layout.tokenizer_directory(output))
    return compare_logits(expected, found, where)


def export_hf(source: Path, output: Path, report: Any = lambda step, phase: None) -> dict[str, float]:
    """Write the NeMo checkpoint ``source`` as a Hugging Face directory; largest logit difference and tolerance.

    Raises: see ``run``.
    """
    layout.check(source)
    dtype = weights_type(source)
    ours, trainer = load_nemo(source)
    probes = probe_ids(layout.tokenizer_directory(source))
    expected = nemo_logits(ours, probes)
    target = _to_hf(ours, source).to(dtype)
    report(1, "converted")
    weights = models.digests(target)
    target.save_pretrained(output)
    finished.finish(layout.tokenizer_directory(source), output)
    del target, ours
    _tear_down(trainer)
    report(2, "saved")

    where = f"{output} against {source}"
    written = models.load_model(output)
    compare_weights(weights, models.digests(written), where)
    found = models.logits(written.to(_device()), probes)
    report(3, "compared")
    check_same_tokenizer(layout.tokenizer_directory(source), layout.tokenizer_directory(output))
    return compare_logits(expected, found, where)


def _to_hf(ours: GPTModel, checkpoint: Path) -> PreTrainedModel:
    """The model of transformers, in fp32, that NeMo's exporter makes of ``ours``, which ``checkpoint`` holds."""
    exporter = ours.exporter("hf", checkpoint)
    exporter.trust_remote_code = False  # as in model.importer
    with no_init_weights():  # leaves tied weights apart, as the converter expects them
        config = _hf_config(checkpoint, exporter)
        config.tie_word_embeddings = bool(ours.config.share_embeddings_and_output_weights)
        target = AutoModelForCausalLM.from_config(config, torch_dtype=torch.float32)
    with compat.local_names(), compat.local_configs():  # the converter reads the model's description again
        converted: PreTrainedModel = exporter.convert_state(ours.cpu(), target)
    converted.tie_weights()
    return converted


def load_nemo(checkpoint: Path) -> tuple[GPTModel, Any]:
    """The model of a NeMo checkpoint in fp32 on the CPU, and the trainer that holds it.

    NeMo's ``nemo_load`` builds the model in the type of its description; all of the rest is as there.
    """
    from nemo.lightning import _strategy_lib
    from nemo.lightning.io import load_context

    with compat.local_configs():
        found: GPTModel = load_context(checkpoint, subpath="model")
    _set_type(found, torch.float32)
    found.config.perform_initialization = False
    trainer = _single(ddp="pytorch", setup_optimizers=False)
    trainer.strategy.connect(found)
    trainer.strategy.setup_environment()
    with _strategy_lib.megatron_cpu_init_context(found.config):
        found.configure_model()
    trainer.strategy.setup(trainer)
    trainer.strategy.load_checkpoint(checkpoint)
    found.float()
    return found, trainer


def _single(**strategy: Any) -> Any:
    """A trainer of one process on the CPU, as NeMo's converters make it, but told so.

    Left to itself Lightning reads Slurm's variables inside a job and waits for a rendezvous at the node's name.
    """
    from lightning.fabric.plugins.environments import LightningEnvironment
    from nemo.lightning import MegatronStrategy, Trainer

    return Trainer(
        devices=1,
        accelerator="cpu",
        strategy=MegatronStrategy(**strategy),
        plugins=[LightningEnvironment()],
        logger=False,
        enable_checkpointing=False,
    )


def nemo_logits(found: GPTModel, probes: list[list[int]]) -> list[torch.Tensor]:
    """Logits of each probe, (tokens, padded vocabulary), on the GPU where there is one."""
    device = _device()
    found.eval().to(device)
    results = []
    with torch.inference_mode():
        for ids in probes:
            length = len(ids)
            hidden = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)[None, None]
            position = torch.arange(length, device=device)[None]
            output = found(torch.tensor([ids], device=device), position, hidden)
            results.append(output[0].float().cpu())
    return results


def weights_type(checkpoint: Path) -> torch.dtype:
    """Type of the weights stored in a NeMo checkpoint: that of most of its numbers."""
    from torch.distributed.checkpoint import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    sizes: dict[torch.dtype, int] = {}
    for entry in FileSystemReader(checkpoint / layout.WEIGHTS).read_metadata().state_dict_metadata.values():
        if isinstance(entry, TensorStorageMetadata):
            dtype = entry.properties.dtype
            sizes[dtype] = sizes.get(dtype, 0) + entry.size.numel()
    if not sizes:
        raise ConversionFailed(f"{checkpoint}: no tensors in {layout.WEIGHTS}")
    return max(sizes, key=lambda dtype: sizes[dtype])


def _set_type(found: GPTModel, dtype: torch.dtype) -> None:
    """Make the description of the model say ``dtype``, in the object and in what is written of it, and no FP8: that of
    a model trained in it names it, and its kernels take rows of a multiple of 8 tokens only."""
    _describe(
        found,
        fp8=None,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        autocast_dtype=dtype,
        bf16=dtype is torch.bfloat16,
        fp16=dtype is torch.float16,
    )


def _describe(found: GPTModel, **values: Any) -> None:
    for target in (found.config, getattr(found.config, "__io__", None)):
        if target is not None:
            for name, value in values.items():
                setattr(target, name, value)


def _hf_config(source: Path, exporter: Any) -> Any:
    """The configuration that the model came with, else the one that NeMo derives from its own."""
    if (source / layout.HF / "config.json").is_file():
        return models.config_of(rope.readable(source / layout.HF))
    with compat.local_configs():
        return exporter.config


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _tear_down(trainer: Any) -> None:
    """Take NeMo's process groups down, so that a second model can be built in this process."""
    from nemo.lightning.base import teardown

    teardown(trainer)
    gc.collect()
