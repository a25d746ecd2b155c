"""Kinds of stages and what they read, as names: for those who need the names and not the typed stages."""

from __future__ import annotations

from collections.abc import Iterable

DATA_KINDS = ("corpus", "instructions", "preferences")
TRAINING_DATA = {"cpt": "corpus", "sft": "instructions", "dpo": "preferences"}
"""Kind of a training stage -> kind of the data stage that it reads."""
TRAINING_KINDS = tuple(TRAINING_DATA)
TASK_KINDS = {
    "perplexity": "corpus",
    "answers": "instructions",
    "translation": "instructions",
    "preferences": "preferences",
}
"""Evaluation task -> kind of the data stage that it reads."""
TASK_METRICS = {
    "perplexity": ("perplexity", "bits_per_byte"),
    "answers": ("answer_loss",),
    "translation": ("chrf", "exact_match"),
    "preferences": ("accuracy", "margin"),
}
"""Evaluation task -> what it measures, for the gate. A test holds both tables against ``jobs.evaluate``."""
FETCHED = "base"
"""What ``checkpoint`` says for the fetched base model."""


def measured(tasks: Iterable[str]) -> dict[str, tuple[str, str]]:
    """What a gate may be called (``metric``, ``task.metric``) -> task and metric, for an evaluation of these tasks."""
    found = {metric: (task, metric) for task in tasks for metric in TASK_METRICS.get(task, ())}
    return found | {f"{task}.{metric}": (task, metric) for task, metric in found.values()}
