"""Which nodes failed a start, and which are left out of the next one."""

from __future__ import annotations

import pytest

from jobs.lifecycle.nodes import expand


@pytest.mark.failure(8)
@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("node1", ["node1"]),
        ("node[1-3,07-09],login1", ["node1", "node2", "node3", "node07", "node08", "node09", "login1"]),
        ("a[1,3]b", ["a1b", "a3b"]),
        ("", []),
        ("$(x)", []),
    ],
)
def test_node_lists(text: str, names: list[str]) -> None:
    assert list(expand(text)) == names
