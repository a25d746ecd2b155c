"""Training data in the shapes that NeMo reads: ``.bin``/``.idx`` for continued pre-training, token pairs for SFT.

The ids are made by ``jobs.training.examples``, as for every other back end and for evaluation. NeMo's own SFT data set
strips spaces off prompts, tokenises the parts of its template apart and decodes a template as Latin-1; here it gets
ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sized
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, cast

import numpy
import torch
from megatron.core import parallel_state
from megatron.core.datasets.gpt_dataset import GPTDataset
from nemo.collections.common.data.data_samplers import MegatronPretrainingBatchSampler
from nemo.collections.llm import FineTuningDataModule, PreTrainingDataModule
from nemo.collections.llm.gpt.data.core import GPTSFTDataset, GPTSFTPackedDataset
from nemo.lightning.pytorch.plugins import MegatronDataSampler
from torch.utils.data import DataLoader

from data_prep.rows import lengths
from jobs.backends.nemo import compat
from jobs.backends.nemo.settings import NemoSettings
from jobs.core import files
from jobs.core.spec import Input
from jobs.encoding.tokens import Tokens
from jobs.training import examples, ranks, tokens
from jobs.training.examples import ExamplesError
from jobs.training.interface import WorkContext
from jobs.training.order import training_order

READY = "ready.json"
"""Written last; says what the files beside it were made from."""

TRAINING = "training.jsonl"
"""The rows of SFT, as NeMo's module looks for them."""

PACKING = "packing.json"
"""How full packed sequences are."""


def prepare(
    kind: str, given: Input, scratch: Path, settings: NemoSettings, tokenizer: Any, ctx: WorkContext
) -> tuple[Path, int]:
    """The files of a stage (the prefix of a corpus, or ``scratch`` with rows in it), and how many examples they are.

    Raises:
        DataError: a row that cannot be used, with file and line.
    """
    if kind == "cpt":
        prefix = tokens.corpus(given, settings.split, tokenizer.tokenizer, scratch, ctx)
        NemoBlocks.mixed = tokens.mix(prefix, settings.seed, scratch, ctx)
        return prefix, len(tokens.Blocks(prefix, settings.sequence_length, settings.seed, 1, NemoBlocks.mixed))
    ranks.on_first(lambda: pairs(given, scratch, settings, tokenizer.tokenizer))
    with open(scratch / TRAINING, "rb") as stream:
        return scratch, sum(1 for _ in stream)


def module(kind: str, path: Path, scratch: Path, settings: NemoSettings, tokenizer: Any, micro: int) -> Any:
    """The data module of a stage over the files of ``prepare``."""
    common = {
        "seq_length": settings.sequence_length, "global_batch_size": settings.batch_size, "micro_batch_size": micro,
        "tokenizer": tokenizer, "num_workers": settings.data_workers, "seed": settings.seed,
    }  # fmt: skip
    if kind == "cpt":
        NemoBlocks.batch = settings.batch_size
        index = str(scratch / "index")
        return PreTrainingDataModule(
            [str(path)], split="1,0,0", index_mapping_dir=index, dataset_cls=NemoBlocks, **common
        )
    return (PacksModule if settings.packed else PairsModule)(dataset_root=scratch, memmap_workers=1, **common)


def pairs(given: Input, scratch: Path, settings: NemoSettings, tokenizer: Any) -> None:
    """Write ``training.jsonl``: per row the ids and which carry loss, or per packed sequence those of its rows.

    Raises:
        DataError: a row longer than the sequence length, unless such rows are to be left out; or fewer packed sequences
            than a batch takes.
    """
    if _made(scratch, given, settings):
        return
    source = given.output / f"{settings.split}.jsonl"
    rows = examples.rows_between(source, "instructions")
    fit = (settings.sequence_length, settings.too_long, settings.prompt_template)
    found = (one for _, (one,) in examples.fitting_pairs(rows, source, tokenizer, *fit))
    if settings.packed:
        count = examples.write_rows(scratch / TRAINING, _sequences(found, source, scratch, settings))
    else:
        lines = ({"input_ids": one.ids, "loss_mask": list(map(int, one.mask))} for one in found)
        count = examples.write_rows(scratch / TRAINING, lines)
    examples.check_any(count, source, settings.sequence_length)
    _mark(scratch, given, settings)


def _sequences(
    found: Iterator[Tokens], source: Path, scratch: Path, settings: NemoSettings
) -> Iterator[Mapping[str, Any]]:
    """The packed sequences as NeMo's data set has them: ids, where rows start, and whether the next id is learned.

    The ids of all rows are in a file meanwhile; in memory are their lengths.

    Raises:
        DataError: fewer than a batch takes.
    """
    length, sizes = settings.sequence_length, []
    with TemporaryFile(dir=scratch) as spool:
        for one in found:
            sizes.append(len(one))
            both = 2 * numpy.array(one.ids, numpy.int32)
            both[:-1] += numpy.array(one.mask[1:])
            spool.write(both.tobytes())
        taken = [size - 1 for size in sizes]  # the last id of a row is learned and never read
        groups = lengths.pack(taken, length)
        if len(groups) < settings.batch_size:
            raise ExamplesError(
                f"{source}:1: {len(sizes)} rows make {len(groups)} packed sequences of {length} tokens, less than one "
                f"batch (batch_size {settings.batch_size}, which counts sequences with packed: true): lower one of "
                "the two"
            )
        facts = {"rows": len(sizes), "sequences": len(groups), "fill": round(sum(taken) / (len(groups) * length), 4)}
        files.write_json(scratch / PACKING, facts)
        ids = numpy.memmap(spool, numpy.int32, mode="r")
        ends = numpy.cumsum(sizes)
        for group in groups:
            yield lengths.packed_row([ids[ends[index] - sizes[index] : ends[index]] for index in group])


def packing(scratch: Path) -> dict[str, Any]:
    """``packed_rows``, ``packed_sequences`` and ``packed_fill`` (the share of places that is taken)."""
    return {f"packed_{name}": value for name, value in json.loads((scratch / PACKING).read_text()).items()}


def _description(given: Input, settings: NemoSettings) -> dict[str, Any]:
    return {
        "fingerprint": given.fingerprint,
        "split": settings.split,
        "length": settings.sequence_length,
        "template": settings.prompt_template,
        "too_long": settings.too_long,
        "packed": settings.packed,
        "form": 2,
    }


def _made(scratch: Path, given: Input, settings: NemoSettings) -> bool:
    """Whether an earlier start of the stage has written the files whole."""
    scratch.mkdir(parents=True, exist_ok=True)
    return bool(files.read_json_or_none(scratch / READY) == _description(given, settings))


def _mark(scratch: Path, given: Input, settings: NemoSettings) -> None:
    files.write_json(scratch / READY, _description(given, settings))


class NemoBlocks(GPTDataset):
    """Megatron's data set with the order of our other back ends, in which no token is padding.

    Megatron shuffles all epochs as one, so that a document may come twice before another has come once. Here an epoch
    is a permutation of blocks that are read from the mapped file; no index is built and none is kept.

    The mask of the first sample that a process reads is kept for all others, with that sample's padding masked: where
    the padding id occurs in the text, the same positions are left out of the loss of every sample, and other ones after
    a resume. It occurs where padding is the end-of-document token, which would never be learned either. The cache
    itself stays: without it a 2048 x 2048 mask is made for each sample, by one thread, while the GPU waits.
    """

    batch = 1
    """Samples of a step; set by ``module``, since Megatron's configuration does not know it."""

    mixed: Path | None = None
    """The order of the documents, as ``prepare`` has written it."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._pad_token_id = -1

    def _build_document_sample_shuffle_indices(self) -> tuple[None, None, None]:
        config = self.config
        prefix = Path(self.dataset.path_prefix)
        extra = int(config.add_extra_token_to_sequence)
        self._blocks = tokens.Blocks(prefix, config.sequence_length, config.random_seed, extra, self.mixed)
        steps = max(1, -(-(self.num_samples or len(self._blocks)) // self.batch))
        self._order = training_order(len(self._blocks), self.batch, steps, config.random_seed, where=f"{prefix}.bin")
        return None, None, None

    def __len__(self) -> int:
        return len(self._order)

    def _query_document_sample_shuffle_indices(self, idx: int) -> tuple[Any, Any]:
        return self._blocks[self._order[int(idx)]].astype(numpy.int64), numpy.zeros(0, numpy.int64)


class _InOrder:
    """A part of NeMo's data sets: rows in the order that other back ends take them in."""

    def __init__(self, *args: Any, batch: int = 1, **more: Any) -> None:
        self._batch = batch
        super().__init__(*args, **more)

    def _maybe_validate_prompt_template(self) -> None:
        """Nothing: the template is applied already."""

    def _build_samples_mapping(self: Any) -> None:
        self.samples_mapping = None
        if self.max_num_samples is not None:
            count, steps = len(self.indexed_dataset), -(-self.max_num_samples // self._batch)
            where = f"{self.file_path}:1"
            self.samples_mapping = training_order(count, self._batch, steps, self.seed, where=where)

    def row(self: Any, index: Any) -> Any:
        """The row that is taken at a place of the order."""
        return self.indexed_dataset[int(index) if self.samples_mapping is None else self.samples_mapping[int(index)]]


class Pairs(_InOrder, GPTSFTDataset):
    """NeMo's SFT data set over rows of ids: its batching, our tokenisation and order."""

    def __getitem__(self, index: Any) -> dict[str, Any]:
        return self._process_example(self.row(index))

    def _process_example(self, example: dict[str, Any]) -> dict[str, Any]:
        ids, mask = example["input_ids"], example["loss_mask"]
        start = mask.index(1)
        return {
            "input_ids": ids,
            "loss_mask": mask,
            "answer_start_idx": start,
            "context_ids": ids[:start],
            "context_length": start,
            "answer_ids": ids[start:],
            "metadata": {},
            "token_count": len(ids),
        }

    def _build_loss_mask(self, processed_example: dict[str, Any]) -> list[float]:
        """That of the row: a conversation has several answers."""
        return [float(learned) for learned in processed_example["loss_mask"]]


class Packs(_InOrder, GPTSFTPackedDataset):
    """NeMo's data set of packed sequences, read from JSON lines (it has them pickled), each filled up to the end.

    With transformer_engine a batch says where rows start (``cu_seqlens``), for its kernels. Megatron's own attention
    refuses that; it gets a mask in which a row sees itself alone.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        fused = compat.has_transformer_engine()
        super().__init__(*args, return_cu_seqlen=fused, pad_to_max_length=True, **more)

    def _load_dataset(self) -> None:
        GPTSFTDataset._load_dataset(self)

    def __getitem__(self, index: Any) -> dict[str, Any]:
        sequence = self.row(index)
        ids = sequence["input_ids"]
        boundaries = [*sequence["seq_start_id"], len(ids)]
        return {"input_ids": ids, "seq_boundaries": boundaries, "loss_mask": sequence["loss_mask"]}

    def _create_attention_mask(self, max_length: int) -> torch.Tensor:
        return torch.zeros(1)  # the one of ``collate_fn`` takes its place: here nothing is known of rows

    def collate_fn(self, batch: list[dict[str, Any]]) -> dict[str, Any]:
        """As in the base class; ``attention_mask``: (sequences, 1, length, length), True where nothing is seen."""
        made: dict[str, Any] = super().collate_fn(batch)
        if not self.return_cu_seqlen:
            rows = (made["position_ids"] == 0).cumsum(1)  # each place that is padding is a row by itself
            seen = (rows[:, :, None] == rows[:, None, :]).tril()
            made["attention_mask"] = ~seen[:, None]
        return made


class AllBatches(MegatronPretrainingBatchSampler):
    """NeMo's order of batches, as long as all of them are, whether they were taken before a resume or not."""

    def __len__(self) -> int:
        return int(self.total_samples // self._global_batch_size)


class FromWhereItWas(MegatronDataSampler):
    """NeMo's sampler for fine-tuning, which after a resume takes batches in the order of a run without a stop.

    Lightning adds the batches of before the resume to those that it takes, and holds the sum against the length of the
    loader. NeMo's length is of what is left: past the middle Lightning sees the end after one batch and begins again
    with the same one, before it somewhat later. Its samplers for pre-training have the whole length.
    """

    def transform_dataloader(self, dataloader: DataLoader[Any], consumed_samples: int = 0) -> DataLoader[Any]:
        """``dataloader`` with the batches of this replica, from the first that was not taken."""
        batches = AllBatches(
            total_samples=len(cast(Sized, dataloader.dataset)),
            consumed_samples=self.init_consumed_samples,
            micro_batch_size=self.micro_batch_size,
            global_batch_size=self.global_batch_size,
            data_parallel_rank=parallel_state.get_data_parallel_rank(),
            data_parallel_size=parallel_state.get_data_parallel_world_size(),
            drop_last=True,
        )
        return DataLoader(
            dataloader.dataset,
            batch_sampler=batches,
            num_workers=dataloader.num_workers,
            pin_memory=dataloader.pin_memory,
            persistent_workers=dataloader.persistent_workers,
            collate_fn=dataloader.collate_fn,
        )


class PairsModule(FineTuningDataModule):
    """NeMo's fine-tuning data over ``Pairs``; only its training split is used (evaluation is a stage of its own)."""

    dataset = Pairs

    def setup(self, stage: str) -> None:
        """As in the base class, with a sampler that resumes."""
        super().setup(stage)
        self.data_sampler = FromWhereItWas(
            seq_len=self.seq_length,
            micro_batch_size=self.micro_batch_size,
            global_batch_size=self.global_batch_size,
            dataloader_type="batch",
        )

    @lru_cache  # noqa: B019 - as in the base class: one data set per path
    def _create_dataset(self, path: Any, pack_metadata_path: Any = None, is_test: bool = False, **more: Any) -> Any:
        return self.dataset(
            str(path),
            self.tokenizer,
            batch=self.global_batch_size,
            max_seq_length=self.seq_length,
            memmap_workers=self.memmap_workers,
            seed=self.seed,
            is_test=is_test,
            **more,
        )


class PacksModule(PairsModule):
    """The same over ``Packs``."""

    dataset = Packs
