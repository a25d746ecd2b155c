"""What a back end declares of itself; the plan on the login node reads it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Memory:
    """What training keeps, for the estimates of the plan: bytes a parameter by precision, as (weights, gradients,
    optimizer with its fp32 weights).

    ``sharded``: what is spread over the replicas: ``none``, ``optimizer`` or ``all``; ``sharded_by``: the option (true
    or false) that says whether the optimizer is. ``fused``: kernels that keep one copy where eager code keeps several.
    ``local``: Megatron's layers without transformer_engine. ``scores``: attention keeps its scores. ``logits``: bytes a
    logit. ``reference``: bytes a parameter of the frozen model of DPO. ``buckets``: bytes a parameter that summing
    gradients over replicas takes beside them. ``finished``: bytes of a weight in a finished checkpoint, by precision.

    What the plan may propose where a model does not fit: ``recompute``, the values of the option of that name that keep
    less, the cheapest first; ``splits``, the options that split a model over GPUs (``tensor_parallel``,
    ``pipeline_parallel``); ``adapters``, whether it has the option ``lora_rank``.

    ``without``: what holds instead where that package is not in the environment.
    """

    states: dict[str, tuple[float, float, float]]
    sharded: str = "none"
    sharded_by: str = ""
    fused: bool = False
    local: bool = False
    scores: bool = False
    logits: float = 8.0
    reference: float = 0.0
    buckets: float = 0.0
    finished: dict[str, int] = field(default_factory=lambda: {"fp32": 4, "bf16": 4})
    recompute: tuple[str | bool, ...] = ()
    splits: tuple[str, ...] = ()
    adapters: bool = False
    without: dict[str, Memory] = field(default_factory=dict)


@dataclass(frozen=True)
class Capabilities:
    """What a back end can do.

    ``launcher``: how its processes start (``python``, ``torchrun``, or ``ray``: one driver beside a Ray cluster over
    all nodes). ``converts``: pairs (from, to) of checkpoint formats, for the kind ``convert``. ``memory``: None where
    plain Adam over whole replicas is a fair guess. ``experimental``: what has not been tried, shown by the plan.
    ``revision``: raised when a change of the module makes results of before invalid; they are made again.
    """

    kinds: frozenset[str]
    formats_in: frozenset[str]
    formats_out: frozenset[str]
    stop: str = "file"
    launcher: str = "python"
    distributed: bool = False
    converts: frozenset[tuple[str, str]] = frozenset()
    memory: Memory | None = None
    experimental: str = ""
    revision: int = 1
