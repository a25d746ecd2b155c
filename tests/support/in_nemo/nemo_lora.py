"""Adapters beside a loaded model, and merged: ``python nemo_lora.py CHECKPOINT``.

Prints one JSON line: how far the logits with adapters are from those of the base, and those of the merged model from
them; the names of the layers that got one; how many parameters are trained; whether the merged model has the base's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock


def main() -> None:
    """Load, put adapters in, merge."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    import torch
    from lightning.pytorch.trainer.states import TrainerFn

    from jobs.backends.nemo import convert, lora
    from jobs.backends.nemo.settings import NemoSettings

    settings = NemoSettings.read(
        {
            "steps": 1,
            "lr": 1.0,
            "batch_size": 1,
            "sequence_length": 8,
            "lora_rank": 4,
            "lora_alpha": 8,
        }
    )
    from nemo.lightning import io

    read = io.load_context

    def trained_in_fp8(*given: Any, **more: Any) -> Any:
        found = read(*given, **more)
        found.config.fp8 = "hybrid"  # as the description of such a model says
        return found

    with mock.patch.object(io, "load_context", trained_in_fp8):
        model, trainer = convert.load_nemo(Path(sys.argv[1]))
    model.trainer, trainer.state.fn = trainer, TrainerFn.FITTING
    probes = [[5, 6, 7, 8, 9, 10, 11, 12]]
    names = set(model.state_dict())
    base = convert.nemo_logits(model, probes)[0]
    holder = SimpleNamespace(callbacks=[])
    lora.connect(settings, model, holder)
    model.model_transform(model)
    trained = lora.trained(model)
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.1)
            assert ".adapter." in name, name
    beside = sorted(
        {name.split(".adapter.")[0].rsplit(".", 1)[-1] for name in model.state_dict() if ".adapter." in name}
    )
    with_adapters = convert.nemo_logits(model, probes)[0]
    lora.merge(model)
    merged = convert.nemo_logits(model, probes)[0]
    print(
        json.dumps(
            {
                "changed": float((with_adapters - base).abs().max()),
                "difference": float((merged - with_adapters).abs().max()),
                "beside": beside,
                "trained": trained,
                "fp8": model.config.fp8,
                "same_names": set(model.state_dict()) == names,
            }
        )
    )


if __name__ == "__main__":
    main()
