"""Stretched rotary positions: what GGUF holds of them, against what transformers turns by."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from jobs.training import stretched  # noqa: E402

pytestmark = pytest.mark.train

LLAMA_31 = {"factor": 8.0, **stretched.ORIGINAL}
LLAMA_32 = {"factor": 32.0, **stretched.ORIGINAL}
SHORT = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 8.0, "original_max_position_embeddings": 512}
TWICE = {"factor": 4.0, "low_freq_factor": 2.0, "high_freq_factor": 16.0, "original_max_position_embeddings": 1024}


def config(numbers: dict[str, Any], head: int = 128, base: float = 500_000.0) -> Any:
    rope = {"rope_type": "llama3", "rope_theta": base, **numbers}
    return transformers.LlamaConfig(
        hidden_size=2 * head,
        num_attention_heads=2,
        head_dim=head,
        max_position_embeddings=131_072,
        rope_parameters=rope,
    )


@pytest.mark.parametrize("numbers", [LLAMA_31, LLAMA_32, SHORT])
def test_a_pair_turns_by_its_frequency_over_its_factor(numbers: dict[str, Any]) -> None:
    """As llama.cpp turns it: the angle of a position without stretching, divided by the factor."""
    made = config(numbers)
    factors = torch.tensor(stretched.factors(made), dtype=torch.float64)
    position = 1000
    angle = position * 500_000.0 ** (-torch.arange(0, 128, 2, dtype=torch.float64) / 128) / factors
    rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(made)
    cos, sin = rotary(torch.zeros(1, 1, 1), torch.tensor([[position]]))
    assert torch.allclose(cos[0, 0, :64].double(), angle.cos(), atol=1e-3)
    assert torch.allclose(sin[0, 0, :64].double(), angle.sin(), atol=1e-3)
    assert factors[0] == pytest.approx(1)
    assert factors[-1] == pytest.approx(numbers["factor"])


@pytest.mark.parametrize(
    ("numbers", "found"), [(LLAMA_31, LLAMA_31), (LLAMA_32, LLAMA_32), (SHORT, SHORT), (TWICE, SHORT)]
)
@pytest.mark.parametrize("head", [64, 128])
def test_the_numbers_are_found_again(numbers: dict[str, Any], found: dict[str, Any], head: int) -> None:
    held = [float(torch.tensor(one, dtype=torch.float32)) for one in stretched.factors(config(numbers, head))]
    told = stretched.parameters(held, 500_000.0)
    assert told == {"rope_type": "llama3", "rope_theta": 500_000.0, **found}


def test_what_is_not_stretched_so_is_not_taken_for_it() -> None:
    good = stretched.factors(config(LLAMA_31))
    assert stretched.parameters([*good[:-1], good[-1] / 2], 500_000.0) is None
    assert stretched.parameters([one * 1.001 if 1.1 < one < 7 else one for one in good], 500_000.0) is None
    assert stretched.parameters(good, 10_000.0) is None
