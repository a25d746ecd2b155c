"""How every stage loads a tokenizer, and what that loader makes of the probe texts.

One loader call for training, evaluation and the behaviour gate, because the same directory gives different ids in
different versions of transformers: a Llama directory saved under 4.57 names ``LlamaTokenizerFast``, whose 5.x successor
rebuilds the pre-tokenizer from scratch and ignores the one in tokenizer.json.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from jobs.core.verdict import FailureClass
from jobs.encoding.load import load as load
from jobs.training.probe_texts import PROBE_TEXTS

CARRIED = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges*", "*.model", "*.spm", "*.tiktoken",
    "tekken.json", "chat_template*", "*processor_config.json", "generation_config.json", "LICEN[CS]E*", "NOTICE*",
    "COPYING*", "USE_POLICY*",
)  # fmt: skip
"""What makes up the tokenizer of a Hugging Face directory, the generation settings, and the terms of the model."""

CARRIED_DIRECTORIES = ("additional_chat_templates",)
_CODE = (".py", ".pyc", ".pkl", ".pt", ".bin", ".so")


def behaviour(checkpoint: Path) -> dict[str, Any]:
    """What ``load`` makes of the probe texts: plain JSON, compared with ``==`` across versions."""
    tokenizer = load(checkpoint)
    template = tokenizer.chat_template
    return {
        "probe_ids": [list(tokenizer(text)["input_ids"]) for text in PROBE_TEXTS],
        "special_ids": {
            "bos": tokenizer.bos_token_id,
            "eos": tokenizer.eos_token_id,
            "pad": tokenizer.pad_token_id,
        },
        "chat_template": None if template is None else hashlib.sha256(str(template).encode()).hexdigest(),
        "vocab_size": len(tokenizer),
    }


class LoaderDisagrees(RuntimeError):
    """The loader of training gives other ids than the directory's own tokenizer.json."""

    failure = FailureClass.TOKENIZER


def check_fetched(checkpoint: Path) -> None:
    """Compare the loader with the plain tokenizer.json of a directory that no stage of ours has made.

    Without special tokens: which of them go around a text is for the loader's configuration to say, the ids are not.

    Raises:
        LoaderDisagrees: with the text and both lists of ids.
    """
    if (checkpoint / "tokenizer.json").is_file():
        check_against_file(checkpoint, PROBE_TEXTS, add_special_tokens=False)


def check_against_file(checkpoint: Path, texts: Iterable[str], **how: bool) -> None:
    """Compare the loader with tokenizer.json, as the ``tokenizers`` library reads it.

    Raises:
        LoaderDisagrees: with the text and both lists of ids.
    """
    from tokenizers import Tokenizer

    raw, loaded = Tokenizer.from_file(str(checkpoint / "tokenizer.json")), load(checkpoint)
    for text in texts:
        right, found = raw.encode(text, **how).ids, list(loaded(text, **how)["input_ids"])
        if found != right:
            raise LoaderDisagrees(
                f"{checkpoint}: {type(loaded).__name__} of this environment gives other ids than tokenizer.json "
                f"for {text!r}:\n  tokenizer.json: {right}\n  loader:         {found}"
            )


def is_carried(name: str) -> bool:
    """Whether a file of a Hugging Face directory goes along with the tokenizer; code and pickles never do."""
    return not name.endswith(_CODE) and any(fnmatchcase(name, pattern) for pattern in CARRIED)


def carry_over(source: Path, target: Path) -> None:
    """Copy the tokenizer's files byte by byte: saving them through the library would rewrite class names in them."""
    found = [path for path in sorted(source.iterdir()) if path.is_file() and is_carried(path.name)]
    for directory in CARRIED_DIRECTORIES:
        found += [
            path for path in sorted((source / directory).glob("*")) if path.is_file() and path.suffix not in _CODE
        ]
    for path in found:
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def carry_as_hf(source: Path, target: Path) -> None:
    """Copy configuration and tokenizer of ``source`` into ``hf/`` of a checkpoint of another format, byte by byte."""
    (target / "hf").mkdir(parents=True, exist_ok=True)
    carry_over(source, target / "hf")
    if (source / "config.json").is_file():
        shutil.copyfile(source / "config.json", target / "hf" / "config.json")
