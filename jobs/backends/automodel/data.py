"""Training data in the shape that AutoModel reads: ids and labels, blocks of a corpus for CPT and rows for SFT.

The ids are made by ``jobs.training.pairs``, as for every other back end and for evaluation. AutoModel's own data set
of prompts and answers tokenises them in its own way, so a model would be scored on other ids than it was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.training import pairs, tokenizers
from jobs.training.order import training_order
from jobs.training.tokens import Blocks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass
class BlocksConfig:
    """What the configuration names as the data set of a corpus: its blocks in the order of training.

    AutoModel's own data set of these files shuffles all epochs as one, so that a document may come twice before another
    has come once; it also keeps the loss mask of the first sample that it reads for all others.
    """

    prefix: str
    seq_length: int
    batch_size: int
    steps: int
    seed: int = 0
    mixed: str | None = None

    def build(self) -> InOrder:
        """The data set; a sample is read from the mapped file when it is asked for.

        Raises:
            DataError: fewer blocks than a batch takes.
        """
        mixed = None if self.mixed is None else Path(self.mixed)
        blocks = Blocks(Path(self.prefix), self.seq_length, self.seed, 1, mixed)
        order = training_order(len(blocks), self.batch_size, self.steps, self.seed, where=f"{self.prefix}.bin")

        return InOrder(lambda index: block_of(blocks, index), order)


def block_of(blocks: Blocks, index: int) -> dict[str, Any]:
    """A block as a sample; the label beside a token is the token after it."""
    ids = blocks[index].tolist()
    return {"input_ids": ids[:-1], "labels": ids[1:], "attention_mask": [1] * (len(ids) - 1)}


class InOrder(Sequence[dict[str, Any]]):
    """Samples made when they are asked for, in the order of training."""

    def __init__(self, sample: Callable[[int], dict[str, Any]], order: Sequence[int]) -> None:
        self._sample = sample
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, place: Any) -> Any:
        return self._sample(self._order[place])


@dataclass
class PairsConfig:
    """What the configuration names as its data set: the examples of all steps in the order of training.

    ``rows``: where ``pairs.dataset`` has put those of the file ``path``; ``checkpoint``: whose tokenizer says what a
    batch is filled up with.
    """

    path: str
    rows: str
    checkpoint: str
    batch_size: int
    steps: int
    seed: int = 0

    def build(self) -> InOrder:
        """One mapping a row: ``input_ids``, ``labels`` (that of the next token; -100 without loss),
        ``attention_mask``.

        Raises:
            DataError: fewer rows than a batch takes.
        """
        rows = pairs.read(pairs.written(Path(self.rows)))
        order = training_order(len(rows), self.batch_size, self.steps, self.seed, where=f"{self.path}:1")
        return of_rows(rows, tokenizers.load(Path(self.checkpoint)), order)


def of_rows(rows: Any, tokenizer: PreTrainedTokenizerBase, order: Sequence[int]) -> InOrder:
    """Rows of ``pairs.dataset`` as samples."""
    pad = int(tokenizer.pad_token_id)
    return InOrder(lambda index: shifted(rows[index], pad), order)


def shifted(row: dict[str, Any], pad: int) -> dict[str, Any]:
    """AutoModel's losses take labels as they stand: the one beside a token is the token after it."""
    ids = row["input_ids"][:-1]
    return {
        "input_ids": ids,
        "labels": row["labels"][1:],
        "attention_mask": [1] * len(ids),
        "___PAD_TOKEN_IDS___": {"input_ids": pad, "labels": -100, "attention_mask": 0},
    }
