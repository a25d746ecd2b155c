"""Running the model for an evaluation: log-likelihoods and greedy answers, in batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from jobs.training.examples import Pair

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOGIT_ROWS = 512
"""Positions whose logits are held at once: with a vocabulary of 49,152 in fp32 that is 100 MB."""


def batches(lengths: Sequence[int], tokens: int, most: int | None = None) -> Iterator[list[int]]:
    """Indices grouped so that a batch, padded to its longest, has at most ``tokens`` tokens; longest first.

    The longest come first so that memory runs out at once or never.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batch: list[int] = []
    for index in order:
        full = batch and (len(batch) + 1) * lengths[batch[0]] > tokens
        if full or (most is not None and len(batch) == most):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@torch.inference_mode()
def log_likelihoods(model: PreTrainedModel, pairs: Sequence[Pair]) -> list[float]:
    """Sum of the log-probabilities of each completion given its prompt, in nats.

    One batch. Padding stands at the end, where a causal model cannot see it from the positions that count, so no mask
    is needed. Logits are computed for the completions' positions only: with a small model the vocabulary is a large
    part of the work.
    """
    longest = max(map(len, pairs))
    ids = torch.zeros(len(pairs), longest, dtype=torch.long)
    wanted = torch.zeros(len(pairs), longest, dtype=torch.bool)
    for row, pair in enumerate(pairs):
        ids[row, : len(pair)] = torch.tensor([*pair.prompt, *pair.completion])
        wanted[row, len(pair.prompt) : len(pair)] = True
    ids, wanted = ids.to(model.device), wanted.to(model.device)
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    # Position p predicts the token at p + 1.
    states, targets = hidden[:, :-1][wanted[:, 1:]], ids[:, 1:][wanted[:, 1:]]
    head = model.get_output_embeddings()
    found = torch.cat(
        [
            -functional.cross_entropy(head(some).float(), right, reduction="none")
            for some, right in zip(states.split(LOGIT_ROWS), torch.split(targets, LOGIT_ROWS), strict=True)
        ]
    )
    rows = wanted[:, 1:].nonzero()[:, 0]
    sums = torch.zeros(len(pairs), dtype=torch.float64, device=found.device)
    sums.index_add_(0, rows, found.double())
    return [float(value) for value in sums]


@torch.inference_mode()
def answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> list[str]:
    """The greedy continuation of each prompt up to the end of sequence, as text. One batch, padded on the left."""
    longest = max(map(len, prompts))
    pad = int(tokenizer.pad_token_id)
    ids = torch.full((len(prompts), longest), pad, dtype=torch.long)
    mask = torch.zeros(len(prompts), longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
        mask[row, longest - len(prompt) :] = 1
    made = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        pad_token_id=pad,
        eos_token_id=tokenizer.eos_token_id,
        use_cache=True,
    )
    return [text.strip() for text in tokenizer.batch_decode(made[:, longest:], skip_special_tokens=True)]


def in_batches(
    items: Sequence[Any],
    groups: Sequence[Sequence[int]],
    one: Callable[[list[Any]], list[Any]],
    done: Callable[[], None],
) -> list[Any]:
    """Apply ``one`` to every group of ``items``; results in the order of ``items``. ``done`` is called after each."""
    results: list[Any] = [None] * len(items)
    for group in groups:
        for index, result in zip(group, one([items[index] for index in group]), strict=True):
            results[index] = result
        done()
    return results
