"""What a back end declares of itself; the plan on the login node reads it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

LOGITS = 13.0
"""Bytes a logit at the peak of a loss by torch: 11.6 to 12.3 on an H200, Llamas of 1.24 and 3.2 billion parameters
(benchmarks/gpu)."""

LLAMA_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a Llama, which get adapters by default; what other models have is found in the model."""


@dataclass(frozen=True)
class Memory:
    """What training keeps, for the estimates of the plan: bytes a parameter by precision, as (weights, gradients,
    optimizer with its fp32 weights).

    ``sharded``: what is spread over the replicas: ``none``, ``optimizer`` or ``all``; ``sharded_by``: the option that
    says so: true or false of the optimizer, or ``full`` and ``none`` of all (of CPT and SFT without adapters).
    ``fused``: kernels that keep one copy where eager code keeps several; ``fused_norms``: of norms alone. ``local``:
    Megatron's layers without transformer_engine. ``scores``: attention keeps its scores. ``logits``: bytes a logit.
    ``reference``: bytes a parameter of the frozen model of DPO, which beside adapters is the model itself. ``buckets``:
    bytes a parameter that summing gradients over replicas takes beside them. ``finished``: bytes of a weight in a
    finished checkpoint, by precision.

    What the plan may propose where a model does not fit: ``recompute``, the values of the option of that name that keep
    less, the cheapest first; ``splits``, the options that split a model over GPUs (``tensor_parallel``,
    ``pipeline_parallel``); ``adapters``, whether it has the option ``lora_rank``; ``whole``: options of whole weights,
    with what they have to be beside adapters.
    ``layers`` get an adapter by default (() is Megatron's four); ``frozen``: bytes of a weight beside adapters, by
    precision, where it is another than that of a trained one, and of one in a layer by the option ``lora_base``.
    ``optimizers``: bytes a parameter by the option ``optimizer``, where they are others. ``lean_by``: the option
    with which layers keep what fused kernels keep, and a loss no logits (``lean``).

    ``without``: what holds instead where that package is not in the environment.
    """

    states: dict[str, tuple[float, float, float]]
    sharded: str = "none"
    sharded_by: str = ""
    fused: bool = False
    fused_norms: bool = False
    local: bool = False
    scores: bool = False
    logits: float = 8.0
    reference: float = 0.0
    buckets: float = 0.0
    finished: dict[str, int] = field(default_factory=lambda: {"fp32": 4, "bf16": 4})
    recompute: tuple[str | bool, ...] = ()
    splits: tuple[str, ...] = ()
    adapters: bool = False
    whole: dict[str, Any] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    frozen: dict[str, float] = field(default_factory=dict)
    optimizers: dict[str, float] = field(default_factory=dict)
    lean_by: str = ""
    lean: bool = False
    without: dict[str, Memory] = field(default_factory=dict)

    def installed(self, packages: Collection[str] | None) -> Memory:
        """What is kept where these packages are installed. None: the environment cannot be seen (an image, modules of
        the nodes); all that it depends on are taken to be there."""
        for package, instead in self.without.items():
            if packages is not None and package not in packages:
                return instead.installed(packages)
        return replace(self, without={})

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Memory:
        """From plain JSON, as the probe and ``plan.json`` have it.

        Raises:
            KeyError, TypeError: it is none.
        """
        found: dict[str, Any] = {name: tuple(it) if isinstance(it, list) else it for name, it in value.items()}
        found["states"] = {precision: tuple(each) for precision, each in value["states"].items()}
        found["without"] = {package: cls.of(each) for package, each in value.get("without", {}).items()}
        return cls(**found)


FSDP = Memory(
    {"fp32": (4, 4, 8), "bf16": (4, 4, 8)}, sharded="all", logits=LOGITS, recompute=(True,), splits=("tensor_parallel",)
)
"""Of fp32 weights that FSDP spreads over the replicas."""


@dataclass(frozen=True)
class Capabilities:
    """What a back end can do.

    ``launcher``: how its processes start (``python``, ``torchrun``, or ``ray``: one driver beside a Ray cluster over
    all nodes). ``converts``: pairs (from, to) of checkpoint formats, for the kind ``convert``. ``memory``: None where
    plain Adam over whole replicas is a fair guess. ``experimental``: what has not been tried, shown by the plan.
    ``saves``: the format that ``of_save`` of the module gives one of its saves; empty: it cannot.
    ``revision``: raised when a change of the module makes results of before invalid; they are made again.
    ``needs``: packages whose versions ``probe`` says, and without which nothing runs; ``extra``: ours that has them.
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
    saves: str = ""
    revision: int = 1
    needs: frozenset[str] = frozenset()
    extra: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain data, which ``of`` reads; sets are sorted."""
        return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in asdict(self).items()}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Capabilities:
        """From what ``as_json`` made, and others may have added to.

        Raises:
            KeyError, TypeError: it is none.
        """
        found = {entry.name: value[entry.name] for entry in fields(cls) if entry.name in value}
        for name, given in found.items():
            if isinstance(given, list):
                found[name] = frozenset(tuple(each) if isinstance(each, list) else each for each in given)
        if found.get("memory") is not None:
            found["memory"] = Memory.of(found["memory"])
        return cls(**found)
