"""Examples: ids, blocks and the order of training. No torch needed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from jobs.training import cpu, examples
from jobs.training.examples import ExamplesError
from tests.support import stages


def test_order_is_fixed_and_every_pass_takes_all() -> None:
    order = examples.training_order(10, batch=4, steps=5, seed=1)
    assert order == examples.training_order(10, batch=4, steps=5, seed=1)
    assert order != examples.training_order(10, batch=4, steps=5, seed=2)
    assert Counter(order) == Counter(dict.fromkeys(range(10), 2))
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert order[:10] != order[10:]


def test_more_steps_begin_with_the_same_examples() -> None:
    assert examples.training_order(50, 4, 8, 3)[:16] == examples.training_order(50, 4, 4, 3)


def test_grouping_by_length_moves_examples_but_loses_none() -> None:
    lengths = [(index * 37) % 90 for index in range(64)]
    plain = examples.training_order(64, 4, 16, 1)
    grouped = examples.training_order(64, 4, 16, 1, lengths)
    assert Counter(grouped) == Counter(plain)

    def padding(order: list[int]) -> int:
        batches = [[lengths[index] for index in order[at : at + 4]] for at in range(0, 64, 4)]
        return sum(4 * max(batch) - sum(batch) for batch in batches)

    assert padding(grouped) < padding(plain) / 3


def test_blocks_have_one_length_and_the_rest_is_dropped() -> None:
    assert examples.pack([[1, 2, 3], [4], [5, 6, 7, 8]], 3) == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(ExamplesError, match="2 tokens, less than one block of 3"):
        examples.pack([[1, 2]], 3)


def test_rows_are_read_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    stages.write_rows(path, [{"id": "a", "text": "um"}, {"text": "dois"}])
    assert [(row.id, row.place.rsplit(":", 1)[1]) for row in examples.read_rows(path, "corpus")] == [
        ("a", "1"),
        ("1", "2"),
    ]
    assert len(examples.read_rows(path, "corpus", limit=1)) == 1
    path.write_text('{"text": "um"}\n{"text": \n')
    with pytest.raises(ExamplesError, match=r"train\.jsonl:2: not JSON"):
        examples.read_rows(path, "corpus")
    path.write_text('["um"]\n')
    with pytest.raises(ExamplesError, match=r"train\.jsonl:1: a row must be an object, not list"):
        examples.read_rows(path, "corpus")


def test_completion_begins_where_the_ids_of_the_prompt_end(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from jobs.training import tokenizers

    stages.make_tokenizer(tmp_path)
    tokenizer = tokenizers.load(tmp_path)
    pair = examples.encode_pair(tokenizer, "Translate: Home\n", "Ecrã inicial")
    assert tokenizer.decode(pair.prompt) == "Translate: Home\n"
    assert tokenizer.decode(pair.completion) == "Ecrã inicial</s>"
    merged = examples.encode_pair(tokenizer, "Guard", "ar página")
    assert tokenizer.decode([*merged.prompt, *merged.completion]) == "Guardar página</s>"
    assert list(merged.prompt) == tokenizer("Guardar página")["input_ids"][: len(merged.prompt)]


def test_threads_are_those_that_slurm_gave() -> None:
    assert cpu.threads_given({}) is None
    assert cpu.threads_given({"SLURM_CPUS_PER_TASK": "3", "SLURM_CPUS_ON_NODE": "8"}) == 3
    assert cpu.threads_given({"SLURM_CPUS_ON_NODE": "8", "LOCAL_WORLD_SIZE": "4"}) == 2
    assert cpu.threads_given({"SLURM_CPUS_ON_NODE": "1", "LOCAL_WORLD_SIZE": "2"}) == 1
