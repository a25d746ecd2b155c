"""One value of a profile is changed and all else stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.base.errors import InputError
from launch.config.document.reader import parse
from launch.config.profile_file import read_profile
from launch.site.probe import amend
from launch.site.probe.amend import ProfileChange
from tests.support.site_answers import PROFILE


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (("continuation",), "chain", "continuation: chain  # why"),
        (("lead",), '"5:00"', 'lead: "5:00"  # why'),
        (("partitions", "gpu", "gpu_memory"), "80G", '  gpu: {max_time: "4:00:00", gpus: 8, gpu_memory: 80G}'),
        (("partitions", "gpu", "gpus"), "4", '  gpu: {max_time: "4:00:00", gpus: 4}'),
        (("partitions", "cpu", "cpus"), "64", "    cpus: 64  # why"),
        (("partitions", "new", "gpus"), "2", "  new: {gpus: 2}  # why"),
        (("resources", "default", "cpus"), "2", "resources: {default: {cpus: 2}}"),
        (("env", "NCCL_SOCKET_IFNAME"), "ib", "env: {NCCL_SOCKET_IFNAME: ib}  # why"),
    ],
)
def test_one_value_is_changed_and_all_else_stays(tmp_path: Path, path: tuple[str, ...], value: str, line: str) -> None:
    text = amend.amended(PROFILE, [ProfileChange(path, value, "why")], "today")
    assert line in text.splitlines()
    gone = set(PROFILE.splitlines()) - set(text.splitlines())
    assert len(gone) <= 1
    wanted = parse(PROFILE, "f").data
    inner = wanted
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    inner[path[-1]] = parse(f"x: {value}", "f").data["x"]
    assert parse(text, "f").data == wanted
    file = tmp_path / "mine.yaml"
    file.write_text(PROFILE)
    amend.write(file, text)
    assert read_profile(file).profile.partition == "gpu"
    assert amend.amended(text, [], "tomorrow").count(amend.MARK) == 1, "the note is replaced"


def test_two_values_below_one_new_key() -> None:
    changes = [
        ProfileChange(("env", "NCCL_SOCKET_IFNAME"), "ib", "why"),
        ProfileChange(("env", "GLOO_SOCKET_IFNAME"), "ib0", "why"),
    ]
    assert parse(amend.amended(PROFILE, changes, "today"), "f").data["env"] == {
        "NCCL_SOCKET_IFNAME": "ib",
        "GLOO_SOCKET_IFNAME": "ib0",
    }


def test_what_cannot_be_changed_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a single value"):
        amend.amended(
            "name: mine\nexecutor: slurm\nresources:\n  data: {cpus: 1}\n",
            [ProfileChange(("resources",), "1", "why")],
            "today",
        )
    file = tmp_path / "mine.yaml"
    file.write_text(PROFILE)
    with pytest.raises(InputError):
        amend.write(file, amend.amended(PROFILE, [ProfileChange(("continuation",), "sideways", "why")], "today"))
    assert file.read_text() == PROFILE


@pytest.mark.parametrize("extends", ["base.yaml", "[base.yaml, ./parts/fast.yaml]", "mine"])
def test_what_lies_over_another_is_changed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extends: str) -> None:
    """Beside the file, a list of them, and the site's profile of the same name."""
    for name in ("user", "site"):
        (tmp_path / name / "overnight" / "profiles").mkdir(parents=True)
    own, site = (tmp_path / name / "overnight" / "profiles" for name in ("user", "site"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("OVERNIGHT_PROFILES", str(site))
    (own / "parts").mkdir()
    for file in (own / "base.yaml", site / "mine.yaml"):
        file.write_text("executor: slurm\npartition: below\ncontinuation: requeue\n")
    (own / "parts" / "fast.yaml").write_text("qos: fast\n")
    file = own / "mine.yaml"
    file.write_text(f"extends: {extends}\n")
    amend.write(file, amend.amended(file.read_text(), [ProfileChange(("continuation",), "chain", "why")], "today"))
    profile = read_profile(file).profile
    assert (profile.partition, profile.continuation) == ("below", "chain")
    assert profile.qos == ("fast" if "fast" in extends else None)
    assert sorted(each.name for each in own.iterdir()) == ["base.yaml", "mine.yaml", "parts"]
    with pytest.raises(InputError, match=r"mine\.yaml:2:15: continuation: got 'sideways'"):
        amend.write(file, f"extends: {extends}\ncontinuation: sideways\n")
