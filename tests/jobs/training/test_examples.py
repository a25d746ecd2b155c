"""Rows and their ids. No torch needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.training import cpu, examples
from jobs.training.examples import ExamplesError
from tests.support import stages


def test_rows_are_read_with_their_places(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    stages.write_rows(path, [{"id": "a", "text": "um"}, {"text": "dois"}])
    assert [(row.id, row.place.rsplit(":", 1)[1]) for row in examples.read_rows(path, "corpus")] == [
        ("a", "1"),
        ("1", "2"),
    ]
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
    pair = stages.encode_pair(tokenizer, "Translate: Home\n", "Ecrã inicial")
    assert tokenizer.decode(pair.prompt) == "Translate: Home\n"
    assert tokenizer.decode(pair.completion) == "Ecrã inicial</s>"
    merged = stages.encode_pair(tokenizer, "Guard", "ar página")
    assert tokenizer.decode([*merged.prompt, *merged.completion]) == "Guardar página</s>"
    assert list(merged.prompt) == tokenizer("Guardar página")["input_ids"][: len(merged.prompt)]


def test_threads_are_those_that_slurm_gave() -> None:
    assert cpu.threads_given({}) is None
    assert cpu.threads_given({"SLURM_CPUS_PER_TASK": "3", "SLURM_CPUS_ON_NODE": "8"}) == 3
    assert cpu.threads_given({"SLURM_CPUS_ON_NODE": "8", "LOCAL_WORLD_SIZE": "4"}) == 2
    assert cpu.threads_given({"SLURM_CPUS_ON_NODE": "1", "LOCAL_WORLD_SIZE": "2"}) == 1


def test_a_save_is_written_by_the_cores_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    for cores, writers in ((1, 2), (12, 3), (96, 8)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        assert cpu.writers() == writers
