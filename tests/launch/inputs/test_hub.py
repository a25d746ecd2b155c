from __future__ import annotations

import os
import shutil

import pytest

from jobs.core.paths import Workspace
from launch.base.errors import DownloadFailed, InputError
from launch.inputs.fetch import FetchItem, fetch, item, read_pins
from tests.support.servers import Hub, missing, start_fetch, wait_until

REPO = "org/tiny"
WEIGHTS = os.urandom(400_000)
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": WEIGHTS,
    "original/consolidated.00.pth": WEIGHTS,
    "onnx/model.onnx": WEIGHTS,
    "sub/a[1].txt": b"brackets",
    ".gitattributes": b"",
}
WANTED = ["config.json", "model.safetensors", "sub/a[1].txt", "tokenizer.json"]


def model(revision: str = "") -> FetchItem:
    return item("base", f"hf:{REPO}{revision}")


def test_model_is_brought_at_a_commit_and_pinned(hub: Hub, workspace: Workspace) -> None:
    commit = hub.push(REPO, FILES)
    assert missing([model()], workspace) == [model()]
    (found,) = fetch([model()], workspace)
    assert found.new
    assert missing([model()], workspace) == []
    assert [entry.path for entry in found.seal.files] == WANTED
    assert (found.store.output / "model.safetensors").read_bytes() == WEIGHTS
    assert found.seal.metrics["revision"] == commit
    assert read_pins(workspace) == {f"hf:models/{REPO}": {"revision": commit}}
    assert not hub.count("/resolve/main/")
    assert not hub.count("pytorch_model.bin")
    # The very commit, asked for by name, is the same entry.
    assert model(f"@{commit}").entry(workspace).root == found.store.root


def test_pin_holds_until_it_is_updated(hub: Hub, workspace: Workspace) -> None:
    first = hub.push(REPO, FILES)
    fetch([model()], workspace)
    second = hub.push(REPO, {**FILES, "config.json": b'{"model_type": "other"}'})
    asked = len(hub.requests)
    (again,) = fetch([model()], workspace)
    assert not again.new
    assert len(hub.requests) == asked
    (updated,) = fetch([model()], workspace, update=True)
    assert updated.new
    assert updated.seal.metrics["revision"] == second != first
    assert updated.store.root != again.store.root


def test_pinned_commit_is_fetched_again_in_an_emptied_store(hub: Hub, workspace: Workspace) -> None:
    first = hub.push(REPO, FILES)
    fetch([model()], workspace)
    hub.push(REPO, {**FILES, "config.json": b"{}"})
    shutil.rmtree(workspace.store)
    (found,) = fetch([model()], workspace)
    assert found.seal.metrics["revision"] == first


def test_tag(hub: Hub, workspace: Workspace) -> None:
    commit = hub.push(REPO, FILES, branch="v1")
    (found,) = fetch([model("@v1")], workspace)
    assert list(read_pins(workspace)) == [f"hf:models/{REPO}@v1"]
    assert found.seal.metrics["revision"] == commit


def test_short_break_is_resumed_where_it_broke(hub: Hub, workspace: Workspace) -> None:
    chunk = 10 * 1024 * 1024  # what the client writes at a time
    weights = os.urandom(chunk + 1000)
    hub.push(REPO, {**FILES, "model.safetensors": weights})
    hub.cut_at, hub.cuts = chunk + 10, 1
    (found,) = fetch([model()], workspace)
    assert (found.store.output / "model.safetensors").read_bytes() == weights
    asked = [wanted for method, path, wanted in hub.requests if method == "GET" and path.endswith("model.safetensors")]
    assert asked == [None, f"bytes={chunk}-"]


def test_long_break_keeps_the_files_that_are_whole(hub: Hub, workspace: Workspace) -> None:
    hub.push(REPO, FILES)
    hub.cut_at = 150_000
    with pytest.raises(DownloadFailed) as caught:
        fetch([model()], workspace, again="overnight fetch x.yaml")
    assert "here and sealed: nothing yet; still to fetch: base" in str(caught.value)
    assert caught.value.hint == "overnight fetch x.yaml"
    assert missing([model()], workspace) == [model()]
    hub.cut_at = None
    before = len(hub.requests)
    (found,) = fetch([model()], workspace)
    assert found.new
    assert (found.store.output / "model.safetensors").read_bytes() == WEIGHTS
    asked = [
        path.rpartition("/")[2] for method, path, _ in hub.requests[before:] if method == "GET" and "/resolve/" in path
    ]
    assert asked == ["model.safetensors"]


def test_kill_in_the_middle_and_again(hub: Hub, workspace: Workspace) -> None:
    hub.push(REPO, FILES)
    hub.hold_at = 150_000
    process = start_fetch(workspace.root, f"hf:{REPO}")
    wait_until(lambda: hub.count("model.safetensors") == 1)
    process.kill()
    process.communicate()
    assert missing([model()], workspace) == [model()]
    hub.hold_at = None
    hub.release.set()
    (found,) = fetch([model()], workspace)
    assert [entry.path for entry in found.seal.files] == WANTED
    assert (found.store.output / "model.safetensors").read_bytes() == WEIGHTS


def test_damaged_file_is_not_sealed(hub: Hub, workspace: Workspace) -> None:
    hub.push(REPO, FILES)
    hub.damaged = True
    with pytest.raises(DownloadFailed, match=r"not what the hub listed\n  config\.json is damaged: "):
        fetch([model()], workspace)
    hub.damaged = False
    (found,) = fetch([model()], workspace)
    assert (found.store.output / "config.json").read_bytes() == FILES["config.json"]


def test_network_cut(workspace: Workspace, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadFailed, match="the hub cannot be reached"):
        fetch([model()], workspace)
    assert read_pins(workspace) == {}


def test_network_cut_after_the_pin(workspace: Workspace, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.push(REPO, FILES)
    (found,) = fetch([model()], workspace)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert not fetch([model()], workspace)[0].new
    (found.store.output / "config.json").unlink()
    with pytest.raises(DownloadFailed, match="the hub cannot be reached"):
        fetch([model()], workspace)


def test_what_the_user_can_mend(workspace: Workspace, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.push(REPO, FILES)
    with pytest.raises(InputError, match="org/none: no such repository"):
        fetch([item("base", "org/none")], workspace)
    with pytest.raises(InputError, match="has no revision 'v9'"):
        fetch([model("@v9")], workspace)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        fetch([model()], workspace)
