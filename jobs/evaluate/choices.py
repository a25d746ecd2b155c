"""Log-likelihoods of several continuations of one prompt: the prompt goes through the model once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from jobs.evaluate import measure
from jobs.evaluate.parts import ScoredPrompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Scored = tuple[float, bool]
"""Log-likelihood of a continuation in nats, and whether each of its tokens is the most likely one."""


class Scorer:
    """Scores questions with a model. Choices of one prompt stand behind each other in one sequence, each with the
    positions that it would have alone and blind for the others; where a model does not do that (``_shares`` tries), or
    a prompt is longer than what its layers look back, each choice has a sequence of its own."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        config = model.config.get_text_config()
        self._window = getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None)
        self._able = self._shares()

    def __call__(self, questions: Sequence[ScoredPrompt]) -> list[list[Scored]]:
        """What ``Scored`` says of each choice of each question. One batch."""
        apart = [self._able and (self._window is None or question.longest <= self._window) for question in questions]
        if all(apart) or all(len(question.choices) == 1 for question in questions):
            return self._score(questions)
        singles = self._score([one for question in questions for one in question.alone()])
        found = iter(singles)
        return [[next(found)[0] for _ in question.choices] for question in questions]

    def _shares(self) -> bool:
        """Whether choices in one sequence get what they get alone, on ids of no meaning."""
        size = int(self._model.config.get_text_config().vocab_size)
        ids = torch.randint(0, size, (14,), generator=torch.Generator().manual_seed(0)).tolist()
        question = ScoredPrompt(tuple(ids[:5]), (tuple(ids[5:8]), tuple(ids[8:11]), tuple(ids[11:])))
        near = 1e-4 if self._model.dtype == torch.float32 else 2e-2
        try:
            together = [value for value, _ in self._score([question])[0]]
        except (TypeError, ValueError, RuntimeError):  # it takes no positions, or no mask of this form
            return False
        alone = [self._score([one])[0][0][0] for one in question.alone()]
        return all(abs(one - other) <= near * max(1.0, abs(other)) for one, other in zip(together, alone, strict=True))

    @torch.inference_mode()
    def _score(self, questions: Sequence[ScoredPrompt]) -> list[list[Scored]]:
        longest = max(map(len, questions))
        ids = torch.zeros(len(questions), longest, dtype=torch.long)
        wanted = torch.zeros(len(questions), longest, dtype=torch.bool)
        rows: list[int] = []  # of the logits, for each token of each choice
        targets: list[int] = []
        start = 0
        for number, question in enumerate(questions):
            ids[number, : len(question)] = torch.tensor(
                [*question.prompt, *(one for choice in question.choices for one in choice[:-1])]
            )
            wanted[number, len(question.prompt) - 1 : len(question)] = True
            behind = start + 1
            for choice in question.choices:
                rows += [start, *range(behind, behind + len(choice) - 1)]
                targets += choice
                behind += len(choice) - 1
            start = behind
        device = self._model.device
        more = {} if all(_is_plain(one) for one in questions) else self._apart(questions, longest)
        scores, best = self._of(measure.logits(self._model, ids.to(device), wanted.to(device), **more), rows, targets)
        found, at = [], 0
        for question in questions:
            own = []
            for choice in question.choices:
                end = at + len(choice)
                own.append((sum(scores[at:end]), all(best[at:end])))
                at = end
            found.append(own)
        return found

    @staticmethod
    def _of(
        blocks: Iterator[torch.Tensor], rows: Sequence[int], targets: Sequence[int]
    ) -> tuple[list[float], list[bool]]:
        """Log-probability of each target at its row of the logits, and whether it is the most likely one."""
        order = sorted(range(len(rows)), key=rows.__getitem__)
        scores, best = [0.0] * len(rows), [False] * len(rows)
        start = at = 0
        for block in blocks:
            last = at
            while last < len(order) and rows[order[last]] < start + len(block):
                last += 1
            own = order[at:last]
            here = torch.tensor([rows[one] - start for one in own], device=block.device)
            right = torch.tensor([targets[one] for one in own], device=block.device)
            said = functional.log_softmax(block.float(), dim=-1)
            found = said[here, right].tolist()
            first = (block.argmax(dim=-1)[here] == right).tolist()
            for one, value, is_first in zip(own, found, first, strict=True):
                scores[one], best[one] = value, is_first
            start, at = start + len(block), last
        return scores, best

    def _apart(self, questions: Sequence[ScoredPrompt], longest: int) -> dict[str, torch.Tensor]:
        """Mask and positions by which the choices of a prompt do not see each other."""
        device, dtype = self._model.device, self._model.dtype
        places = torch.arange(longest).repeat(len(questions), 1)
        seen = torch.ones(longest, longest, dtype=torch.bool).tril().repeat(len(questions), 1, 1)
        for number, question in enumerate(questions):
            prompt = len(question.prompt)
            at = prompt
            for choice in question.choices:
                end = at + len(choice) - 1
                places[number, at:end] = torch.arange(prompt, prompt + len(choice) - 1)
                seen[number, end : len(question), at:end] = False
                at = end
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
        return {"attention_mask": mask[:, None].to(device), "position_ids": places.to(device)}


def _is_plain(question: ScoredPrompt) -> bool:
    return sum(len(choice) > 1 for choice in question.choices) <= 1
