"""What a probe does on the nodes: processes meet, and a file system that breaks its word is found out."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs import probe


@pytest.fixture
def place() -> tuple[str, int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return "127.0.0.1", int(free.getsockname()[1])


def test_all_meet_and_hear_each_other(place: tuple[str, int]) -> None:
    with ThreadPoolExecutor(8) as pool:
        early = pool.submit(probe.meet, place, "first", 4, "early")  # before anybody listens
        with probe._server(place[1]):
            rest = [pool.submit(probe.meet, place, "first", 4, number) for number in range(3)]
            others = [pool.submit(probe.meet, place, "second", 2, number) for number in range(2)]
            for one in (early, *rest):
                assert sorted(map(str, one.result(60))) == ["0", "1", "2", "early"]
            assert [sorted(one.result(60)) for one in others] == [[0, 1], [0, 1]]


def test_who_cannot_be_reached_is_said(
    place: tuple[str, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probe, "MEET_SECONDS", 0.5)
    monkeypatch.setattr(probe, "TELL_SECONDS", 0.0)
    with pytest.raises(OSError, match="refused"):
        probe.meet(place, "first", 2, None)
    assert f"does not reach 127.0.0.1:{place[1]}" in capsys.readouterr().err


def test_a_file_that_is_replaced_is_whole(
    place: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "SWAP_SECONDS", 0.2)
    with probe._server(place[1]):
        counts = probe._swap(place, tmp_path, 0, 1)
    assert counts["replaced"] > 0
    assert counts["reads"] > 0
    assert (counts["missing"], counts["torn"], counts["errors"]) == (0, 0, 0)


@pytest.mark.parametrize("what", ["missing", "torn", "errors"])
def test_a_broken_rename_is_counted(
    place: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(probe, "SWAP_SECONDS", 0.2)

    def replace(path: Path, number: int) -> None:
        if what == "missing":
            path.unlink(missing_ok=True)
        elif what == "torn":
            path.write_bytes(b"a" * 100 + b"b" * 100)
        elif not path.is_dir():
            path.mkdir()

    monkeypatch.setattr(probe, "_replace", replace)
    with probe._server(place[1]):
        counts = probe._swap(place, tmp_path, 0, 1)
    assert counts[what] > 0


def test_what_nobody_writes_is_not_seen(
    place: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "SEEN_SECONDS", 0.2)
    with probe._server(place[1]), ThreadPoolExecutor(1) as pool:
        silent = pool.submit(probe.meet, place, "write", 2, None)  # a node that comes and writes elsewhere
        assert probe._seen(place, tmp_path, 0, 2) is None
        silent.result(60)
    assert (tmp_path / "seen-0").read_text() == "0\n"


def test_gpus_as_slurm_and_the_driver_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    assert probe.describe(0)["devices"] is None
    for text, count in (("0,1,2", 3), ("NoDevFiles", 0), ("GPU-1a2b", 1), ("", 0)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
        assert probe.describe(0)["devices"] == count
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559'\necho 'NVIDIA H100 80GB HBM3, 81559'\n"
    )  # as it prints
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert json.loads(json.dumps(probe.describe(3)))["gpus"] == [{"name": "NVIDIA H100 80GB HBM3", "mib": 81559}] * 2
