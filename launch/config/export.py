"""``kind: export`` of a pipeline file: a finished model as others take it."""

from typing import Any, Literal, Self, get_args

from launch.base.text import suggest
from launch.config.document.positions import Problem
from launch.config.document.typed import Faults, StrictModel
from launch.config.document.words import show
from launch.config.fields import Line, MemoryAmount
from launch.config.stage_keys import StageKeys

FORMS = ("hf", "gguf", "vllm")


class GgufKeys(StrictModel):
    """How the weights of a GGUF file are stored."""

    type: Literal["f32", "f16", "bf16", "q8_0"] = "f16"


class ExportForms(StrictModel):
    """What is made beside the Hugging Face directory: a GGUF file, and first answers by vLLM (``vllm``)."""

    gguf: GgufKeys | None = None
    vllm: bool = False

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """What ``read`` takes, as JSON Schema."""
        gguf = {"type": "object", "properties": {"type": {"enum": list(get_args(GgufKeys.__annotations__["type"]))}}}
        keyed = {"type": "object", "properties": {"gguf": {**gguf, "additionalProperties": False}}}
        each = {"anyOf": [{"enum": list(FORMS)}, {**keyed, "additionalProperties": False}]}
        return {"type": "array", "items": each, "contains": {"const": "hf"}}

    @classmethod
    def read(cls, value: Any) -> Self:
        """As a file has it: ``[hf, gguf: {type: q8_0}]``. Raises ValueError: an unknown or repeated form, or ``hf`` is
        missing."""
        if not isinstance(value, list):
            raise ValueError(f"expected a list such as [hf, gguf], got {show(value)}")
        found: dict[str, Any] = {}
        for at, one in enumerate(value):
            [(name, keys)] = one.items() if isinstance(one, dict) and len(one) == 1 else [(one, None)]
            if name not in FORMS:
                raise Faults([Problem((at,), f"got {show(name)}; {suggest(str(name), FORMS)}")])
            if name in found or (keys is not None and name != "gguf"):
                raise Faults([Problem((at,), f"{name} {'is listed twice' if name in found else 'takes no keys'}")])
            try:
                found[name] = GgufKeys.read(keys or {}) if name == "gguf" else True
            except Faults as error:
                raise Faults([one._replace(path=(at, name, *one.path)) for one in error.problems]) from None
        if not found.pop("hf", False):
            raise ValueError("write hf, too: the other forms are made from it and stored next to it")
        return super().read(found)


class ExportStage(StageKeys):
    """The model of ``checkpoint`` with a card. ``evaluations``: those that the card shows; None: all of that model."""

    kind: Literal["export"]
    checkpoint: Line
    to: ExportForms
    max_shard_size: MemoryAmount = "5G"
    evaluations: tuple[Line, ...] | None = None

    @property
    def backend(self) -> str:
        """The back end of conversions does it."""
        return "convert"
