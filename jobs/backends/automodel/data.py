"""Training data in the shapes that AutoModel reads: ``.bin``/``.idx`` for CPT, rows of ids and labels for SFT.

The ids are made by ``jobs.training.examples``, as for every other back end and for evaluation. AutoModel's own data set
of prompts and answers tokenises them in its own way, so a model would be scored on other ids than it was trained on.
"""

from __future__ import annotations

import fcntl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.backends.automodel.settings import AutomodelSettings
from jobs.core import files
from jobs.core.spec import Input
from jobs.training import examples, tokenizers
from jobs.training.examples import ExamplesError
from jobs.training.order import training_order
from jobs.training.tokens import encode_text, tokens_prefix

READY = "ready.json"
"""Written last; says what the files beside it were made from."""


def corpus(given: Input, scratch: Path, settings: AutomodelSettings, tokenizer: Any) -> Path:
    """Prefix of the ``.bin`` and ``.idx`` files of a corpus; written where the input is still text.

    Raises:
        DataError: the files of a tokenised corpus are missing, or the corpus is shorter than one sequence.
    """
    if given.format == "tokens":
        return tokens_prefix(given.output, settings.split)
    import numpy

    from data_prep.tokens.indexed import IndexedWriter, dtype_for

    prefix = scratch / "corpus"
    scratch.mkdir(parents=True, exist_ok=True)
    made_from = {"fingerprint": given.fingerprint, "split": settings.split, "length": settings.sequence_length}
    if files.read_json_or_none(scratch / READY) == made_from:
        return prefix
    source = given.output / f"{settings.split}.jsonl"
    writer = IndexedWriter(prefix, dtype_for(len(tokenizer)))
    tokens = 0
    for row in examples.read_rows(source, "corpus"):
        ids = encode_text(tokenizer, row.texts["text"])
        writer.add(numpy.array(ids))
        tokens += len(ids)
    writer.close()
    if tokens <= settings.sequence_length:
        raise ExamplesError(f"{source}:1: {tokens} tokens are less than one sequence of {settings.sequence_length}")
    files.write_json(scratch / READY, made_from)
    return prefix


def free_builds(root: Path) -> None:
    """Remove what a process that was killed while it compiled AutoModel's index has left below ``root``.

    torch marks a build by a file ``lock`` and waits for ever where its maker has gone. AutoModel holds ``compile.lock``
    (a lock of the kernel, which ends with its process) around each build; a mark without it is a dead one's.
    """
    for directory in root.glob("*"):
        try:
            with open(directory / "compile.lock", "a") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (directory / "lock").unlink(missing_ok=True)
        except OSError:  # somebody builds there, or it is not ours
            continue


@dataclass
class PairsConfig:
    """What the configuration names as its data set: the examples of all steps in the order of training.

    The tokenizer is that of ``checkpoint`` by our loader: AutoModel's own puts special tokens around what it encodes.
    """

    path: str
    checkpoint: str
    seq_length: int
    batch_size: int
    steps: int
    seed: int = 0
    too_long: str = "error"

    def build(self) -> list[dict[str, Any]]:
        """One mapping a row: ``input_ids``, ``labels`` (that of the next token; -100 in the prompt),
        ``attention_mask``.

        Raises:
            DataError: a row longer than ``seq_length``, unless such rows are to be left out; no row at all.
        """
        tokenizer = tokenizers.load(Path(self.checkpoint))
        source = Path(self.path)
        rows = examples.read_rows(source, "instructions")
        kept = examples.fitting_pairs(rows, source, tokenizer, self.seq_length, self.too_long)
        shifted = [_shifted(pair, int(tokenizer.pad_token_id)) for _, (pair,) in kept]
        order = training_order(len(shifted), self.batch_size, self.steps, self.seed)
        return [dict(shifted[index]) for index in order]


def _shifted(pair: examples.Pair, pad: int) -> dict[str, Any]:
    """AutoModel's losses take labels as they stand: the one beside a token is the token after it."""
    ids = [*pair.prompt, *pair.completion]
    labels = [-100] * len(pair.prompt) + list(pair.completion)
    return {
        "input_ids": ids[:-1],
        "labels": labels[1:],
        "attention_mask": [1] * (len(ids) - 1),
        "___PAD_TOKEN_IDS___": {"input_ids": pad, "labels": -100, "attention_mask": 0},
    }
