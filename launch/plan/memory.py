"""What a training stage needs: memory per GPU, arithmetic, and the size of its checkpoints. Pure: no file, no torch.

Sources of the formulas:

* activations: Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models"
  (https://arxiv.org/abs/2205.05198), table 2, counted tensor by tensor so that it holds for gated MLPs and grouped
  queries, too; with a GELU of width 4h it is their ``s b h (34 + 5 a s / h)``;
* bytes a parameter: Rajbhandari et al. 2020, "ZeRO" (https://arxiv.org/abs/1910.02054), section 3.1: 16 with Adam in
  mixed precision, 18 where gradients are summed in fp32 (documentation of Megatron-LM's distributed optimizer);
* arithmetic: Chowdhery et al. 2022, "PaLM" (https://arxiv.org/abs/2204.02311), appendix B: 6 N + 12 L H Q T a token;
* adapters: Hu et al. 2021, "LoRA" (https://arxiv.org/abs/2106.09685), section 4.2: frozen weights have no gradients and
  no optimizer.

What is counted is what must be there; what CUDA, NCCL and a fragmented allocator take is ``RESERVE``, an assumption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobs.core import capabilities

RESERVE = 2 * 1024**3
"""Bytes per GPU for the CUDA context, NCCL's buffers and fragmentation. Assumed, not measured."""

UTILISATION = (0.2, 0.55)
"""Share of the peak that training reaches: a range, until a run of that shape has been seen. The least is assumed; the
most was measured on H200 GPUs (benchmarks/gpu)."""

UTILISATION_OF_SCORES = (0.05, 0.3)
"""The same where attention writes its scores out several times: 9 and 14 % were measured on an H100 (NeMo without
transformer_engine, Llamas of 83 million and 1.24 billion parameters: benchmarks/gpu/results)."""


@dataclass(frozen=True)
class Model:
    """The numbers of a decoder-only transformer that decide what it costs."""

    layers: int
    hidden: int
    heads: int
    groups: int
    head: int
    ffn: int
    vocabulary: int
    tied: bool
    gated: bool = True
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    head_norms: bool = False

    @property
    def queries(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head

    @property
    def keys(self) -> int:
        """Width of all key heads together."""
        return self.groups * self.head

    @property
    def layer_parameters(self) -> int:
        """Of one layer: attention, MLP, two RMS norms."""
        attention = 2 * self.hidden * (self.queries + self.keys)
        attention += (self.queries + 2 * self.keys) * self.qkv_bias + self.hidden * self.out_bias
        attention += 2 * self.head * self.head_norms
        projections = 3 if self.gated else 2
        mlp = projections * self.hidden * self.ffn
        mlp += ((projections - 1) * self.ffn + self.hidden) * self.mlp_bias
        return attention + mlp + 2 * self.hidden

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of the linear layers, in the names of Megatron and of Hugging Face."""
        hidden, queries, keys, ffn = self.hidden, self.queries, self.keys, self.ffn
        return {
            "linear_qkv": (hidden, queries + 2 * keys), "linear_proj": (queries, hidden),
            "linear_fc1": (hidden, (2 if self.gated else 1) * ffn), "linear_fc2": (ffn, hidden),
            "q_proj": (hidden, queries), "k_proj": (hidden, keys), "v_proj": (hidden, keys),
            "o_proj": (queries, hidden), "gate_proj": (hidden, ffn), "up_proj": (hidden, ffn),
            "down_proj": (ffn, hidden),
        }  # fmt: skip

    def adapter_parameters(self, rank: int, targets: Sequence[str] = ()) -> int:
        """Of the adapters of one layer: ``rank`` per input and output of ``targets`` (() is all of Megatron's)."""
        return rank * sum(sum(self.linears.get(name, (0, 0))) for name in targets or MEGATRON)

    @property
    def embedding(self) -> int:
        """Parameters of the embedding; as many again in the head where it is not tied."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All of them, as ``sum(p.numel() for p in model.parameters())`` counts."""
        return self.layers * self.layer_parameters + self.embedding * (1 if self.tied else 2) + self.hidden


MEGATRON = ("linear_qkv", "linear_proj", "linear_fc1", "linear_fc2")
"""Megatron's four linear layers of a layer."""

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
"""``model_type`` of a Hugging Face configuration whose parameters are counted exactly here."""


def model_of(config: Mapping[str, Any]) -> Model | None:
    """From the content of a Hugging Face ``config.json``; None: an architecture that is not known here. Raises
    KeyError, TypeError: a number of a known architecture is missing."""
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        return None
    heads = int(config["num_attention_heads"])
    bias = bool(config.get("attention_bias", False))
    return Model(
        layers=int(config["num_hidden_layers"]),
        hidden=int(config["hidden_size"]),
        heads=heads,
        groups=int(config.get("num_key_value_heads") or heads),
        head=int(config.get("head_dim") or int(config["hidden_size"]) // heads),
        ffn=int(config["intermediate_size"]),
        vocabulary=int(config["vocab_size"]),
        tied=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=bias or kind == "qwen2",
        out_bias=bias,
        mlp_bias=bool(config.get("mlp_bias", False)),
        head_norms=kind == "qwen3",
    )


def utilisation(keeps: capabilities.Memory) -> tuple[float, float]:
    """Least and most of the peak that is expected."""
    return UTILISATION_OF_SCORES if keeps.scores else UTILISATION


PLAIN = capabilities.Memory({"fp32": (4, 4, 8), "bf16": (4, 4, 8)}, logits=capabilities.LOGITS, reference=4.0)
"""Of a back end that declares nothing: plain Adam over whole replicas."""


def with_settings(declared: capabilities.Memory | None, settings: Mapping[str, Any]) -> capabilities.Memory:
    """What a back end keeps for a stage with these settings."""
    if declared is None:
        return PLAIN
    if (size := declared.optimizers.get(str(settings.get("optimizer")))) is not None:
        states = {name: (weight, gradient, size) for name, (weight, gradient, _) in declared.states.items()}
        declared = replace(declared, states=states)
    if settings.get(declared.lean_by):
        declared = replace(declared, logits=0.0, lean=True)
    wanted = settings.get(declared.sharded_by)
    if wanted is None:
        return declared
    return replace(
        declared, sharded={"full": "all", "none": "none"}.get(str(wanted), "optimizer" if wanted else "none")
    )


@dataclass(frozen=True)
class Shape:
    """How a stage runs. ``micro_batch`` and ``batch`` count sequences (DPO: two a row), ``length`` tokens of one. With
    a ``lora_rank`` only adapters beside the layers ``lora_targets`` (() is all) are trained; ``lora_base``: what the
    frozen weights are kept as. ``masked``: attention gets a mask, as for rows of several lengths."""

    world: int
    batch: int
    micro_batch: int
    length: int
    precision: str = "fp32"
    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    sequence_parallel: bool = False
    recompute: str = "none"
    reference: bool = False
    lora_rank: int = 0
    lora_targets: tuple[str, ...] = ()
    lora_dropout: bool = False
    lora_dora: bool = False
    lora_base: str = "whole"
    masked: bool = False

    @property
    def passes(self) -> int:
        """Passes of each replica whose gradients a step adds up; at least 1."""
        return max(1, self.batch // (self.micro_batch * self.replicas))

    @property
    def replicas(self) -> int:
        """Data-parallel size; at least 1."""
        return max(1, self.world // (self.tensor * self.pipeline * self.context))


def recompute_of(settings: Mapping[str, Any]) -> str:
    """``none``, ``selective`` or ``full``; a back end that knows only true and false means all layers by true."""
    found = settings.get("recompute", "none")
    if found is None or isinstance(found, bool):
        return "full" if found else "none"
    return str(found)


def shape_of(kind: str, settings: Mapping[str, Any], nodes: int, processes_per_node: int) -> Shape:
    """From the settings of a planned training stage. Raises KeyError: no batch size or sequence length."""
    world = nodes * processes_per_node
    tensor, pipeline, context = (
        int(settings.get(name) or 1) for name in ("tensor_parallel", "pipeline_parallel", "context_parallel")
    )
    sequences = 2 if kind == "dpo" else 1
    rows = int(settings["batch_size"])
    share = max(1, rows // max(1, world // (tensor * pipeline * context)))
    micro = min(int(settings.get("micro_batch_size") or (1 if settings.get("packed") else share)), share)
    return Shape(
        world,
        rows * sequences,
        micro * sequences,
        int(settings["sequence_length"]),
        str(settings.get("precision", "fp32")),
        tensor,
        pipeline,
        context,
        bool(settings.get("sequence_parallel", False)),
        recompute_of(settings),
        kind == "dpo",
        int(settings.get("lora_rank") or 0),
        tuple(settings.get("lora_targets") or ()),
        bool(settings.get("lora_dropout")),
        bool(settings.get("lora_dora")),
        str(settings.get("lora_base") or "whole"),
        kind != "cpt",
    )


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on the GPU that needs most."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    reserve: float = RESERVE

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.reserve


def layer_activations(model: Model, shape: Shape, keeps: capabilities.Memory, dropout: bool = False) -> float:
    """Bytes that one layer keeps of one micro batch for its backward pass, on one GPU, without recomputation.

    Fused (elements a token): inputs of both norms and of both linear layers behind them (4h), queries and output of
    attention (2q), keys and values (2k), gate, up and product (3f; a plain MLP: 2f). Of code that is not fused see
    ``_eager``. Megatron's local layers repeat keys and values, too (queries, both, and the output: 4q), and copy the
    linear half of the gate (5f); of the scores they keep the softmax in the type of training, while other code keeps
    its input and a mask as well. Their norms are taken to be CUDA's fused kernel. ``dropout`` adds two masks of one
    byte. Adapters add what lies between their factors and, with dropout, a copy and a mask of each input; that frozen
    layers without one need not keep their inputs is left out.
    """
    size = 2.0 if shape.precision == "bf16" else 4.0
    tokens = shape.micro_batch * shape.length / shape.context
    h, q, k, f = model.hidden, model.queries, model.keys, model.ffn
    if keeps.fused or keeps.lean:
        whole, split = 4.0 * h, 2.0 * q + 2.0 * k + (3.0 if model.gated else 2.0) * f
    elif keeps.local:
        whole, split = 4.0 * h, 4.0 * q + (5.0 if model.gated else 2.0) * f
    else:
        whole, split = _eager(model, shape, keeps)
    masks = 2.0 * h if dropout else 0.0
    over = shape.tensor
    kept = (whole * size + masks) / (over if shape.sequence_parallel else 1) + split * size / over
    scores = 0.0
    if keeps.scores and shape.recompute != "selective":  # softmax in and out, and the mask of its dropout
        scores = (size if keeps.local else 2.0 * size + 1.0) * model.heads * shape.length / over
    return tokens * (kept + scores + _adapter_activations(model, shape, keeps, size))


def _eager(model: Model, shape: Shape, keeps: capabilities.Memory) -> tuple[float, float]:
    """Elements a token that a layer of transformers keeps: of the width of the model, and of attention and MLP.

    In fp32 each norm keeps its input, the normalised input, and what it gives to linear layers (6h). In bf16 a norm
    computes in fp32, so that its input counts twice (8h). Under autocast all between the layers is fp32, and each of
    the five linear layers behind a norm makes a bf16 copy of its own (13h); beside adapters each of the seven does, and
    frozen norms keep less (9h, q). Fused norms keep what goes in and out of them (4h), and whoever has them here
    computes without autocast. Keys and values are repeated for every query head where there is a mask.
    """
    h, q, k, f = model.hidden, model.queries, model.keys, model.ffn
    attention = 5.0 * q if shape.masked else 2.0 * (q + k)
    width = 6.0
    if keeps.fused_norms:
        width = 4.0
    elif shape.precision == "bf16":
        width = 9.0 if shape.lora_rank else 8.0 if keeps.sharded == "all" else 13.0
        attention += q if shape.lora_rank else 0.0
    return width * h, attention + (4.0 if model.gated else 2.0) * f


def _adapter_activations(model: Model, shape: Shape, keeps: capabilities.Memory, size: float) -> float:
    """Bytes a token of the adapters of one layer. A weight that is split into direction and size keeps two outputs."""
    if not shape.lora_rank:
        return 0.0
    targets = shape.lora_targets or MEGATRON
    inputs, outputs = (sum(model.linears.get(name, (0, 0))[side] for name in targets) for side in (0, 1))
    dropped = inputs * ((size if _is_megatron(keeps) else 0.0) + 1.0) if shape.lora_dropout else 0.0
    return len(targets) * shape.lora_rank * size + dropped + (2.0 * size * outputs if shape.lora_dora else 0.0)


def _is_megatron(keeps: capabilities.Memory) -> bool:
    return keeps.fused or keeps.local


def activations(model: Model, shape: Shape, keeps: capabilities.Memory) -> float:
    """Bytes of all layers on the first pipeline stage, which holds most micro batches. With full recomputation: the
    inputs of the layers; ``memory`` adds the layer being recomputed, which comes after the logits are freed."""
    each = layer_activations(model, shape, keeps)
    layers = model.layers / shape.pipeline
    waiting = min(shape.pipeline, shape.passes)
    if shape.recompute != "full":
        return each * layers * waiting
    size = 2.0 if shape.precision == "bf16" else 4.0
    inputs = shape.micro_batch * shape.length / shape.context * model.hidden * size
    if shape.sequence_parallel:
        inputs /= shape.tensor
    return inputs * layers * waiting


def memory(model: Model, shape: Shape, keeps: capabilities.Memory) -> MemoryEstimate:
    """Bytes on the GPU that needs most: the first pipeline stage (activations) or the last (logits)."""
    weight, gradient, optimizer = keeps.states[shape.precision]
    layers = -(-model.layers // shape.pipeline)
    ends = model.embedding + model.hidden
    if shape.pipeline == 1 and not model.tied:
        ends += model.embedding
    held = (layers * model.layer_parameters + ends) / shape.tensor
    over = shape.replicas
    everything, states = (over if keeps.sharded == "all" else 1), (over if keeps.sharded != "none" else 1)
    trained = held
    weights = held * (weight + (keeps.reference if shape.reference and not shape.lora_rank else 0.0))
    if shape.lora_rank:
        trained = layers * model.adapter_parameters(shape.lora_rank, shape.lora_targets) / shape.tensor
        frozen = keeps.frozen.get(shape.precision) or weight
        in_layers = layers * model.layer_parameters / shape.tensor
        weights = (held - in_layers) * frozen + in_layers * keeps.frozen.get(shape.lora_base, frozen) + trained * weight
    weights = weights / everything + _computed_in(model, shape, keeps, held)
    buckets = trained * (keeps.buckets if over > 1 and everything == 1 else 0.0)
    gradients = trained * gradient
    kept = activations(model, shape, keeps)
    logits = shape.micro_batch * shape.length / shape.context * model.vocabulary / shape.tensor * keeps.logits
    if shape.recompute == "full":  # first the logits, then one layer after the other
        again = layer_activations(model, shape, keeps)
        if again > logits or shape.pipeline > 1:
            kept += again
            logits = logits if shape.pipeline > 1 else 0.0
    if shape.pipeline > 1:  # the last stage has the logits, and one micro batch waiting
        last = kept / min(shape.pipeline, shape.passes) + logits
        kept, logits = (last - logits, logits) if last > kept else (kept, 0.0)
    if not _is_megatron(keeps) and shape.passes == 1:  # they come while activations go
        gradients = max(0.0, gradients / everything - kept - logits)
    return MemoryEstimate(weights, gradients + buckets, trained * optimizer / states, kept, logits)


def _computed_in(model: Model, shape: Shape, keeps: capabilities.Memory, held: float) -> float:
    """Bytes of the copies of ``held`` weights by which torch computes: bf16 ones of all of them under autocast, which
    the backward pass needs; where weights are gathered, or layers computed again, those of the ends and two layers."""
    is_bf16 = shape.precision == "bf16"
    if _is_megatron(keeps) or shape.lora_rank or not (is_bf16 or keeps.sharded == "all"):
        return 0.0
    two = 2 * (model.layer_parameters + model.embedding) / shape.tensor
    return (2.0 if is_bf16 else 4.0) * (min(two, held) if keeps.sharded == "all" or shape.recompute == "full" else held)


def step_flops(model: Model, shape: Shape) -> float:
    """Model FLOPs of an optimizer step over all GPUs: 6 N + 12 L H Q T a token; DPO's frozen model adds a third.

    N: parameters that are multiplied (an embedding that is looked up is not). Frozen ones take 4, having no gradient of
    their own. Recomputation is no model FLOP.
    """
    multiplied = model.layers * model.layer_parameters + model.embedding
    adapters = model.layers * model.adapter_parameters(shape.lora_rank, shape.lora_targets)
    token = (4.0 if shape.lora_rank else 6.0) * multiplied + 6.0 * adapters
    token += 12.0 * model.layers * model.queries * shape.length
    return token * shape.batch * shape.length * (4 / 3 if shape.reference else 1.0)


@dataclass(frozen=True)
class Checkpoint:
    """Bytes: ``finished`` is what the next stage gets, ``save`` what a time limit is survived by."""

    finished: float
    save: float


def checkpoint(model: Model, keeps: capabilities.Memory, precision: str, trained: int = 0) -> Checkpoint:
    """Weights; and weights, fp32 weights where they are others, and two moments of Adam (4 bytes each): of ``trained``
    parameters where only adapters are, which the finished checkpoint has merged."""
    weight = keeps.finished[precision]
    master = 4 if weight == 2 else 0
    saved = trained or model.parameters
    return Checkpoint(model.parameters * weight, saved * (weight + master + 8.0))
