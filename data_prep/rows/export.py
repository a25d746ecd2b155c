"""Rows in the forms that other back ends and their versions read, beside the store's own.

===================  ============  =============================================================================
form                 kind          what is written
===================  ============  =============================================================================
nemo                 instructions  ``training/validation/test.jsonl`` of input, output (NeMo, FineTuningDataModule)
trl                  instructions  prompt, completion; of conversations messages, where all answers are learned, or
                                   prompt and completion as messages, where the last one is (TRL, SFTTrainer)
trl-pairs            preferences   prompt, chosen, rejected; texts or messages (TRL, DPOTrainer)
nemo-rl-0.3          preferences   prompt, chosen_response, rejected_response (NeMo-RL 0.2 and 0.3, DPODataset)
nemo-rl              preferences   prompt, chosen, rejected as texts (0.4 and later, BinaryPreferenceDataset)
nemo-rl-preference   preferences   context and ranked completions as messages (0.4 and later, PreferenceDataset)
===================  ============  =============================================================================

Forms of texts get conversations as the chat template of ``prepare.tokenizer`` writes them; forms of messages keep the
messages, since the program that reads them applies a template.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ExportRow = Mapping[str, Any]
TextsOf = Callable[[ExportRow], Mapping[str, tuple[str, str]]]
"""The prompt and the answer of each sequence of a row as texts."""


@dataclass(frozen=True)
class ExportForm:
    """A form of one kind: what a row becomes, and the name of the file of the training split."""

    kind: str
    convert: Callable[[ExportRow, TextsOf], dict[str, Any]]
    training: str = "train"


class NoForm(Exception):
    """A row that a form has no place for."""


def _input_output(row: ExportRow, texts: TextsOf) -> dict[str, Any]:
    ((prompt, answer),) = texts(row).values()
    return {"input": prompt, "output": answer}


def _trl(row: ExportRow, texts: TextsOf) -> dict[str, Any]:
    if "messages" not in row:
        ((prompt, answer),) = texts(row).values()
        return {"prompt": prompt, "completion": answer}
    messages = [{key: value for key, value in one.items() if key != "weight"} for one in row["messages"]]
    learned = [bool(one.get("weight", 1)) for one in row["messages"] if one["role"] == "assistant"]
    more = {name: row[name] for name in ("tools", "chat_template_kwargs") if name in row}
    if all(learned):
        return {"messages": messages, **more}
    if learned[-1] and not any(learned[:-1]):
        return {"prompt": messages[:-1], "completion": messages[-1:], **more}
    raise NoForm("TRL has no setting for which of several answers are learned: answers: last or each")


def _pairs(row: ExportRow, texts: TextsOf) -> dict[str, Any]:
    if not isinstance(row["prompt"], str):
        return {name: value for name, value in row.items() if name not in ("id", "meta")}
    return _texts_of_pair(row, texts)


def _texts_of_pair(row: ExportRow, texts: TextsOf) -> dict[str, Any]:
    found = texts(row)
    if len({prompt for prompt, _ in found.values()}) > 1:
        raise NoForm("the template writes other prompts before the two answers")
    return {"prompt": found["chosen"][0], "chosen": found["chosen"][1], "rejected": found["rejected"][1]}


def _responses(row: ExportRow, texts: TextsOf) -> dict[str, Any]:
    found = _texts_of_pair(row, texts)
    return {name if name == "prompt" else f"{name}_response": text for name, text in found.items()}


def _ranked(row: ExportRow, texts: TextsOf) -> dict[str, Any]:
    if "tools" in row:
        raise NoForm("nemo-rl-preference has no place for tools")

    def messages(name: str, role: str) -> list[dict[str, Any]]:
        value = row[name]
        return [{"role": role, "content": value}] if isinstance(value, str) else list(value)

    answers = [
        {"rank": rank, "completion": messages(name, "assistant")} for rank, name in enumerate(("chosen", "rejected"))
    ]
    return {"context": messages("prompt", "user"), "completions": answers}


FORMS: dict[str, ExportForm] = {
    "nemo": ExportForm("instructions", _input_output, "training"),
    "trl": ExportForm("instructions", _trl),
    "trl-pairs": ExportForm("preferences", _pairs),
    "nemo-rl-0.3": ExportForm("preferences", _responses),
    "nemo-rl": ExportForm("preferences", _texts_of_pair),
    "nemo-rl-preference": ExportForm("preferences", _ranked),
}
"""Name of a form -> what it is."""


def write(output: Path, form: str, split: str, rows: Iterable[ExportRow], texts: TextsOf) -> None:
    """Write the rows of one split to ``output/<form>/``.

    Raises:
        NoForm: the form has no place for a row.
    """
    own = FORMS[form]
    directory = output / form
    directory.mkdir(exist_ok=True)
    name = own.training if split == "train" else split
    with open(directory / f"{name}.jsonl", "w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(json.dumps(own.convert(row, texts), ensure_ascii=False) + "\n" for row in rows)
