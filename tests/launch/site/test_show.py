"""``overnight profile show`` and ``list``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.cli import main
from launch.config.profile_file import available, read_profile
from launch.site import show
from tests.sites.golden import SITES

PACKAGED = sorted(set(available()) - {"local"})


@pytest.mark.parametrize("name", PACKAGED)
def test_what_is_shown_reads_as_the_same_profile(name: str, tmp_path: Path) -> None:
    found = read_profile(available()[name])
    for origin in (False, True):
        file = tmp_path / "shown.yaml"
        file.write_text("\n".join(show.lines(found, origin)) + "\n")
        assert read_profile(file).profile == found.profile


def test_show_says_file_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(
        "extends: university\naccount: '01'\ngpu_request: gres\nresources:\n  default: {cpus: 2}\n"
    )
    assert main.main(["profile", "show", str(tmp_path / "mine.yaml"), "--json"]) == 0
    shown = {one["key"]: one for one in json.loads(capsys.readouterr().out)["values"]}
    assert shown["account"]["origin"] == f"{tmp_path}/mine.yaml:2:10"
    assert shown["gpu_request.form"]["origin"] == f"{tmp_path}/mine.yaml:3:14"
    assert shown["gpu_request.model"]["origin"] == "built in" if "gpu_request.model" in shown else True
    assert shown["resources.default.cpus"]["origin"] == f"{tmp_path}/mine.yaml:5:19"
    assert shown["resources.default.mem"]["origin"].startswith(str(available()["university"]))
    assert shown["poll_seconds"]["origin"] == "built in"
    assert main.main(["profile", "show", str(tmp_path / "mine.yaml"), "--origin"]) == 0
    assert f"# {tmp_path}/mine.yaml:5:19" in capsys.readouterr().out


def test_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "overnight" / "profiles").mkdir(parents=True)
    (tmp_path / "overnight" / "profiles" / "ours.yaml").write_text(
        "# Ours, of the lab. More: https://example.org/a.\nname: ours\nexecutor: local\n"
    )
    assert main.main(["profile", "list", "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)["profiles"]}
    assert (found["ours"]["whose"], found["ours"]["description"], found["ours"]["link"]) == (
        "yours",
        "Ours, of the lab",
        "https://example.org/a",
    )
    assert all(found[name]["whose"] == "built in" and found[name]["description"] for name in PACKAGED)
    assert all(found[name]["link"] for name in SITES)
    assert main.main(["profile", "list"]) == 0
    assert "https://docs.nersc.gov" in capsys.readouterr().out
