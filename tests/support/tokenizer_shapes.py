"""Small tokenizers in the shapes that people have, each with control tokens, for what must hold of all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

TEXTS = ["Hi there, Yes, hello. ends a turn <|im_start|> <|im_end|> </s> <s> user system assistant Paris [INST]"] * 9
CONTROL = ["<|im_start|>", "<|im_end|>"]
CHATML = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_level(directory: Path) -> Path:
    """As of Llama 3, Qwen, SmolLM2: bytes as letters, nothing put around a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>", *CONTROL], initial_alphabet=alphabet, show_progress=False
    )
    own.train_from_iterator(TEXTS, trainer)
    return _written(directory, own.to_str(), {"bos_token": "<s>", "eos_token": "</s>"})


def begins(directory: Path) -> Path:
    """As of Llama 3 and Gemma: a beginning token before each text."""
    value = json.loads((byte_level(directory) / "tokenizer.json").read_text())
    _put_before(value, "<s>", 0)
    (directory / "tokenizer.json").write_text(json.dumps(value))
    return directory


def spaced(directory: Path) -> Path:
    """As of Llama 2: spaces as letters, one before each text, names of tokens in another file, and a control token
    that takes the line end behind it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers

    own = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    own.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    own.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    own.train_from_iterator(TEXTS, trainer)
    own.add_special_tokens([AddedToken("<|im_end|>", rstrip=True, normalized=False), "<|im_start|>"])
    value = json.loads(own.to_str())
    _put_before(value, "<s>", 1)
    _written(directory, json.dumps(value), {})
    (directory / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    return directory


def metaspace(directory: Path, prefix: str) -> Path:
    """As of Mistral: spaces as letters by the pre-tokenizer, one before the ``first`` piece of a text, ``always``, or
    ``never``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    own = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    own.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix, split=False)
    own.decoder = decoders.Metaspace(prepend_scheme=prefix)
    special = ["<unk>", "<s>", "</s>", *CONTROL]
    own.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return _written(directory, own.to_str(), names)


def unmarked(directory: Path) -> Path:
    """The end token is no special one in tokenizer.json; transformers makes it one, since it is named."""
    value = json.loads((byte_level(directory) / "tokenizer.json").read_text())
    next(token for token in value["added_tokens"] if token["content"] == "</s>")["special"] = False
    (directory / "tokenizer.json").write_text(json.dumps(value))
    return directory


def named_only(directory: Path) -> Path:
    """Two control tokens stand in the vocabulary alone; one is named, the other listed with what it is."""
    value = json.loads((byte_level(directory) / "tokenizer.json").read_text())
    ids = {token["content"]: token["id"] for token in value["added_tokens"]}
    value["added_tokens"] = [token for token in value["added_tokens"] if token["content"] in ("<s>", "<|im_start|>")]
    (directory / "tokenizer.json").write_text(json.dumps(value))
    config = json.loads((directory / "tokenizer_config.json").read_text())
    one = {"content": "<|im_end|>", "special": True, "lstrip": False, "rstrip": False, "single_word": False}
    config["added_tokens_decoder"] = {str(ids["<|im_end|>"]): {**one, "normalized": False}}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""The pattern in tokenizer.json of Llama 3; that of Qwen 2 and 3 takes digits one by one."""


def llama3(directory: Path) -> Path:
    """As of Llama 3: up to three digits together, a whole word of the vocabulary as it is, a beginning token."""
    value = json.loads(_by_pattern(WORDS, ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]))
    value["model"]["ignore_merges"] = True
    _put_before(value, "<|begin_of_text|>", 0)
    names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    return _written(directory, json.dumps(value), names)


def qwen(directory: Path) -> Path:
    """As of Qwen 2 and 3: letters are composed, digits stand alone, and two tokens are added that are no control tokens."""
    from tokenizers import AddedToken, Tokenizer, normalizers

    own = Tokenizer.from_str(_by_pattern(WORDS.replace("{1,3}", ""), ["<|endoftext|>", *CONTROL]))
    own.normalizer = normalizers.NFC()
    own.add_tokens([AddedToken(name, normalized=False, special=False) for name in ("<think>", "</think>")])
    return _written(directory, own.to_str(), {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})


def _by_pattern(pattern: str, special: list[str]) -> str:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    own = Tokenizer(models.BPE())
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    own.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), whole])
    own.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=390,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    own.train_from_iterator([*TEXTS, "the year 2024 has 12345 days, says 12 of 345"] * 9, trainer)
    return str(own.to_str())


SHAPES: dict[str, Callable[[Path], Path]] = {
    one.__name__: one for one in (byte_level, begins, spaced, unmarked, named_only)
}


def unigram(directory: Path) -> Path:
    """Its pieces hold the control tokens, too, so that text which spells one out becomes its id."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = [(letter, -5.0) for letter in sorted({*"".join(TEXTS), "▁"} - {" "})]
    own = Tokenizer(models.Unigram([("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *letters], unk_id=0))
    own.pre_tokenizer = pre_tokenizers.Metaspace()
    own.decoder = decoders.Metaspace()
    own.add_special_tokens(["<unk>", "<s>", "</s>"])
    return _written(directory, own.to_str(), {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})


def _put_before(value: dict, token: str, number: int) -> None:
    before, text = {"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    value["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [before, text],
        "pair": [before, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
    }


def _written(directory: Path, tokenizer: str, config: dict[str, str]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(tokenizer)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    (directory / "chat_template.jinja").write_text(CHATML)
    return directory
