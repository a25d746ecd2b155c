"""Wheels made of invented messages: the readers see real zip files and real catalogues, but nobody's texts."""

from __future__ import annotations

import hashlib
import json
import random
import zipfile
from pathlib import Path

import polib

from jobs.core.spec import Source

HEADER = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n'
LICENCE = "License-Expression: MIT"


def write_wheel(
    directory: Path, project: str, catalogues: dict[str, bytes], version: str = "1.0", licence: str = LICENCE
) -> Path:
    path = directory / f"{project.replace('-', '_')}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in catalogues.items():
            archive.writestr(name, content)
        archive.writestr(
            f"{project}-{version}.dist-info/METADATA",
            f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n{licence}\n\nText\n",
        )
    return path


def po(messages: dict[str, str]) -> bytes:
    catalogue = polib.POFile()
    catalogue.metadata = {"Content-Type": "text/plain; charset=UTF-8"}
    for source, target in messages.items():
        catalogue.append(polib.POEntry(msgid=source, msgstr=target))
    return str(catalogue).encode()


# Words of the invented catalogues: source, European, Brazilian.
_THINGS = [
    ("file", "ficheiro", "arquivo"), ("screen", "ecrã", "tela"), ("user", "utilizador", "usuário"),
    ("train", "comboio", "trem"), ("bus", "autocarro", "ônibus"), ("brick", "tijolo", "tijolo"),
    ("lawn", "relvado", "gramado"), ("mug", "caneca", "caneca"), ("fridge", "frigorífico", "geladeira"),
    ("team", "equipa", "time"), ("juice", "sumo", "suco"), ("suit", "fato", "terno"),
]  # fmt: skip
_ACTS = [
    ("Lift", "Levantar", "Levantar"),
    ("Find", "Encontrar", "Achar"),
    ("Paint", "Pintar", "Pintar"),
    ("Turn", "Virar", "Girar"),
    ("Move", "Mover", "Mover"),
    ("Sell", "Vender", "Vender"),
]
_PLACES = [("garden", "jardim"), ("kitchen", "cozinha"), ("attic", "sótão"), ("harbour", "porto"), ("cellar", "cave")]


def invented(seed: int) -> tuple[dict[str, str], dict[str, str]]:
    """European and Brazilian messages; with repetitions in other spellings, and translations shared by two sources."""
    dice = random.Random(seed)
    target: dict[str, str] = {}
    contrast: dict[str, str] = {}
    for act in _ACTS:
        for thing in _THINGS:
            for place in dice.sample(_PLACES, 3):
                source = f"{act[0]} the {thing[0]} in the {place[0]}"
                if dice.random() < 0.1:
                    source = source.upper() + "!"
                if dice.random() < 0.1:
                    source = source.replace("the ", "a ", 1)
                target[source] = f"{act[1]} o {thing[1]} ({place[1]})"
                contrast[source] = f"{act[2]} o {thing[2]} ({place[1]})"
    return target, contrast


def read_rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def source_of(path: Path) -> Source:
    content = path.read_bytes()
    return Source(str(path), hashlib.sha256(content).hexdigest(), len(content))
