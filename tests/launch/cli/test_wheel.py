"""What is shipped: every package with its templates and profiles, no tests, and it runs beside hostile files."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

import launch

ROOT = Path(launch.__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked: what pip would put into site-packages."""
    pytest.importorskip("hatchling")
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory / "site")
    return directory / "site"


def test_everything_that_is_ours_is_in_the_wheel_and_nothing_else(installed: Path) -> None:
    tops = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"overnight", "launch", "jobs", "data_prep", "sbatch_templates", "cluster_profiles", "suites"}
    for package in tops:
        ours = {
            path.relative_to(ROOT)
            for path in (ROOT / package).rglob("*")
            if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in path.parts)
        }
        shipped = {path.relative_to(installed) for path in (installed / package).rglob("*") if path.is_file()}
        assert shipped == ours


def test_the_version_has_one_place_and_the_licence_is_shipped(installed: Path) -> None:
    (about,) = installed.glob("*.dist-info")
    said = message_from_string((about / "METADATA").read_text(encoding="utf-8"))
    assert (said["Version"], said["License-Expression"]) == (launch.__version__, "Apache-2.0")
    assert (about / "licenses/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "launch/__init__.py"


def test_it_runs_from_anywhere_beside_files_that_shadow_our_names(installed: Path, tmp_path: Path) -> None:
    for name in ("jobs", "launch", "data_prep", "yaml", "cluster_profiles"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the working directory')\n")
    script = tmp_path / "bin" / "overnight"
    script.parent.mkdir()
    script.write_text(
        "import sys\nfrom launch.cli.main import main\n"
        "if __name__ == '__main__':\n"
        "    from launch.config.profile_file import find\n"
        "    assert find('local').name == 'local'\n"
        "    sys.exit(main())\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), "--version"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"overnight {launch.__version__}\n"), done.stderr
