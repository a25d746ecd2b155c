"""Rows in the forms that other back ends and their versions read, beside the store's own.

===================  ============  =============================================================================
form                 kind          what is written
===================  ============  =============================================================================
nemo                 instructions  ``training/validation/test.jsonl`` of input, output (NeMo, FineTuningDataModule)
trl                  instructions  prompt, completion (TRL, SFTTrainer)
trl-pairs            preferences   prompt, chosen, rejected (TRL, DPOTrainer)
nemo-rl-0.3          preferences   prompt, chosen_response, rejected_response (NeMo-RL 0.2 and 0.3, DPODataset)
nemo-rl              preferences   prompt, chosen, rejected as texts (0.4 and later, BinaryPreferenceDataset)
nemo-rl-preference   preferences   context and ranked completions as messages (0.4 and later, PreferenceDataset)
===================  ============  =============================================================================
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = Mapping[str, str]


@dataclass(frozen=True)
class ExportForm:
    """A form of one kind: the name of the file of each split, and what a row becomes."""

    kind: str
    convert: Callable[[Row], dict[str, Any]]
    training: str = "train"


def _ranked(row: Row) -> dict[str, Any]:
    answers = [
        {"rank": rank, "completion": [{"role": "assistant", "content": row[name]}]}
        for rank, name in enumerate(("chosen", "rejected"))
    ]
    return {"context": [{"role": "user", "content": row["prompt"]}], "completions": answers}


FORMS: dict[str, ExportForm] = {
    "nemo": ExportForm("instructions", lambda row: {"input": row["prompt"], "output": row["completion"]}, "training"),
    "trl": ExportForm("instructions", lambda row: {"prompt": row["prompt"], "completion": row["completion"]}),
    "trl-pairs": ExportForm("preferences", lambda row: {name: row[name] for name in ("prompt", "chosen", "rejected")}),
    "nemo-rl-0.3": ExportForm(
        "preferences",
        lambda row: {
            "prompt": row["prompt"],
            "chosen_response": row["chosen"],
            "rejected_response": row["rejected"],
        },
    ),
    "nemo-rl": ExportForm("preferences", lambda row: {name: row[name] for name in ("prompt", "chosen", "rejected")}),
    "nemo-rl-preference": ExportForm("preferences", _ranked),
}
"""Name of a form -> what it is."""


def write(output: Path, form: str, split: str, rows: Iterable[Row]) -> None:
    """Write the rows of one split to ``output/<form>/``."""
    own = FORMS[form]
    directory = output / form
    directory.mkdir(exist_ok=True)
    name = own.training if split == "train" else split
    with open(directory / f"{name}.jsonl", "w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(json.dumps(own.convert(row), ensure_ascii=False) + "\n" for row in rows)
