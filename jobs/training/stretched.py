"""Rotary positions that Llama 3.1 and later stretch: as a configuration of Hugging Face says it, and as GGUF does.

A configuration has four numbers (``rope_type: llama3``). A GGUF file has the tensor ``rope_freqs.weight``: for each
rotary pair how many times slower it turns than without stretching.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

TENSOR = "rope_freqs.weight"
KIND = "llama3"
ORIGINAL = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""Of all models that Meta has published; only the factor differs."""

CLOSE = 1e-5
"""How far, as a share, a factor that was computed again may be from the one in a file, which has 32 bits."""


def factors(config: Any) -> list[float]:
    """For each rotary pair of a configuration of type ``llama3``, by transformers' own function."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled, _ = ROPE_INIT_FUNCTIONS[KIND](config, "cpu")
    plain = _plain(config.rope_parameters["rope_theta"], 2 * len(scaled))
    return [before / float(now) for before, now in zip(plain, scaled, strict=True)]


def parameters(found: Sequence[float], base: float) -> dict[str, Any] | None:
    """What a configuration says so that its factors are these; None: nothing of type ``llama3`` does.

    ``low_freq_factor`` is 1 in what is returned: a model with all three numbers twice as large is the same model.
    """
    factor = round(max(found), 4)  # 32 bits make 8.000000953674316 of 8
    for numbers in ({**ORIGINAL}, *_fitted(found, factor, base)):
        made = [_factor(2 * math.pi / one, factor, *numbers.values()) for one in _plain(base, 2 * len(found))]
        if all(abs(one - other) <= CLOSE * other for one, other in zip(made, found, strict=True)):
            return {"rope_type": KIND, "rope_theta": base, "factor": factor, **numbers}
    return None


def _plain(base: float, width: int) -> list[float]:
    return [float(base ** (-at / width)) for at in range(0, width, 2)]


def _factor(length: float, factor: float, low: float, high: float, original: float) -> float:
    """Of a pair that turns once in ``length`` positions: 1 for short ones, ``factor`` for long ones, between them what
    lies between."""
    share = min(1.0, max(0.0, (original / length - low) / (high - low)))
    return 1 / ((1 - share) / factor + share)


def _fitted(found: Sequence[float], factor: float, base: float) -> Iterator[dict[str, Any]]:
    """The line through the first and the last pair that lie between; nothing with fewer than two of them."""
    between = [
        (frequency / (2 * math.pi), (1 / one - 1 / factor) / (1 - 1 / factor))
        for frequency, one in zip(_plain(base, 2 * len(found)), found, strict=True)
        if 1 + CLOSE < one < factor * (1 - CLOSE)
    ]
    if len(between) < 2:
        return
    (near, most), (far, least) = between[0], between[-1]
    slope = (most - least) / (near - far)
    start = most - slope * near
    if start < 0 < slope:
        high = 1 - 1 / start
        yield {"low_freq_factor": 1.0, "high_freq_factor": round(high, 4),
               "original_max_position_embeddings": round(slope * (high - 1))}  # fmt: skip
