"""Work in containers and with modules, on a real Slurm and through both executors.

pyxis' options go through a SPANK plugin that mounts what they name, apptainer's through a stand-in that mounts it, modules
through the real ``module`` where it is installed. Inside is the machine's own root, without Slurm's commands.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.chains import SHORT, Chain
from tests.support.slurm import Slurm

pytestmark = pytest.mark.slurm

HERE = Path(__file__).parent / "containers"
FULL = pytest.mark.full
VALUE = "a value, with spaces"

#: Run in the place of the interpreter by the work: notes what it sees, then is the interpreter.
PYTHON = """#!/bin/bash
seen={seen}/$SLURM_JOB_ID.$SLURM_NODEID
for name in squeue scontrol srun sbatch; do "$name" --version >/dev/null 2>&1 && echo "runs $name" >>"$seen"; done
touch "$(dirname {boot})/never" 2>/dev/null && echo "code is writable" >>"$seen"
touch "$(dirname "$(dirname {boot})")/user/never" 2>/dev/null && echo "the user's code is writable" >>"$seen"
[ -r "$(dirname "$(dirname {boot})")/user/mine.py" ] || echo "the user's code is not there" >>"$seen"
env | grep -E '^(MY_SETTING|SHIM_|APPTAINER_CONTAINER|HAS_MODULE)' >>"$seen"
exec {python} "$@"
"""


@pytest.fixture
def pyxis(slurm: Slurm, tmp_path: Path) -> Iterator[None]:
    """The cluster takes pyxis' options while a test runs."""
    if not Path("/usr/include/slurm/spank.h").exists() or shutil.which("gcc") is None:
        pytest.skip("libslurm-dev and gcc are not installed: a SPANK plugin cannot be built")
    plugin = tmp_path / "pyxis.so"
    subprocess.run(["gcc", "-fPIC", "-shared", "-o", plugin, HERE / "pyxis_shim.c"], check=True)
    conf = slurm.directory / "etc" / "plugstack.conf.d" / "pyxis.conf"
    conf.write_text(f"required {plugin}\n")
    yield
    conf.unlink()


class Seen:
    """A chain whose training notes what it sees."""

    def __init__(
        self, slurm: Slurm, directory: Path, carrier: str, environment: dict[str, Any], **profile: Any
    ) -> None:
        self.directory = directory / "seen"
        self.directory.mkdir()
        python = directory / "python"
        environments = {"toy": {**environment, "python": str(python)}}
        routed = {"default": carrier, "training": carrier}
        self.chain = Chain(
            slurm, directory / "work", SHORT, profile={"environments": environments, "executors": routed, **profile}
        )
        boot = self.chain.workspace.root / "runs" / "*" / "code" / "toolkit" / "overnight_job.py"
        real = shutil.which("python3.11", path="/usr/bin") or shutil.which("python3", path="/usr/bin")
        python.write_text(PYTHON.format(seen=self.directory, boot=boot, python=real))
        python.chmod(0o755)
        (directory / "mine").mkdir()
        (directory / "mine" / "mine.py").write_text("VALUE = 1\n")
        with self.chain.pipeline.open("a") as stream:
            stream.write(f"code: {directory / 'mine'}\n")
        self.chain.fetch()
        submitted = self.chain.overnight("submit", "--json", environment={"MY_SETTING": VALUE, "IMAGE_SAYS": "host"})
        self.run = str(json.loads(submitted.stdout)["run"])
        self.chain.wait()
        self.chain.assert_done_once(self.run)

    @property
    def texts(self) -> list[str]:
        """What each node's work saw."""
        return [path.read_text() for path in sorted(self.directory.iterdir())]

    def scripts(self) -> str:
        found = self.chain.workspace.run(self.run).stages.rglob("*.sh")
        return "\n".join(path.read_text() for path in found)


@pytest.mark.failure(25, 26)
@pytest.mark.parametrize("carrier", ["nemo_run", pytest.param("submitit", marks=FULL)])
def test_pyxis(slurm: Slurm, tmp_path: Path, pyxis: None, carrier: str) -> None:
    site = {"runtime": "pyxis", "variables": ["MY_SETTING"]}
    seen = Seen(slurm, tmp_path, carrier, {"image": "nvcr.io#nvidia/nemo:25.09"}, containers=site)
    assert len(seen.texts) == 2, "two nodes"
    for text in seen.texts:
        assert "SHIM_CONTAINER_IMAGE=nvcr.io#nvidia/nemo:25.09\n" in text
        assert "SHIM_CONTAINER_ENV=MY_SETTING\n" in text
        assert f"MY_SETTING={VALUE}\n" in text
        assert "runs " not in text, "no Slurm inside"
        assert "code is" not in text, "both snapshots are there, and read only"
    assert VALUE not in seen.scripts()


@pytest.mark.failure(25, 26)
@pytest.mark.parametrize("carrier", ["submitit", pytest.param("nemo_run", marks=FULL)])
def test_apptainer(slurm: Slurm, tmp_path: Path, carrier: str) -> None:
    record = tmp_path / "record"
    record.mkdir()
    site = {"runtime": "apptainer", "executable": str(HERE / "apptainer"), "gpus": "amd", "variables": ["MY_SETTING"]}
    image = tmp_path / "train.sif"
    seen = Seen(
        slurm,
        tmp_path,
        carrier,
        {"image": str(image)},
        containers=site,
        setup=[f"export RECORD='{record}'"],
    )
    assert len(seen.texts) == 2
    for text in seen.texts:
        assert f"APPTAINER_CONTAINER={image}\n" in text
        assert f"MY_SETTING={VALUE}\n" in text
        assert "runs " not in text, "no Slurm inside"
        assert "code is" not in text, "both snapshots are there, and read only"
    arguments = [path.read_text() for path in record.glob("argv.*")]
    assert len(arguments) == 2
    for text in arguments:
        lines = text.splitlines()
        assert lines[:2] == ["exec", "--rocm"]
        assert lines[-4:-2] == [str(image), "/bin/bash"]
        assert lines[-1] == "inside"
    assert all(VALUE not in path.read_text() for path in record.iterdir()), "no value on a command line"
    assert VALUE not in seen.scripts()


@pytest.mark.parametrize("carrier", ["nemo_run", pytest.param("submitit", marks=FULL)])
def test_modules(slurm: Slurm, tmp_path: Path, carrier: str) -> None:
    if not Path("/usr/share/modules/init/bash").exists():
        pytest.skip("environment-modules is not installed")
    (tmp_path / "modulefiles" / "stack").mkdir(parents=True)
    (tmp_path / "modulefiles" / "stack" / "1.0").write_text("#%Module\nsetenv HAS_MODULE stack\n")
    seen = Seen(
        slurm, tmp_path, carrier, {"modules": ["stack/1.0"]}, setup=[f"export MODULEPATH='{tmp_path / 'modulefiles'}'"]
    )
    assert len(seen.texts) == 2
    assert all("HAS_MODULE=stack\n" in text for text in seen.texts)
