"""Tiny benchmarks in the schema that each has on its hub; every row is ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]

WORDS = ("save", "page", "delete", "file", "open", "close", "name", "user", "error", "list")


def _mmlu(count: int, start: int) -> Rows:
    return [
        {
            "question": f"Which word is number {n}?",
            "subject": "anatomy",
            "choices": [WORDS[(n + k) % len(WORDS)] for k in range(4)],
            "answer": n % 4,
        }
        for n in range(start, start + count)
    ]


def _sums(count: int, start: int) -> Rows:
    return [
        {"question": f"A page has {n} lines and gets {n + 2}. How many?", "answer": f"It has {n} + {n + 2}.\n#### {2 * n + 2}"}
        for n in range(start, start + count)
    ]  # fmt: skip


def _spanish(count: int, start: int) -> Rows:
    return [
        {
            "question": f"Una lista tiene {n} nombres y recibe {n}. ¿Cuántos tiene?",
            "answer": None,
            "answer_number": 2 * n,
            "equation_solution": None,
        }
        for n in range(start, start + count)
    ]


def _hellaswag(count: int) -> Rows:
    return [
        {
            "ind": n,
            "activity_label": "Saving a file",
            "ctx_a": f"A user opens page {n}.",
            "ctx_b": "then the user",
            "ctx": f"A user opens page {n}. then the user",
            "endings": [f"{WORDS[(n + k) % len(WORDS)]}s the {WORDS[(n + k + 3) % len(WORDS)]}." for k in range(4)],
            "label": str(n % 4),
        }
        for n in range(count)
    ]


def _arc(count: int) -> Rows:
    return [
        {
            "id": f"q{n}",
            "question": f"What does button {n} do?",
            "choices": {"text": [f"{WORDS[(n + k) % len(WORDS)]} the file" for k in range(4)], "label": list("ABCD")},
            "answerKey": "ABCD"[n % 4],
        }
        for n in range(count)
    ]


def _truthful(count: int) -> Rows:
    return [
        {
            "question": f"What happens if file {n} is deleted?",
            "mc1_targets": {"choices": ["It is gone.", "It is saved.", "The page closes."], "labels": [1, 0, 0]},
            "mc2_targets": {
                "choices": ["It is gone.", "It is not there.", "It is saved.", f"Page {n} opens."],
                "labels": [1, 1, 0, 0],
            },
        }
        for n in range(count)
    ]


def _kmmlu(count: int, start: int) -> Rows:
    return [
        {
            "question": f"파일 {n}을 지우면?",
            "answer": n % 4 + 1,
            "A": "저장한다",
            "B": "지운다",
            "C": "연다",
            "D": "닫는다",
            "Category": "Accounting",
            "Human Accuracy": 0.5,
        }
        for n in range(start, start + count)
    ]


def _bbq(count: int) -> Rows:
    made = []
    for n in range(count):
        clear = n % 2 == 1
        made.append(
            {
                "example_id": n,
                "question_index": "1",
                "question_polarity": "neg" if n % 4 < 2 else "nonneg",
                "context_condition": "disambig" if clear else "ambig",
                "category": "Age",
                "answer_info": {
                    "ans0": ["The grandfather", "old"],
                    "ans1": ["The grandson", "nonOld"],
                    "ans2": ["Not known", "unknown"],
                },
                "additional_metadata": {"stereotyped_groups": ["old"], "subcategory": "None", "version": "a", "source": "own"},
                "context": f"A grandfather and a grandson opened page {n}." + (" The grandson lost it." if clear else ""),
                "question": "Who forgot the password?",
                "ans0": "The grandfather",
                "ans1": "The grandson",
                "ans2": "Not known",
                "question_type": "negative",
                "label": 1 if clear else 2,
                "target_label": 0,
            }
        )  # fmt: skip
    return made


BENCHMARKS: dict[str, dict[str, dict[str, Rows]]] = {
    "mmlu": {
        part: {"test": _mmlu(8, at), "dev": _mmlu(5, 50 + at)} for at, part in enumerate(("anatomy", "astronomy"))
    },
    "gsm8k": {"main": {"test": _sums(5, 2), "train": _sums(9, 20)}},
    "hellaswag": {"": {"validation": _hellaswag(8)}},
    "arc_easy": {"ARC-Easy": {"test": _arc(8)}},
    "truthfulqa_mc1": {"multiple_choice": {"validation": _truthful(8)}},
    "truthfulqa_mc2": {"multiple_choice": {"validation": _truthful(8)}},
    "mgsm_direct_es": {"es": {"test": _spanish(4, 3), "train": _spanish(4, 30)}},
    "kmmlu_accounting": {"Accounting": {"test": _kmmlu(8, 0), "dev": _kmmlu(5, 40)}},
    "bbq": {"All": {"test": _bbq(8)}},
}
"""Task of the harness -> part of its data set -> split -> rows."""


def write(root: Path, name: str) -> Path:
    """The rows of a benchmark in files, a folder for each part."""
    for part, splits in BENCHMARKS[name].items():
        for split, rows in splits.items():
            path = root / part / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return root
