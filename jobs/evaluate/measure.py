"""Running the model for an evaluation: log-likelihoods and greedy answers, in batches of similar length."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from jobs.core.batches import LOGIT_ROWS
from jobs.encoding.tokens import Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


FEW = 4
"""Rows that are put into a batch however much padding that takes."""


def batches(
    lengths: Sequence[int], tokens: int, most: int | None = None, waste: float | None = None
) -> Iterator[list[int]]:
    """Indices grouped so that a batch, padded to its longest, has at most ``tokens`` tokens; longest first.

    The longest come first so that memory runs out at once or never. ``waste``: share of padding from which on a batch
    of ``FEW`` is closed: where rows are few, their lengths lie far apart.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batch: list[int] = []
    for index in order:
        padded = (len(batch) + 1) * lengths[batch[0]] if batch else 0
        full = padded > tokens
        if waste is not None and len(batch) >= FEW:
            full |= padded * (1 - waste) > sum(lengths[one] for one in batch) + lengths[index]
        if full or (most is not None and len(batch) == most):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def grouped(tokens: int, most: int | None = None) -> Callable[[Sequence[Sequence[int]]], Iterator[list[int]]]:
    """``batches`` of sequences, by their lengths."""
    return lambda parts: batches([len(part) for part in parts], tokens, most)


def positions(model: PreTrainedModel) -> int | None:
    """How many tokens a model can see at once; None where it sets no limit."""
    found = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def windows(before: Sequence[int], ids: Sequence[int], most: int) -> list[Tokens]:
    """A text as sequences of at most ``most`` ids in which each of its ids has loss once. ``before`` stands before the
    first; of each later one the first half is what stands before it in the text, without loss."""
    first, half = ids[: most - len(before)], most // 2
    found = [Tokens.of(before, first)]
    for start in range(len(first), len(ids), most - half):
        found.append(Tokens.of(ids[max(0, start - half) : start], ids[start : start + most - half]))
    return found


@torch.inference_mode()
def log_likelihoods(model: PreTrainedModel, pairs: Sequence[Tokens]) -> list[float]:
    """Sum of the log-probabilities of the tokens with loss of each sequence, in nats.

    One batch. Padding stands at the end, where a causal model cannot see it from the positions that count, so no mask
    is needed.
    """
    ids, wanted = _padded(model, pairs)
    targets = ids[:, 1:][wanted[:, :-1]]  # position p predicts the token at p + 1
    every = logits(model, ids, wanted)
    found = [
        -functional.cross_entropy(some.float(), right, reduction="none")
        for some, right in zip(every, torch.split(targets, LOGIT_ROWS), strict=True)
    ]
    return _by_row(torch.cat(found), wanted)


@torch.inference_mode()
def divergences(model: PreTrainedModel, reference: PreTrainedModel, pairs: Sequence[Tokens]) -> list[float]:
    """KL divergence of the ``model`` from the ``reference``, summed over the tokens with loss of each sequence, in
    nats: over the whole vocabulary at each of them. One batch, as in ``log_likelihoods``."""
    ids, wanted = _padded(model, pairs)
    found = []
    for some, other in zip(logits(model, ids, wanted), logits(reference, ids, wanted), strict=True):
        mine, theirs = some.float().log_softmax(-1), other.float().log_softmax(-1)
        found.append((mine.exp() * (mine - theirs)).sum(-1).clamp(min=0))
    return _by_row(torch.cat(found), wanted)


def _padded(model: PreTrainedModel, pairs: Sequence[Tokens]) -> tuple[torch.Tensor, torch.Tensor]:
    """The ids of each sequence in a row, and the positions that predict a token with loss."""
    longest = max(map(len, pairs))
    ids = torch.zeros(len(pairs), longest, dtype=torch.long)
    wanted = torch.zeros(len(pairs), longest, dtype=torch.bool)
    for row, pair in enumerate(pairs):
        ids[row, : len(pair)] = torch.tensor(pair.ids)
        wanted[row, : len(pair)] = torch.tensor(pair.mask)
    return ids.to(model.device), functional.pad(wanted[:, 1:], (0, 1)).to(model.device)


def _by_row(values: torch.Tensor, wanted: torch.Tensor) -> list[float]:
    """Sums over the positions of each row."""
    sums = torch.zeros(len(wanted), dtype=torch.float64, device=values.device)
    sums.index_add_(0, wanted.nonzero()[:, 0], values.double())
    return [float(value) for value in sums]


def logits(
    model: PreTrainedModel, ids: torch.Tensor, wanted: torch.Tensor, **more: torch.Tensor
) -> Iterator[torch.Tensor]:
    """The model's own logits at the ``wanted`` positions of ``ids``, ``LOGIT_ROWS`` positions at a time.

    What is behind the layers (the head, and the scale or the cap of some architectures) is the model's own code: its
    layers run once, and it is then given what they said, part by part. A model that does not ask its layers for it by
    the usual name is run as a whole. ``more``: mask and positions, where they are not the plain ones.
    """
    layers = model.base_model
    said = layers(input_ids=ids, use_cache=False, **more) if layers is not model else None
    states = None if said is None else said.last_hidden_state[wanted]
    if said is not None and states is not None:
        for some in states.split(LOGIT_ROWS):
            part = copy.copy(said)
            part["last_hidden_state"] = some[None]
            with _saying(layers, part) as asked:
                found = model(input_ids=ids[:1, :1].expand(1, len(some)), use_cache=False).logits[0]
            if not asked:
                break
            yield found
        else:
            return
    yield from model(input_ids=ids, use_cache=False, **more).logits[wanted].split(LOGIT_ROWS)


@contextmanager
def _saying(layers: torch.nn.Module, said: Any) -> Iterator[list[bool]]:
    """``layers`` that answer ``said`` whatever they are given; the list is not empty once they were asked."""
    asked: list[bool] = []

    def forward(*_: Any, **__: Any) -> Any:
        asked.append(True)
        return said

    layers.forward = forward
    try:
        yield asked
    finally:
        del layers.forward


@dataclass(frozen=True)
class ModelAnswer:
    """A generated answer. ``end``: the token that ended it, which is none of ``ids``; None: it was cut off, or a text
    ended it."""

    text: str
    ids: tuple[int, ...] = ()
    end: int | None = None
    is_cut: bool = False

    @property
    def finish(self) -> str:
        """Why it ended, as it stands in samples.jsonl."""
        return "length" if self.is_cut else "stop"


@torch.inference_mode()
def answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    ends: Sequence[int],
    stops: Sequence[str] = (),
    strip: bool = True,
) -> list[ModelAnswer]:
    """The greedy continuation of each prompt up to one of ``ends`` (ids) or ``stops`` (texts), without the blanks
    around it where ``strip``. One batch, padded on the left.

    Of generation_config.json only the end ids count: a repetition penalty or the like would make it another one.
    """
    from transformers import GenerationConfig, StoppingCriteriaList

    longest = max(map(len, prompts))
    pad = int(tokenizer.pad_token_id)
    ids = torch.full((len(prompts), longest), pad, dtype=torch.long)
    mask = torch.zeros(len(prompts), longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
        mask[row, longest - len(prompt) :] = 1
    own = model.generation_config
    # In its place: generate fills what a configuration leaves open from the model's own.
    model.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        pad_token_id=pad,
        eos_token_id=list(ends),
        use_cache=True,
    )
    try:
        made = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            stopping_criteria=StoppingCriteriaList([_stopping(tokenizer, longest, stops)] if stops else []),
        )
    finally:
        model.generation_config = own
    rows = [_until(ends, row) for row in made[:, longest:].tolist()]
    whole = tokenizer.batch_decode([own for own, _ in rows], skip_special_tokens=True)
    found = []
    for text, (own, end) in zip(whole, rows, strict=True):
        before = _before(text, stops)
        is_cut = end is None and len(before) == len(text)
        found.append(ModelAnswer(before.strip() if strip else before, tuple(own), end, is_cut))
    return found


def _until(ends: Sequence[int], ids: list[int]) -> tuple[list[int], int | None]:
    """The ids before the first of ``ends``, and that one; None: there is none."""
    at = next((place for place, token in enumerate(ids) if token in ends), None)
    return (ids, None) if at is None else (ids[:at], ids[at])


def _before(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        if stop:
            text = text.split(stop, 1)[0]
    return text


def _stopping(tokenizer: PreTrainedTokenizerBase, start: int, stops: Sequence[str]) -> Callable[..., torch.Tensor]:
    """Says which rows of a batch have one of ``stops`` at their end. A token has a character at least, so the last of
    them are looked at only."""
    most = max(map(len, stops)) + 1

    def stopped(ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        tails = tokenizer.batch_decode(ids[:, max(start, ids.shape[1] - most) :])
        return torch.tensor([any(stop and stop in tail for stop in stops) for tail in tails], device=ids.device)

    return stopped
