"""What is checked of texts and rows: each filter and each check of pairs, its count on the card, its choices."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tests.support.prepared", exc_type=ImportError)

from data_prep import inspect
from data_prep.common.errors import DataError, SettingsError
from data_prep.common.text import key
from data_prep.corpus import clean
from data_prep.corpus.recipe import Quality, Recipe
from data_prep.rows import pairs
from data_prep.rows.recipe import RowRecipe
from tests.support.prepared import document, make, write_lines, write_tokenizer

ALL = {"validation": 0, "test": 0}
PROSE = "The harbour was quiet before the boats came home, and nobody spoke of the storm that had passed in the night."


def card(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "card.json").read_text())
    assert found["read"] == found["kept"] + sum(found["dropped"].values())
    assert found["kept"] == sum(found["rows"].values())
    return found


def rows(output: Path, split: str = "train") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / f"{split}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        (PROSE, None),
        ("Too few words here.", "too_few_words"),
        ("1 2 3 4 5 6 7 8 9 0 " * 5, "few_letters"),
        ("a b c d e f g h i j k l m n o p q r s t u v w x y z", "odd_word_length"),
        (f"{PROSE} # # # # # # # #", "many_symbols"),
        ("\n".join(f"- {word} and more words" for word in PROSE.split()), "mostly_bullets"),
        ("\n".join(f"{line} read more..." for line in (PROSE, PROSE[::-1], PROSE.upper())), "many_ellipses"),
        ("\n".join([PROSE] * 4), "repeated_lines"),
        ("한국어문장은공백이적어도낱말이충분하다고세어야한다" * 4, None),
    ],
)
def test_the_quality_filter_names_the_limit(text: str, flaw: str | None) -> None:
    assert clean.quality_flaw(text, Quality()) == flaw


def test_other_languages_are_dropped(tmp_path: Path) -> None:
    pytest.importorskip("py3langid")
    texts = {
        "en": PROSE,
        "pt": "O barco chegou ao porto antes de amanhecer e ninguém falou da tempestade que tinha passado durante a noite toda.",
        "de": "Das Schiff kam vor dem Morgen in den Hafen, und niemand sprach von dem Sturm, der in der Nacht gewütet hatte.",
    }
    source = write_lines(tmp_path / "in.jsonl", [{"text": text} for text in texts.values()])
    make("corpus", [source], tmp_path / "out", split=ALL, languages=["pt"], quality=False)
    facts = card(tmp_path / "out")
    assert facts["dropped"] == {"other_language": 2}
    assert facts["languages"] == {"pt": 1}
    assert [row["text"] for row in rows(tmp_path / "out")] == [texts["pt"]]


def test_mojibake_is_repaired_if_wanted() -> None:
    pytest.importorskip("ftfy")
    for repair, text in ((True, "café – água"), (False, "cafÃ© â€“ Ã¡gua")):
        notes: Counter[str] = Counter()
        assert clean.normalise("cafÃ© â€“ Ã¡gua", Recipe(fix_encoding=repair), notes) == text
        assert notes["encoding_repaired"] == repair


PAIRS = [
    {"prompt": "p1", "chosen": "o ônibus azul", "rejected": "o autocarro azul"},
    {"prompt": "p2", "chosen": "um ônibus", "rejected": "outro ônibus"},
    {
        "prompt": "p3",
        "chosen": "a b c d e f g h i j k l m n o p q r s t u",
        "rejected": "a b c d e f g h i j k l m n o p q r s t x",
    },
    {"prompt": "p4", "chosen": "a long and winding answer to it", "rejected": "no"},
]


@pytest.mark.parametrize(
    ("swapped", "chosen", "dropped"),
    [
        ("drop", None, {"swapped": 1, "chosen_never": 1}),
        ("swap", "o autocarro azul", {"chosen_never": 1}),
        ("keep", "o ônibus azul", {}),
    ],
)
def test_pairs_the_wrong_way_round(tmp_path: Path, swapped: str, chosen: str | None, dropped: dict[str, int]) -> None:
    source = write_lines(tmp_path / "in.jsonl", PAIRS)
    make("preferences", [source], tmp_path / "out", split=ALL, chosen_never=["ônibus"], swapped=swapped)
    facts = card(tmp_path / "out")
    assert facts["dropped"] == dropped
    assert facts["checks"]["pairs the wrong way round (chosen_never)"] == 1
    assert {row["prompt"]: row["chosen"] for row in rows(tmp_path / "out")}.get("p1") == chosen


def test_near_identical_pairs_are_counted_or_dropped(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", PAIRS)
    make("preferences", [source], tmp_path / "counted", split=ALL)
    assert card(tmp_path / "counted")["checks"]["near-identical (from 0.95)"] == 1
    make("preferences", [source], tmp_path / "dropped", split=ALL, near_identical=0.95)
    assert card(tmp_path / "dropped")["dropped"] == {"near_identical": 1}


@given(st.lists(st.sampled_from("abcd"), max_size=9), st.lists(st.sampled_from("abcd"), max_size=9), st.floats(0, 1))
def test_a_pair_is_similar_enough_whatever_way_it_is_computed(one: list[str], other: list[str], least: float) -> None:
    exact = pairs.similarity(" ".join(one), " ".join(other))
    found = pairs.similarity(" ".join(one), " ".join(other), least)
    assert (found >= least) == (exact >= least)
    assert found == exact or exact <= found < least


def test_length_bias_is_reported(tmp_path: Path) -> None:
    given = [
        {"prompt": f"p{n}", "chosen": document(n, 9 if n % 10 else 3), "rejected": document(n + 500, 5)}
        for n in range(100)
    ]
    make("preferences", [write_lines(tmp_path / "in.jsonl", given)], tmp_path / "out", split=ALL)
    checks = card(tmp_path / "out")["checks"]
    assert checks["length: longer_wins"] > 0.8
    assert checks["length: median_chosen"] > checks["length: median_rejected"]
    assert checks["length: verdict"] == "length alone predicts which answer was chosen"
    assert "length alone tells" in (tmp_path / "out/card.html").read_text()
    assert pairs.length_bias(np.array([1, 2, 3]), np.array([2, 1, 3]))["verdict"] == "no bias to speak of"


def test_prompts_shared_with_other_data_are_counted_and_those_of_tests_dropped(tmp_path: Path) -> None:
    asked = [f"Which word comes after number {n}?" for n in range(12)]
    source = write_lines(
        tmp_path / "in.jsonl", [{"prompt": p, "chosen": "this one", "rejected": "that"} for p in asked]
    )
    sft = write_lines(tmp_path / "sft.jsonl", [{"prompt": p.upper(), "completion": "x"} for p in asked[:5]])
    tests = write_lines(tmp_path / "test.jsonl", [{"messages": [{"role": "user", "content": p}]} for p in asked[3:6]])
    make("preferences", [source], tmp_path / "out", split=ALL, compare_with=[str(sft)], evaluation=[str(tests)])
    facts = card(tmp_path / "out")
    assert facts["checks"]["prompts shared with compare_with"] == 5
    assert facts["dropped"] == {"in_evaluation": 3}
    assert not {key(p) for p in asked[3:6]} & {key(row["prompt"]) for row in rows(tmp_path / "out")}


def test_ids_that_two_rows_have(tmp_path: Path) -> None:
    given = [{"id": f"r{n % 9}", "input": f"q{n % 9}", "output": f"a{n if n < 11 else n % 9}"} for n in range(18)]
    source = write_lines(tmp_path / "in.jsonl", given)
    with pytest.raises(DataError, match=r"in\.jsonl:10: its id 'r0' is that of another row, .*in\.jsonl:1"):
        make("instructions", [source], tmp_path / "fails", split=ALL)
    make("instructions", [source], tmp_path / "skips", split=ALL, on_error="skip")
    assert card(tmp_path / "skips")["dropped"] == {"repeated_id": 2, "duplicate": 7}


def test_when_nothing_is_left_the_reasons_are_said(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": null}\n[]\n')
    with pytest.raises(DataError, match=r"dropped: 1 .*, the first .*in\.jsonl:[12]"):
        make("corpus", [tmp_path / "in.jsonl"], tmp_path / "corpus", on_error="skip")
    with pytest.raises(DataError, match=r"dropped: 1 .*, the first .*in\.jsonl:[12]"):
        make("instructions", [tmp_path / "in.jsonl"], tmp_path / "rows", on_error="skip")


def test_rows_over_the_length_may_be_kept_and_are_counted(tmp_path: Path) -> None:
    tokenizer = str(write_tokenizer(tmp_path / "tokenizer"))
    given = [{"input": f"q{n}", "output": document(n, 10 if n else 300)} for n in range(40)]
    source = write_lines(tmp_path / "in.jsonl", given)
    make("instructions", [source], tmp_path / "out", split=ALL, tokenizer=tokenizer, max_tokens=200, over_length="keep")
    facts = card(tmp_path / "out")
    assert (facts["dropped"], facts["checks"]["rows over 200 tokens"]) == ({}, 1)
    assert facts["tokens"]["train"]["longest"] > 200


def test_replay_that_is_too_short_is_refused(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{"text": document(seed)} for seed in range(60)])
    general = write_lines(tmp_path / "general.jsonl", [{"text": document(900)}])
    with pytest.raises(DataError, match=r"a share of 0\.5 is \d+ characters, but its text has \d+ .*at most 0\.0"):
        make("corpus", [source], tmp_path / "out", replay=[{"path": str(general), "share": 0.5}])
    with pytest.raises(SettingsError, match="the shares leave nothing"):
        Recipe.parse({"replay": [{"path": "a", "share": 0.5}, {"path": "b", "share": 0.5}]})


def test_the_pictures_of_a_card_show_its_counts(tmp_path: Path) -> None:
    source = write_lines(
        tmp_path / "<in> & out.jsonl", [{"text": document(seed % 50)} for seed in range(60)] + [{"text": None}]
    )
    tokenizer = str(write_tokenizer(tmp_path / "tokenizer"))
    make("corpus", [source], tmp_path / "out", split=ALL, on_error="skip", tokenizer=tokenizer)
    page = (tmp_path / "out/card.html").read_text()
    assert not re.search(r"<(script|link|img)|https?://(?!www\.w3\.org/2000/svg)", page)
    drawn = [ElementTree.fromstring(found) for found in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]
    svg = "{http://www.w3.org/2000/svg}"
    flow = [element.text for element in drawn[0].iter(f"{svg}text")]
    assert flow == ["kept", "50 (82.0 %)", "duplicate", "10 (16.4 %)", "null_field", "1 (1.6 %)"]
    kept, duplicate, null = (float(bar.attrib["width"]) for bar in drawn[0].iter(f"{svg}rect"))
    assert kept / duplicate == pytest.approx(5, rel=0.02)
    assert duplicate / null == pytest.approx(10, rel=0.1)
    assert len(drawn) >= 5  # rows, characters, tokens, languages, scripts
    for picture in drawn:
        width, height = (float(number) for number in picture.attrib["viewBox"].split()[2:])
        for bar in picture.iter(f"{svg}rect"):
            assert float(bar.attrib["x"]) + float(bar.attrib["width"]) < width
            assert float(bar.attrib["y"]) + float(bar.attrib["height"]) <= height


def test_packs_are_shown_row_by_row_with_their_loss(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    source = write_lines(tmp_path / "in.jsonl", [{"input": f"q{n}", "output": document(n, 6)} for n in range(8)])
    make("instructions", [source], tmp_path / "out", split=ALL, tokenizer=str(tokenizer), pack=64)
    packed = tmp_path / "out/packed/train.jsonl"
    assert all(len(row["input_ids"]) <= 64 for row in map(json.loads, packed.read_text().splitlines()))
    shown = [tokens for pack in inspect.rows(packed, tokenizer, 9) for tokens in pack.sequences.values()]
    assert sorted("".join(token.text for token in tokens if not token.loss) for tokens in shown) == [
        f"q{n}" for n in range(8)
    ]
    assert {"".join(token.text for token in tokens if token.loss) for tokens in shown} == {
        f"{document(n, 6)}</s>" for n in range(8)
    }


def test_rows_longer_than_a_pack_are_in_none_and_counted(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    given = [{"input": f"q{n}", "output": document(n, 6 if n else 200)} for n in range(30)]
    source = write_lines(tmp_path / "in.jsonl", given)
    make("instructions", [source], tmp_path / "out", split=ALL, tokenizer=str(tokenizer), pack=64)
    packs = [json.loads(line) for line in (tmp_path / "out/packed/train.jsonl").read_text().splitlines()]
    assert max(len(pack["input_ids"]) for pack in packs) <= 64
    assert sum(len(pack["seq_start_id"]) for pack in packs) == 29
    said = card(tmp_path / "out")["checks"]["packed train"]
    assert said.endswith("% full; 1 longer rows are in no pack")
    assert float(re.search(r"([\d.]+)% full", said)[1]) <= 100  # type: ignore[index]
    with pytest.raises(DataError, match=r"1 of 30 rows of train have more than 64 tokens \(pack\).*max_tokens: 64"):
        make(
            "instructions",
            [source],
            tmp_path / "no",
            split=ALL,
            tokenizer=str(tokenizer),
            pack=64,
            max_over_length=0.01,
        )


def test_settings_of_rows_that_need_a_tokenizer_say_so() -> None:
    for setting in ({"max_tokens": 9}, {"pack": 9}):
        with pytest.raises(SettingsError, match=r"needs prepare\.tokenizer"):
            RowRecipe.parse("instructions", setting)
