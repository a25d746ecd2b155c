"""The processes of a stage beside its trainer: real process groups, without a trainer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from jobs.training import ranks  # noqa: E402


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """One process in a group that carries tensors of a GPU only, as the trainer of a single GPU makes it."""
    torch.distributed.init_process_group("cuda:gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.train
def test_one_process_needs_no_group_for_its_own_words(alone: None) -> None:
    with pytest.raises(RuntimeError, match="No backend type associated with device type cpu"):
        torch.distributed.broadcast_object_list([1], src=0, device=torch.device("cpu"))
    assert ranks.on_first(lambda: 3) == 3
    assert ranks.any_of([True, False], torch.device("cpu")) == [True, False]
