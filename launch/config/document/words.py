"""Messages about values and keys of a file that are invalid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from launch.base.text import nearest, suggest
from launch.config.document.positions import Problem

SYNONYMS = {
    "learning_rate": "lr", "max_steps": "steps", "train_steps": "steps", "global_batch_size": "batch_size",
    "micro_batch": "micro_batch_size", "max_length": "sequence_length", "seq_length": "sequence_length",
    "warmup": "warmup_steps", "scheduler": "schedule", "gradient_clip": "max_grad_norm", "dtype": "precision",
    "walltime": "time", "time_limit": "time", "memory": "mem", "gpus": "gpus_per_node",
    "ntasks_per_node": "processes_per_node", "cpus_per_task": "cpus", "source": "from", "dataset": "data",
    "baseline": "compare_to", "environment": "environments", "venv": "environments", "routing": "executors",
}  # fmt: skip
"""Words that people bring from elsewhere, and what we call it."""
OF_PREPARE = frozenset(
    {"answers", "encoding", "group_by", "max_tokens", "near_duplicates", "quality", "special_tokens", "stratify_by",
     "template", "text_field", "tokenizer"}
)  # fmt: skip
"""Settings of data stages that people write one level too high; ``data_prep`` knows them all."""


OF_KIND = {"beta": "dpo", "compare_to": "evaluate", "gate": "evaluate", "tasks": "evaluate", "prepare": "data"}
"""Keys that only some kinds of stages have."""

NOT_OF_A_STAGE = {
    "env": "environment variables are set for all stages, by env in the profile",
    "depends_on": "a stage waits for what it reads: checkpoint, data, compare_to",
}
"""What people write in a stage and Overnight has elsewhere."""


def unknown_key(name: str, value: Any, known: Sequence[str]) -> Problem:
    """The fault of a key that is not among those ``known``, with the nearest of them."""
    if "kind" in known and name in OF_KIND:
        return Problem((name,), f"is a key of {OF_KIND[name]} stages, and this stage is of another kind", at_key=True)
    if "kind" in known and name in NOT_OF_A_STAGE:
        return Problem((name,), f"is not a key of a stage: {NOT_OF_A_STAGE[name]}", at_key=True)
    if name in OF_PREPARE and "prepare" in known:
        return Problem((name,), f"is a setting of prepare: write prepare: {{{name}: {show(value)}}}", at_key=True)
    near = suggest(name, known, SYNONYMS)
    if "options" in known and nearest(name, known, SYNONYMS) is None:
        near += f"; a setting of one back end goes under options: {{{name}: {show(value)}}}"
    return Problem((name,), f"unknown key; {near} (value: {show(value)})", at_key=True)


def show(value: Any) -> str:
    """A value in a message: short, text in quotes, containers by name."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
