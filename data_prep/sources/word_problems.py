"""Word problems in several languages, made from templates: the same numbers and persons in each language, every step of
the solution known. All that a seed decides is the same on every machine."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.common.errors import DataError
from data_prep.common.settings import SPLITS, WRITTEN, SourceSettings, SplitSettings
from data_prep.common.split import assign

NAMES = (
    ("Anna", "Ana", "민지"), ("Paul", "Pablo", "민호"), ("Laura", "Laura", "지수"), ("Peter", "Pedro", "준호"),
    ("Lucy", "Lucía", "유나"), ("Charles", "Carlos", "지호"), ("Helen", "Elena", "서아"), ("James", "Jaime", "진수"),
)  # fmt: skip
# What can be counted with 개 in Korean and is masculine in Spanish, so that a template fits every thing.
THINGS = (
    ("eggs", "huevos", "달걀"), ("sweets", "caramelos", "사탕"), ("balloons", "globos", "풍선"),
    ("tomatoes", "tomates", "토마토"), ("cups", "vasos", "컵"), ("peppers", "pimientos", "고추"),
    ("rings", "anillos", "반지"),
)  # fmt: skip
ANSWERS = {"en": "Answer", "es": "Respuesta", "ko": "답"}


@dataclass(frozen=True)
class ProblemTemplate:
    """``draw``: numbers for a problem in which none is larger than the bound; ``solve``: its steps, each ``a + b = c``,
    the last of which has the answer; ``texts`` by language, with ``{name}``, ``{thing}`` and the numbers."""

    draw: Callable[[random.Random, int], dict[str, int]]
    solve: Callable[[dict[str, int]], list[tuple[int, str, int, int]]]
    texts: dict[str, str]


def _two(rng: random.Random, largest: int) -> dict[str, int]:
    return {"a": rng.randint(2, largest - 2), "b": rng.randint(2, largest - 2)}


def _less(rng: random.Random, largest: int) -> dict[str, int]:
    a = rng.randint(4, largest)
    return {"a": a, "b": rng.randint(1, a - 2)}


def _times(rng: random.Random, largest: int) -> dict[str, int]:
    a = rng.randint(2, max(2, min(9, largest // 2)))
    return {"a": a, "b": rng.randint(2, max(2, min(9, largest // a)))}


def _three(rng: random.Random, largest: int) -> dict[str, int]:
    a, b = rng.randint(2, largest - 2), rng.randint(2, largest - 2)
    return {"a": a, "b": b, "c": rng.randint(1, min(largest, a + b - 1))}


TEMPLATES = (
    ProblemTemplate(
        _two,
        lambda n: [(n["a"], "+", n["b"], n["a"] + n["b"])],
        {
            "en": "{name} has {a} {thing} and buys {b} more. How many {thing} does {name} have now?",
            "es": "{name} tiene {a} {thing} y compra {b} más. ¿Cuántos {thing} tiene {name} ahora?",
            "ko": "{name}는 {thing} {a}개를 가지고 있고 {b}개를 더 삽니다. 이제 {thing}의 수는 몇 개입니까?",
        },
    ),
    ProblemTemplate(
        _less,
        lambda n: [(n["a"], "-", n["b"], n["a"] - n["b"])],
        {
            "en": "{name} has {a} {thing} and gives away {b}. How many {thing} does {name} have left?",
            "es": "{name} tiene {a} {thing} y regala {b}. ¿Cuántos {thing} le quedan a {name}?",
            "ko": "{name}는 {thing} {a}개를 가지고 있고 {b}개를 나누어 줍니다. 남은 {thing}의 수는 몇 개입니까?",
        },
    ),
    ProblemTemplate(
        _times,
        lambda n: [(n["a"], "x", n["b"], n["a"] * n["b"])],
        {
            "en": "{name} buys {a} bags with {b} {thing} in each. How many {thing} does {name} buy?",
            "es": "{name} compra {a} bolsas con {b} {thing} en cada una. ¿Cuántos {thing} compra {name}?",
            "ko": "{name}는 {thing}이 {b}개씩 든 봉지 {a}개를 삽니다. {name}가 산 {thing}의 수는 몇 개입니까?",
        },
    ),
    ProblemTemplate(
        _three,
        lambda n: [(n["a"], "+", n["b"], n["a"] + n["b"]), (n["a"] + n["b"], "-", n["c"], n["a"] + n["b"] - n["c"])],
        {
            "en": "{name} has {a} {thing}, buys {b} more and then loses {c}. How many {thing} are left?",
            "es": "{name} tiene {a} {thing}, compra {b} más y luego pierde {c}. ¿Cuántos {thing} quedan?",
            "ko": "{name}는 {thing} {a}개를 가지고 있고 {b}개를 더 산 뒤 {c}개를 잃습니다. 남은 {thing}의 수는?",
        },
    ),
)


def problems(settings: SourceSettings, seed: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Of each problem its name (``twin``) and its rows, one for each language: ``count`` different ones.

    Raises:
        DataError: there are not so many.
    """
    rng = random.Random(f"word problems {seed}")
    able = [one for one in TEMPLATES if len(one.solve(one.draw(random.Random(0), settings.largest))) <= settings.steps]
    seen: set[str] = set()
    in_vain = 0
    while len(seen) < settings.count:
        in_vain += 1
        if in_vain > 1000 + 20 * len(seen):  # the last one of N comes after N draws, on average
            raise DataError(
                f"there are no {settings.count} different word problems with numbers up to {settings.largest}: "
                "write a lower count, or a larger number as largest"
            )
        template = rng.choice(able)
        name, thing, numbers = rng.choice(NAMES), rng.choice(THINGS), template.draw(rng, settings.largest)
        twin = f"{TEMPLATES.index(template)}-{name[0]}-{thing[0]}-{'-'.join(map(str, numbers.values()))}"
        if twin in seen:
            continue
        seen.add(twin)
        in_vain = 0
        yield twin, [_row(template, language, name, thing, numbers, twin) for language in settings.languages]


def _row(
    template: ProblemTemplate,
    language: str,
    name: tuple[str, ...],
    thing: tuple[str, ...],
    numbers: dict[str, int],
    twin: str,
) -> dict[str, Any]:
    at = WRITTEN.index(language)
    text = template.texts[language].replace("{thing}이", f"{thing[at]}{_subject(thing[at])}")
    asked = text.format(name=name[at], thing=thing[at], **numbers)
    steps = template.solve(numbers)
    worked = "".join(f"{a} {sign} {b} = {c}\n" for a, sign, b, c in steps)
    answer = f"{worked}{ANSWERS[language]}: {steps[-1][3]}"
    return {
        "id": f"{language}-{twin}", "prompt": f"{asked}\n", "completion": answer,
        "language": language, "twin": twin, "steps": len(steps),
    }  # fmt: skip


def _subject(word: str) -> str:
    """The Korean particle of a subject: 이 behind a consonant, 가 behind a vowel."""
    return "이" if (ord(word[-1]) - 0xAC00) % 28 else "가"


def write(settings: SourceSettings, split: SplitSettings, directory: Path) -> None:
    """A file a split in ``directory``. The twins of a problem are in one split, which its name and the seed decide: so
    sources in other languages have the same problems in the same splits."""
    directory.mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = {name: [] for name in SPLITS}
    for twin, rows in problems(settings, split.seed):
        lines[assign(twin, split)] += [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    for name, part in split.parts().items():
        if part > 0:
            (directory / f"{name}.jsonl").write_text("".join(lines[name]), encoding="utf-8")
