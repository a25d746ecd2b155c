"""What people are asked: pairs of answers, in another order for each rater, and the key that says whose they are.

Three things show how far to believe a rater: a tenth of the pairs comes twice, with the sides changed; two pairs have
a known answer (the reference of the row beside that of another row); and each rater has the sides in another order.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.core import files
from launch.base.errors import InputError
from launch.people import page
from launch.people.pairs import Pair, is_same

SHEET, TABLE, KEY = "sheet.html", "sheet.csv", "key.json"
KNOWN = 2
"""Pairs of which the right answer is known."""

REPEATED = 0.1
"""Share of the pairs that come twice."""

MODELS = ("first", "second")


@dataclass(frozen=True)
class Sheet:
    """What a rater sees (``shown``: no word of whose an answer is), and the ``key`` to it."""

    shown: dict[str, Any]
    key: dict[str, Any]


def draw(pairs: Sequence[Pair], names: tuple[str, str], count: int, raters: int, seed: int) -> Sheet:
    """A sheet of ``count`` of the pairs, chosen by hashed row, so that a longer sheet holds a shorter one.

    Raises:
        InputError: fewer than two pairs.
    """
    chosen = sorted(pairs, key=lambda pair: hashlib.sha256(pair.row.encode()).digest())[:count]
    if len(chosen) < 2:
        raise InputError("fewer than two prompts whose answers differ: there is nothing to choose between")
    generator = random.Random(seed)
    items: list[dict[str, Any]] = []
    key: dict[str, dict[str, Any]] = {}

    def add(asked: str, texts: tuple[str, str], **known: Any) -> int:
        sides = [0, 1]
        generator.shuffle(sides)
        name = f"{generator.getrandbits(64):016x}"
        items.append({"id": name, "asked": asked, "texts": [texts[side] for side in sides]})
        key[name] = {"sides": sides, **known}
        return len(items) - 1

    for pair in chosen:
        add(pair.asked, pair.answers, row=pair.row)
    for number in generator.sample(range(len(chosen)), max(1, round(REPEATED * len(chosen)))):
        again = chosen[number]
        # The same pair, and for every rater on the other side than before.
        index = add(again.asked, again.answers, row=again.row, repeats=items[number]["id"])
        if key[items[index]["id"]]["sides"] == key[items[number]["id"]]["sides"]:
            items[index]["texts"].reverse()
            key[items[index]["id"]]["sides"].reverse()
    others = [pair for pair in chosen if pair.reference.strip()]
    differing = (pair for pair in itertools.pairwise(others) if not is_same(*(one.reference for one in pair)))
    for one, other in itertools.islice(differing, KNOWN):
        add(one.asked, (one.reference, other.reference), row=one.row, known=0)
    orders = [_order(items, key, generator) for _ in range(raters)]
    shown: dict[str, Any] = {"items": items, "orders": orders}
    digest = hashlib.sha256(json.dumps(shown, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]
    return Sheet(
        {"sheet": digest, **shown},
        {"sheet": digest, "models": list(names), "seed": seed, "orders": orders, "items": key},
    )


def _order(items: Sequence[dict[str, Any]], key: dict[str, Any], generator: random.Random) -> list[list[Any]]:
    """Of one rater: items, each with whether its two texts change places. A repeated pair keeps its distance."""
    turned = {item["id"]: generator.random() < 0.5 for item in items}
    for name, known in key.items():
        if "repeats" in known:
            turned[name] = turned[known["repeats"]]
    first = [item["id"] for item in items if "repeats" not in key[item["id"]]]
    again = [item["id"] for item in items if "repeats" in key[item["id"]]]
    generator.shuffle(first)
    generator.shuffle(again)
    # What comes twice comes first, and again at the end.
    first.sort(key=lambda name: name not in {key[one]["repeats"] for one in again})
    return [[name, turned[name]] for name in (*first, *again)]


def write(directory: Path, sheet: Sheet) -> None:
    """Write the sheet for a browser, the same for a spreadsheet, and the key.

    Raises:
        InputError: there is a sheet already; its answers could not be read with a new key.
    """
    if (directory / KEY).exists():
        raise InputError(
            f"{directory / KEY}: there is a sheet already, and answers to it need its key; move the directory away, or "
            "choose another with --output"
        )
    directory.mkdir(parents=True, exist_ok=True)
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(("rater", "item", "turned", "asked", "left", "right", "choice (left, right, tie, neither)", "note"))
    by_name = {item["id"]: item for item in sheet.shown["items"]}
    for rater, order in enumerate(sheet.shown["orders"], 1):
        for name, turned in order:
            item = by_name[name]
            left, right = reversed(item["texts"]) if turned else item["texts"]
            texts = [_no_formula(text) for text in (item["asked"], left, right)]
            writer.writerow((rater, name, "yes" if turned else "no", *texts, "", ""))
    files.write_atomic(directory / TABLE, table.getvalue())
    files.write_atomic(directory / SHEET, page.render(sheet.shown))
    files.write_json(directory / KEY, sheet.key)


def _no_formula(text: str) -> str:
    """What a spreadsheet takes for text: a model's answer is not to be computed."""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
