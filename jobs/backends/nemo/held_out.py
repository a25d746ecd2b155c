"""The loss on the validation split, by Megatron's own forward pass between two steps; it changes nothing of training.

NeMo's own validation is not taken: Lightning would begin it by a count of batches of its own, and takes the mean of the
means of batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from megatron.core import parallel_state
from megatron.core.pipeline_parallel import get_forward_backward_func
from nemo.collections.llm.gpt.model.base import gpt_data_step, gpt_forward_step

from jobs.backends.nemo import compat
from jobs.backends.nemo.settings import NemoSettings
from jobs.core.spec import Input
from jobs.core.validation import SPLIT
from jobs.encoding.tokens import IGNORED
from jobs.training import pairs, ranks, tokens
from jobs.training.interface import WorkContext
from jobs.training.validation import Told, passes

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

Learned = tuple[Sequence[int], Sequence[bool]]
"""Ids, and for each whether it is learned."""


class HeldOutBlocks(Sequence[Learned]):
    """The blocks of a corpus, each with the id behind it; the rest behind the last whole one is a shorter block."""

    def __init__(self, given: Input, settings: NemoSettings, tokenizer: Any, scratch: Path, ctx: WorkContext) -> None:
        prefix = tokens.corpus(given, SPLIT, tokenizer, scratch, ctx)
        mixed = tokens.mix(prefix, settings.seed, scratch, ctx)
        self._blocks = tokens.Blocks(prefix, settings.sequence_length, settings.seed, 1, mixed, rest=True)

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, number: Any) -> Any:
        ids = self._blocks[number].tolist()
        return ids, [True] * len(ids)


class HeldOutRows(Sequence[Learned]):
    """The rows of SFT, each alone, also where training packs them; the shortest first."""

    def __init__(
        self, given: Input, path: Path, settings: NemoSettings, tokenizer: Any, scratch: Path, ctx: WorkContext
    ) -> None:
        fit = pairs.Fit(settings.sequence_length, settings.too_long, settings.prompt_template)
        of = (path, "instructions", given.fingerprint, tokenizer, fit)
        self._rows, sizes = pairs.dataset(*of, scratch, ctx)
        self._order = sizes.argsort(kind="stable")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: Any) -> Any:
        row = self._rows[int(self._order[number])]
        return row["input_ids"], [label != IGNORED for label in row["labels"]]


def rows_of(
    kind: str, given: Input, path: Path, settings: NemoSettings, tokenizer: Any, scratch: Path, ctx: WorkContext
) -> Sequence[Learned]:
    """What is validated on.

    Raises:
        DataError: a row that cannot be used, with file and line.
    """
    if kind == "cpt":
        return HeldOutBlocks(given, settings, tokenizer, scratch, ctx)
    return HeldOutRows(given, path, settings, tokenizer, scratch, ctx)


class NemoValidation:
    """Called on every process; returns the mean over all learned tokens of ``rows``."""

    def __init__(self, trainer: Trainer, rows: Sequence[Learned], micro: int, ctx: WorkContext) -> None:
        self._trainer, self._rows, self._micro, self._ctx = trainer, rows, micro, ctx

    def __call__(self) -> float:
        chunks = list(self._trainer.strategy.megatron_parallel)
        modes = [(module, module.training) for chunk in chunks for module in chunk.modules()]
        for chunk in chunks:
            chunk.eval()
        replica, replicas = parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size()
        todo = list(passes(len(self._rows), replica, replicas, self._micro))
        told, total = Told(self._ctx, len(todo)), torch.zeros(2, dtype=torch.float64, device=self._device)
        with torch.no_grad():
            for number, (taken, counts) in enumerate(todo):
                found = self._sums([self._rows[index] for index in taken], chunks)
                if counts:
                    total += found
                told(number)
        for module, trained in modes:
            module.training = trained
        for group in (
            parallel_state.get_data_parallel_group(with_context_parallel=True),
            parallel_state.get_pipeline_model_parallel_group(),
        ):
            torch.distributed.all_reduce(total, group=group)
        loss, weight = ranks.on_first(total.tolist)
        return float(loss / weight) if weight else float("nan")

    @property
    def _device(self) -> torch.device:
        found: torch.device = self._trainer.strategy.root_device
        return found

    def _sums(self, rows: list[Learned], chunks: list[Any]) -> torch.Tensor:
        """Sum of the losses of one pass and how many there are; zeros but on the last pipeline stage."""
        batch = batched(rows)

        def step(iterator: Iterator[Any], model: Any) -> Any:
            part = gpt_data_step(iterator)

            def sums(losses: torch.Tensor) -> Any:
                mask = part["loss_mask"].reshape(-1).double()
                found = torch.stack([(losses.reshape(-1).double() * mask).sum(), mask.sum()])
                return found[0], found[1].int(), found

            return gpt_forward_step(model, part), sums

        made = get_forward_backward_func()(
            forward_step_func=step,
            data_iterator=iter([batch]),
            model=chunks,
            num_microbatches=1,
            seq_length=batch["tokens"].shape[1],
            micro_batch_size=len(rows),
            forward_only=True,
        )
        return sum(made, torch.zeros(2, dtype=torch.float64, device=self._device))


def batched(rows: list[Learned]) -> dict[str, torch.Tensor]:
    """Rows as Megatron reads them, padded to a length that divides over tensor and context parallelism."""
    parts = parallel_state.get_tensor_model_parallel_world_size() * parallel_state.get_context_parallel_world_size()
    longest = max(len(ids) for ids, _ in rows) - 1
    length = -(-longest // (8 * parts)) * 8 * parts
    ids, labels, mask = (torch.zeros(len(rows), length, dtype=torch.long) for _ in range(3))
    for at, (row, learned) in enumerate(rows):
        size = len(row) - 1
        ids[at, :size], labels[at, :size] = torch.tensor(row[:-1]), torch.tensor(row[1:])
        mask[at, :size] = torch.tensor(learned[1:])
    made = {"tokens": ids, "labels": labels, "loss_mask": mask, "position_ids": torch.arange(length).expand_as(ids)}
    if not compat.has_transformer_engine():  # whose layers make their own; True where nothing is seen
        made["attention_mask"] = torch.ones(1, 1, length, length, dtype=torch.bool).triu(1)
    return made
