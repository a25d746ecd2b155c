from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from jobs.core import files, seal
from jobs.core.paths import Workspace
from launch.base import lock
from launch.base.errors import InputError
from launch.base.lock import SharedLock
from launch.inputs.fetch import fetch, item, read_pins
from tests.support.servers import missing


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    (directory / "sub").mkdir(parents=True)
    (directory / ".git").mkdir()
    (directory / ".git" / "HEAD").write_text("main")
    (directory / "config.json").write_text("{}")
    (directory / "sub" / "weights.bin").write_bytes(os.urandom(5000))
    return directory


def test_directory_is_sealed_without_copying(model: Path, workspace: Workspace) -> None:
    wanted = item("base", "model", base=model.parent)
    assert (wanted.request, wanted.format) == (str(model), "hf")
    assert missing([wanted], workspace) == [wanted]
    (found,) = fetch([wanted], workspace)
    assert [entry.path for entry in found.seal.files] == ["config.json", "sub/weights.bin"]
    assert os.path.samefile(found.store.output / "sub" / "weights.bin", model / "sub" / "weights.bin")
    assert missing([wanted], workspace) == []
    assert not fetch([wanted], workspace)[0].new


def test_touch_keeps_the_entry_and_an_edit_makes_another(model: Path, workspace: Workspace) -> None:
    wanted = item("base", str(model))
    (first,) = fetch([wanted], workspace)
    os.utime(model / "config.json", (1, 1))
    assert missing([wanted], workspace) == [wanted]
    (touched,) = fetch([wanted], workspace)
    assert (touched.new, touched.store.root) == (False, first.store.root)
    (model / "config.json").unlink()
    (model / "config.json").write_text("[]")
    (edited,) = fetch([wanted], workspace)
    assert edited.new
    assert edited.store.root != first.store.root
    assert seal.verify(first.store.output, first.store.seal) == first.seal


def test_cache_of_links_is_followed(model: Path, workspace: Workspace, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "config.json").symlink_to(model / "config.json")
    (found,) = fetch([item("base", str(snapshot))], workspace)
    assert not (found.store.output / "config.json").is_symlink()


def test_other_file_system_is_copied(model: Path, workspace: Workspace) -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == model.stat().st_dev:
        pytest.skip("no second file system here")
    target = Workspace(shared / f"overnight-test-{os.getpid()}")
    try:
        (found,) = fetch([item("base", str(model))], target)
        assert (found.store.output / "config.json").read_text() == "{}"
    finally:
        import shutil

        shutil.rmtree(target.root, ignore_errors=True)


def test_single_model_file(tmp_path: Path, workspace: Workspace) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    (found,) = fetch([item("base", str(path))], workspace)
    assert (found.seal.format, [entry.path for entry in found.seal.files]) == ("gguf", ["m.gguf"])


def test_requests(model: Path, tmp_path: Path) -> None:
    found = [item("a", request) for request in ("hf:org/name@v1.0", ("X_y==1",), "pypi:x-y==1", str(model))]
    assert [(one.pin_key, one.format) for one in found] == [
        ("hf:models/org/name@v1.0", "hf"),
        ("wheels:x-y==1", "wheels"),
        ("pypi:x-y==1", "gguf"),
        (f"path:{model}", "hf"),
    ]
    assert len({one.fingerprint({}) for one in found}) == 4
    assert item("b", ["x.y==1"]).fingerprint({}) == found[1].fingerprint({})
    assert all(len(one.fingerprint({})) == 64 for one in found)
    assert item("base", "org/name").pin_key == "hf:models/org/name"
    for wrong in ("/no/such/place", "name", "./org/name/x", "hf:org/name@", "https://host/x"):
        with pytest.raises(InputError, match="is neither an existing path nor a request"):
            item("base", wrong)
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "a.txt").write_text("text")
    with pytest.raises(InputError, match="neither a Hugging Face directory"):
        item("base", str(notes))


def test_damaged_pins(workspace: Workspace, model: Path) -> None:
    workspace.root.mkdir()
    workspace.pins.write_text("{")
    with pytest.raises(InputError, match=r"pins\.json: not valid JSON"):
        read_pins(workspace)


def holder(path: Path, **facts: object) -> None:
    value = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time(), "token": "other", **facts}
    files.create_exclusive(path, json.dumps(value))


def test_lock_of_a_dead_process_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = os.fork()
    if process == 0:
        os._exit(0)
    os.waitpid(process, 0)
    holder(path, pid=process)
    with SharedLock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_lock_of_a_reused_process_number_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder(path, born="1")
    with SharedLock(path):
        assert json.loads(path.read_text())["born"] != "1"


def test_lock_of_another_host_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder(path, host="elsewhere", pid=1)
    told: list[str] = []
    threading.Timer(0.7, path.unlink).start()
    start = time.monotonic()
    with SharedLock(path, told.append):
        assert time.monotonic() - start > 0.6
    assert told == ["process 1 on elsewhere"]


def test_lock_of_another_host_without_a_sign_of_life_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "STALE_SECONDS", 1.0)
    path = tmp_path / "lock"
    path.write_text("")  # torn by a power cut
    os.utime(path, (0, 0))
    with SharedLock(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_lock_excludes(tmp_path: Path) -> None:
    inside = 0
    most = 0

    def work() -> None:
        nonlocal inside, most
        with SharedLock(tmp_path / "lock"):
            inside += 1
            most = max(most, inside)
            time.sleep(0.05)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
