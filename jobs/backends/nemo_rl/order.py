"""The rows of all steps in the order of training, as a file that NeMo-RL reads from its beginning to its end.

NeMo-RL itself drops the last, incomplete batch of each epoch, other rows each time. 0.3 cannot be told not to shuffle;
it gets each row once and does just that.
"""

from __future__ import annotations

from array import array
from dataclasses import replace
from pathlib import Path

from jobs.backends.nemo_rl.schemas import DataStyle, Schema
from jobs.backends.nemo_rl.settings import RlSettings
from jobs.backends.nemo_rl.texts import PreparedTexts
from jobs.core import files
from jobs.training.order import training_order

NAME = "ordered.jsonl"


def place(schema: Schema, data: Path, scratch: Path) -> Path:
    """The file that NeMo-RL reads, given the one with each row once."""
    return data if schema.data is DataStyle.FIXED else scratch / NAME


def write(data: PreparedTexts, settings: RlSettings, schema: Schema, scratch: Path) -> PreparedTexts:
    """``data`` with the rows of every step, which must be counted already.

    Raises:
        DataError: fewer rows than a batch takes.
    """
    order = training_order(data.rows, settings.batch_size, settings.steps, settings.seed, where=f"{data.path}:1")
    target = place(schema, data.path, scratch)
    if target == data.path:
        return data
    starts = array("q")
    with open(data.path, "rb") as source:
        while source.peek(1):
            starts.append(source.tell())
            source.readline()
        partial = target.with_name(f".{target.name}")
        with open(partial, "wb", buffering=1 << 20) as stream:
            for index in order:
                source.seek(starts[index])
                stream.write(source.readline().rstrip(b"\n") + b"\n")
    files.flush(partial)
    partial.replace(target)
    return replace(data, path=target, rows=len(order))
