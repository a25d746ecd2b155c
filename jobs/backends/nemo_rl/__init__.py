"""Back end ``nemo_rl``: SFT and DPO by NeMo-RL, as an external program in a checkout or container, on a Ray cluster.

NeMo-RL is not on PyPI (0.0.0 there is an empty placeholder): ``nemo_rl`` must be importable in the stage's environment.
``checkout`` finds it and its version, ``schemas`` says how that version wants to be told things, ``render`` writes its
configuration, ``texts`` makes the rows that it reads, ``validate`` has it read by that version's own parser,
``supervise`` and ``child`` run it and seal its saves, ``convert`` turns its checkpoint into a Hugging Face directory.
Format ``dcp``: ``policy/weights`` (PyTorch distributed checkpoint), ``config.yaml`` and ``training_info.json`` as
NeMo-RL writes them, and ``hf/``: configuration and tokenizer files of the model that it started from.
"""

from __future__ import annotations

from pathlib import Path

from jobs.core.capabilities import FSDP, Capabilities
from jobs.core.spec import StageSpec
from jobs.training import checkpoints, interface
from jobs.training.checkpoints import Completeness
from jobs.training.interface import ProcessShape, Rendered, Result, WorkContext, needed

NAME = "nemo_rl"
CAPABILITIES = Capabilities(
    kinds=frozenset({"sft", "dpo", "convert"}),
    formats_in=frozenset({"hf"}),
    formats_out=frozenset({"dcp"}),
    launcher="ray",
    distributed=True,
    converts=frozenset({("dcp", "hf")}),
    memory=FSDP,  # the reference model waits on the host
    # 1 took another rotary base than transformers 5 writes, with an older transformers;
    # 2 left out the last rows of each epoch
    revision=3,
    experimental="0.6.0 ran on one H100; several GPUs and other versions were not tried by us",
)

PACKAGES = ("torch", "transformers", "ray", "omegaconf", "hydra-core")


def probe() -> dict[str, str]:
    """Versions of NeMo-RL and of the packages that decide results.

    Raises:
        ImportError: no NeMo-RL here, one of a version that is not known, or a package missing.
    """
    from jobs.backends.nemo_rl import checkout

    return {"nemo_rl": checkout.find().version, **needed(*PACKAGES)}


def rendered(spec: StageSpec, shape: ProcessShape) -> Rendered:
    """The program of the checkout that is installed here and its configuration, checked by that version's own parser
    where this environment can import it.

    Raises:
        BadSettings: what the stage was told does not fit, or that version refuses it.
        ImportError: no NeMo-RL here.
    """
    if spec.kind == "convert":
        return interface.in_process(spec, shape, "python")
    from jobs.backends.nemo_rl import checkout, settings, start

    settings.read(spec.kind, spec.settings)  # also where there is no NeMo-RL
    return start.of_stage(spec, shape, checkout.find())


def completeness(directory: Path) -> Completeness:
    """Whether ``directory`` is a whole checkpoint of the format ``dcp``, with its step, or of ``hf`` (converted)."""
    from jobs.backends.nemo_rl import steps

    if (directory / "config.json").is_file():
        return checkpoints.hugging_face(directory)
    problem = steps.problem(directory)
    if problem is not None:
        return Completeness(problem=problem)
    try:
        return Completeness(step=steps.total(directory))
    except ValueError as error:
        return Completeness(problem=str(error))


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Train or convert; called once, beside the head of the Ray cluster."""
    if spec.kind == "convert":
        from jobs.backends.nemo_rl import convert

        return convert.run(spec, ctx)
    from jobs.backends.nemo_rl import supervise

    return supervise.run(spec, ctx)
