"""The rows of many data sets as a back end's own loader hands them to the model: ``python fed_rows.py NAMES DIRECTORY``.

Runs in the environment of the back end, so it imports nothing of the tests. DIRECTORY holds one directory a model with
its ``tokenizer`` and data sets. Prints one JSON line: of each of NAMES (``FEEDS``), model and data set the rows that were
fed, as [ids, which of them are learned] (filled up behind as the back end does it; an id that is not handed over is
null), or why the data set was refused.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

Fed = list[tuple[list[int | None], list[bool]]]

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from jobs.core.spec import Input  # noqa: E402
from jobs.training import examples, tokenizers, tokens  # noqa: E402
from jobs.training.order import training_order  # noqa: E402

LENGTH = 4096
BLOCK = 16
"""Tokens of a block of a corpus."""
FINGERPRINT = "ab" * 32
TRAINING = {"steps": 1, "lr": 1e-5, "batch_size": 1, "sequence_length": LENGTH}


@dataclass(frozen=True)
class Case:
    """One data set with its model, and a directory for what a back end makes of them."""

    data: Path
    model: Path
    scratch: Path

    @property
    def rows(self) -> int:
        """How many rows the data set has."""
        with open(self.data / "train.jsonl", "rb") as stream:
            return sum(1 for _ in stream)


def trl(case: Case, kind: str = "sft") -> Fed:
    """The batch of a step, from the loader of the trainer; its model is a small one."""
    from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

    from jobs.backends.trl import arguments, train
    from jobs.backends.trl.settings import TrainSettings
    from jobs.training import pairs

    tokenizer, path = tokenizers.load(case.model), case.data / "train.jsonl"
    if kind == "cpt":
        dataset: Any = train.TokenBlocks(tokens.Blocks(_corpus(case), BLOCK, 0))
        settings = TrainSettings.read({**TRAINING, "batch_size": len(dataset), "sequence_length": BLOCK})
    else:
        settings = TrainSettings.read({**TRAINING, "batch_size": case.rows})
        name, fit = "instructions" if kind == "sft" else "preferences", pairs.Fit(LENGTH)
        dataset, _ = pairs.dataset(path, name, FINGERPRINT, tokenizer, fit, case.scratch / "rows", _context())
    order = training_order(len(dataset), settings.batch_size, 1, 0, None, str(path))
    small = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1
    )
    config, given = arguments.arguments(kind, settings, 1, case.scratch)
    control: Any = TrainerCallback()
    with mock.patch.object(train, "load_model", side_effect=lambda *_, **more: LlamaForCausalLM(small)):
        trainer = train._trainer(kind, settings, config(**given), dataset, order, tokenizer, control, case.model)
    batch = next(iter(trainer.get_train_dataloader()))
    if kind == "cpt":
        assert batch["labels"].tolist() == batch["input_ids"].tolist()
        return _of_blocks(batch["input_ids"].tolist())
    found: Fed = []
    for at, (ids, real) in enumerate(zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True)):
        if kind == "sft":
            labels = batch["labels"][at].tolist()
            assert all(label in (-100, one) for one, label in zip(ids, labels, strict=True))
            learned = [label != -100 for label in labels]
        else:
            learned = [bool(one) for one in batch["completion_mask"][at].tolist()]
        size = sum(real)
        assert real == [1] * size + [0] * (len(real) - size)
        assert not any(learned[size:])
        found.append((ids[:size], learned[:size]))
    return found


def trl_preferences(case: Case) -> Fed:
    """The batch of a step of DPO."""
    return trl(case, "dpo")


def trl_corpus(case: Case) -> Fed:
    """The blocks of a corpus, those of an epoch in one batch."""
    return trl(case, "cpt")


def _corpus(case: Case) -> Path:
    """Prefix of the ids of a corpus: those of the data stage, or made by the trainer's own function."""
    given = Input("data", str(case.data.parent), "dataset", "corpus", FINGERPRINT)
    return tokens.corpus(given, "train", tokenizers.load(case.model), case.scratch, _context())


def _context() -> Any:
    """What the functions of a trainer ask of the one process of a stage."""
    return SimpleNamespace(rank=0, world=1, event=lambda *_, **__: None)


def _of_blocks(blocks: list[list[int]]) -> Fed:
    """Blocks in the order in which they stand in the corpus."""
    order = training_order(len(blocks), len(blocks), 1, 0)
    found = sorted(zip(order, blocks, strict=True))
    return [(list(ids), [True] * len(ids)) for _, ids in found]


def automodel_corpus(case: Case) -> Fed:
    """The same by AutoModel's own collation."""
    from nemo_automodel.components.datasets.utils import default_collater

    from jobs.backends.automodel.data import BlocksConfig

    prefix = _corpus(case)
    count = len(tokens.Blocks(prefix, BLOCK, 0, 1))
    batch = default_collater(list(BlocksConfig(str(prefix), BLOCK, count, 1).build()))
    ids, labels, real = (batch[name].tolist() for name in ("input_ids", "labels", "attention_mask"))
    assert all(one[1:] == other[:-1] for one, other in zip(ids, labels, strict=True))
    assert real == [[1] * BLOCK] * count
    return _of_blocks(ids)


def nemo_corpus(case: Case) -> Fed:
    """The same by NeMo's data set, which Megatron builds."""
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDatasetConfig

    from jobs.backends.nemo.data import NemoBlocks

    prefix = _corpus(case)
    NemoBlocks.batch = count = len(tokens.Blocks(prefix, BLOCK, 0, 1))
    config = GPTDatasetConfig(
        random_seed=0,
        sequence_length=BLOCK,
        blend=([str(prefix)], None),
        split="1,0,0",
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        path_to_cache=str(case.scratch / "index"),
        tokenizer=SimpleNamespace(eod=0, pad=0, unique_identifiers={}),
    )
    (found, *_) = BlendedMegatronDatasetBuilder(NemoBlocks, [count, None, None], lambda: True, config).build()
    samples = [found[at] for at in range(count)]
    assert all(bool(one["loss_mask"].all()) for one in samples)
    ids, labels = ([one[name].tolist() for one in samples] for name in ("tokens", "labels"))
    assert all(one[1:] == other[:-1] for one, other in zip(ids, labels, strict=True))
    return _of_blocks(ids)


def automodel(case: Case) -> Fed:
    """The batch of a step, by AutoModel's own collation."""
    from nemo_automodel.components.datasets.utils import default_collater

    from jobs.backends.automodel.data import PairsConfig
    from jobs.training import pairs

    path, place = case.data / "train.jsonl", case.scratch / "rows"
    fit, tokenizer = pairs.Fit(LENGTH), tokenizers.load(case.model)
    pairs.dataset(path, "instructions", FINGERPRINT, tokenizer, fit, place, _context())
    built = PairsConfig(str(path), str(place), str(case.model), case.rows, 1).build()
    batch = default_collater(list(built))
    found: Fed = []
    for ids, labels, real in zip(
        *(batch[name].tolist() for name in ("input_ids", "labels", "attention_mask")), strict=True
    ):
        size = sum(real)
        assert real == [1] * size + [0] * (len(real) - size)
        assert all(label == -100 for label in labels[size:])
        # The label beside a token is the token after it.
        assert all(label in (-100, one) for one, label in zip(ids[1:size], labels, strict=False))
        last = labels[size - 1]
        found.append(([*ids[:size], None if last == -100 else last], [False, *(one != -100 for one in labels[:size])]))
    return found


def nemo(case: Case, packed: bool = False) -> Fed:
    """All rows in one batch, by the collation of NeMo's data set."""
    from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer

    from jobs.backends.nemo import data
    from jobs.backends.nemo.settings import NemoSettings

    tokenizer = AutoTokenizer(str(case.model))
    settings = NemoSettings.read({**TRAINING, "packed": packed})
    given = Input("data", str(case.data.parent), "dataset", "instructions", FINGERPRINT)
    scratch = case.scratch / ("packed" if packed else "alone")
    data.pairs(given, scratch, settings, tokenizer.tokenizer)
    kind = data.Packs if packed else data.Pairs
    rows = kind(str(scratch / data.TRAINING), tokenizer, max_seq_length=LENGTH, memmap_workers=1)
    batch = rows.collate_fn([rows[at] for at in range(len(rows))])
    names = ("tokens", "labels", "loss_mask", "position_ids")
    found: Fed = []
    for ids, labels, mask, places in zip(*(batch[name].tolist() for name in names), strict=True):
        starts = [at for at, place in enumerate(places) if place == 0] if packed else [0]
        for start, end in itertools.pairwise([*starts, len(ids)]):
            if any(mask[start:end]):
                # The label beside an id is the id after it; behind the last label the row is filled up.
                others = [at for at in range(start, end - 1) if ids[at + 1] != labels[at]]
                assert len(others) <= 1
                assert not any(mask[at] for other in others for at in range(other + 1, end))
                found.append(([ids[start], *labels[start:end]], [False, *map(bool, mask[start:end])]))
    return found


def nemo_packed(case: Case) -> Fed:
    """The rows of packed sequences."""
    return nemo(case, True)


def _texts_of_nemo_rl(case: Case) -> tuple[list[dict[str, str]], bool, bool, Any]:
    """The rows of the file that NeMo-RL reads, whether it adds a beginning and an end token, and the tokenizer."""
    from jobs.backends.nemo_rl import schemas, settings, texts

    schema = schemas.of("0.6.0")
    assert schema is not None
    read = settings.read("sft", TRAINING)
    made = texts.prepare(read, schema, case.data / "train.jsonl", case.model, case.scratch / "nemo_rl")
    rows = [json.loads(line) for line in made.path.read_text(encoding="utf-8").splitlines()]
    return rows, made.bos, made.eos, tokenizers.load(case.model)


def nemo_rl(case: Case) -> Fed:
    """The ids of the file that NeMo-RL reads, by our description of what it does."""
    from jobs.backends.nemo_rl import texts

    rows, bos, eos, tokenizer = _texts_of_nemo_rl(case)
    adds = texts.Adds(bos, eos, False)
    made = [texts.as_nemo_rl(tokenizer, row["prompt"], row["completion"], adds) for row in rows]
    return [(list(one.ids), list(one.mask)) for one in made]


def nemo_rl_itself(case: Case) -> Fed:
    """The same by NeMo-RL's own functions."""
    from nemo_rl.data.interfaces import TaskDataSpec
    from nemo_rl.data.llm_message_utils import add_loss_mask_to_message_log, batched_message_log_to_flat_message
    from nemo_rl.data.processors import sft_processor

    from jobs.backends.nemo_rl.render import PLAIN

    rows, bos, eos, tokenizer = _texts_of_nemo_rl(case)
    tokenizer = copy(tokenizer)
    tokenizer.chat_template = PLAIN
    logs = []
    for at, row in enumerate(rows):
        named = (("user", "prompt"), ("assistant", "completion"))
        messages = [{"role": role, "content": row[name]} for role, name in named]
        one = {"messages": messages, "task_name": "rows"}
        made = sft_processor(one, TaskDataSpec(task_name="rows"), tokenizer, LENGTH, at, add_bos=bos, add_eos=eos)
        assert made["loss_multiplier"] == 1
        logs.append(made["message_log"])
    add_loss_mask_to_message_log(logs, roles_to_train_on=["assistant"])
    flat, lengths = batched_message_log_to_flat_message(logs, pad_value_dict={"token_ids": tokenizer.pad_token_id})
    return [
        (ids[:size], [bool(one) for one in mask[:size]])
        for ids, mask, size in zip(
            flat["token_ids"].tolist(), flat["token_loss_mask"].tolist(), lengths.tolist(), strict=True
        )
    ]


FEEDS: dict[str, tuple[Callable[[Case], Fed], str]] = {
    "trl": (trl, "instructions"),
    "trl preferences": (trl_preferences, "preferences"),
    "trl corpus": (trl_corpus, "corpus"),
    "automodel corpus": (automodel_corpus, "corpus"),
    "nemo corpus": (nemo_corpus, "corpus"),
    "automodel": (automodel, "instructions"),
    "nemo": (nemo, "instructions"),
    "nemo packed": (nemo_packed, "instructions"),
    "nemo_rl": (nemo_rl, "last"),
    "nemo_rl itself": (nemo_rl_itself, "last"),
}
"""What feeds rows, and the data sets that it is given."""


def fed(name: str, directory: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Of each model and data set what is fed, or why it is refused."""
    feed, sets = FEEDS[name]
    found: dict[str, dict[str, dict[str, Any]]] = {}
    with mock.patch.object(tokenizers, "load", lru_cache(maxsize=2)(tokenizers.load)):
        for model in sorted(directory.iterdir()):
            found[model.name] = {}
            for data in sorted((model / sets).iterdir()) if (model / sets).is_dir() else ():
                one: dict[str, Any] = {"fed": [], "refused": ""}
                try:
                    one["fed"] = feed(Case(data / "output", model / "tokenizer", data / feed.__name__))
                except examples.ExamplesError as error:
                    one["refused"] = str(error)
                found[model.name][data.name] = one
    return found


if __name__ == "__main__":
    print(json.dumps({name: fed(name, Path(sys.argv[2])) for name in sys.argv[1].split(",")}))
