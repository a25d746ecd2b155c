"""The model of characters: a score of each character behind each other one."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

from jobs.core import files
from jobs.core.spec import Input

MODEL_FILE = "model.json"
LETTERS = " abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'\"()-/\nàáâãçéêíóôõúABCDEFGHIJKLMNOPQRSTUVWXYZ"
OTHER = "\ufffd"
"""Stands for every character that is not in the alphabet."""

VOCABULARY = LETTERS + OTHER
INDEX = {letter: index for index, letter in enumerate(VOCABULARY)}
Scores = list[list[float]]
"""Score of each next character after each character, (vocabulary, vocabulary)."""

Gradient = dict[int, list[float]]
"""Rows of the gradient; a text touches few of them."""


def encode(text: str) -> list[int]:
    """Ids of the characters of a text."""
    return [INDEX.get(letter, INDEX[OTHER]) for letter in text]


def start_scores(given: Input) -> Scores:
    """Scores of an input; all equal where it is of another format (a real base model)."""
    if given.format != "toy" or not (given.output / MODEL_FILE).is_file():
        return [[0.0] * len(VOCABULARY) for _ in VOCABULARY]
    return scores_of(given.output)


def scores_of(model: Path) -> Scores:
    """Scores of a finished model."""
    scores: Scores = files.read_json(model / MODEL_FILE)["scores"]
    return scores


def log_likelihood(chain: list[int], scores: Scores) -> tuple[float, Gradient]:
    """Log-likelihood of a chain of characters given its first one, and its gradient."""
    value = 0.0
    gradient: Gradient = {}
    softmax: dict[int, tuple[float, list[float]]] = {}
    for before, after in itertools.pairwise(chain):
        row = scores[before]
        if before not in softmax:
            top = max(row)
            weights = [math.exp(score - top) for score in row]
            total = sum(weights)
            softmax[before] = (top + math.log(total), [weight / total for weight in weights])
        normaliser, chances = softmax[before]
        value += row[after] - normaliser
        slopes = gradient.setdefault(before, [0.0] * len(VOCABULARY))
        for column, chance in enumerate(chances):
            slopes[column] -= chance
        slopes[after] += 1.0
    return value, gradient
