"""The report of nodes that did not join a Ray cluster; that they do join is tested with a real Ray (tests/slurm)."""

from __future__ import annotations

from pathlib import Path

from jobs.worker import ray_nodes


def test_each_missing_node_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    logs = {name: tmp_path / f"ray-{name}.log" for name in ("node1", "node2", "node3")}
    logs["node2"].write_bytes(b"x" * 9000 + b"\nno room \xff on this node\n\n")
    text = ray_nodes.describe(["node2", "node3"], logs, 60)
    assert "1 of 3 nodes joined the Ray cluster within 60 s; missing: node2, node3" in text
    assert f"node2: no room \ufffd on this node ({logs['node2']})" in text
    assert "node3: its script wrote nothing" in text


def test_a_node_that_gave_up_ends_the_waiting(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    logs = {name: tmp_path / f"ray-{name}.log" for name in ("node1", "node2")}
    logs["node2"].write_text(f"{ray_nodes.GAVE_UP}Ray on node2 ended with exit code 5, 3 times\n")
    monkeypatch.setattr(ray_nodes, "_connect", lambda address: True)
    monkeypatch.setattr(ray_nodes, "joined", lambda: {"node1"})
    assert ray_nodes.wait("unused", logs, seconds=3600) == ["node2"]
    text = ray_nodes.describe(["node2"], logs, 17)
    assert text.startswith(
        "1 of 2 nodes joined the Ray cluster within 17 s; gave up: node2\n  node2: overnight: gave up: "
    )


def test_nodes_that_still_start_are_not_blamed_for_one_that_gave_up(tmp_path: Path) -> None:
    logs = {name: tmp_path / f"ray-{name}.log" for name in ("node1", "node2", "node3")}
    logs["node2"].write_text("Ray runtime started\n")
    logs["node3"].write_text(f"{ray_nodes.GAVE_UP}Ray on node3 ended with exit code 5, 3 times\n")
    text = ray_nodes.describe(["node2", "node3"], logs, 17)
    assert "1 of 3 nodes joined the Ray cluster within 17 s; gave up: node3; not there yet: node2\n  node3: " in text
