"""How each runtime is told image, mounts and variables, and which mounts are refused."""

import tomllib
from pathlib import Path

import pytest

from launch.base.errors import InputError
from launch.config.mounts import Gpus, Mount, Runtime
from launch.render import containers
from launch.render.containers import Container

WORKSPACE = Path("/scratch/me/overnight")
CODE = WORKSPACE / "runs/abcde/code"
STAGE = WORKSPACE / "runs/abcde/stages/cpt"


def container(runtime, **changes):
    values = {"runtime": runtime, "image": "/images/train.sif", "workdir": STAGE, "variables": ("HF_TOKEN", "MINE")}
    return Container(**{**values, "mounts": containers.mounts(WORKSPACE, [CODE]), **changes})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/a,b", "',' in it"),
        ("/a:/b,c", "',' in it"),
        ("/a:/b:ro:x", "is not a mount"),
        ("/a:/b:exec", "is not a mount"),
        ("/a::ro", "is not a mount"),
        ("", "is not a mount"),
        ("a/b", "relative"),
        ("/a:b", "relative"),
        ("/a b", "white space"),
        ("/a\n/b", "white space or a control character"),
    ],
)
def test_mounts_that_no_runtime_can_be_told_are_refused(text, said):
    with pytest.raises(InputError, match=said):
        Mount.parse(text)


def test_a_colon_in_a_path_is_refused_with_the_way_out():
    with pytest.raises(InputError, match="':' in it") as refused:
        Mount(Path("/data/12:30"), Path("/data"))
    assert "symbolic link" in refused.value.hint


@pytest.mark.parametrize(
    ("text", "shown"), [("/a", "/a:/a"), ("/a:/b", "/a:/b"), ("/a:/b:ro", "/a:/b:ro"), ("/a:/b:rw", "/a:/b")]
)
def test_mounts_as_written(text, shown):
    assert str(Mount.parse(text)) == shown


def test_the_work_sees_workspace_inputs_and_code_the_latter_two_read_only():
    inputs = [Path("/data/raw/a.txt"), WORKSPACE / "store/x", Path("/data/raw"), Path("/data/rawer")]
    found = [
        str(mount) for mount in containers.mounts(WORKSPACE, [CODE], inputs, [Mount.parse("/opt/site:/opt/site:ro")])
    ]
    # The code comes after the workspace, in which it lies.
    assert found == [
        f"{WORKSPACE}:{WORKSPACE}",
        "/data/raw:/data/raw:ro",
        "/data/rawer:/data/rawer:ro",
        f"{CODE}:{CODE}:ro",
        "/opt/site:/opt/site:ro",
    ]


def test_the_profile_has_the_last_word_on_a_mount():
    (first, *_) = containers.mounts(WORKSPACE, [CODE], further=[Mount(Path("/real/place"), WORKSPACE)])
    assert str(first) == f"/real/place:{WORKSPACE}"


@pytest.mark.failure(26)
def test_pyxis():
    said = containers.srun_arguments(container(Runtime.PYXIS, image="nvcr.io#nvidia/nemo:25.09"), Path("/unused"))
    assert said == (
        "--container-image=nvcr.io#nvidia/nemo:25.09",
        f"--container-workdir={STAGE}",
        f"--container-mounts={WORKSPACE}:{WORKSPACE},{CODE}:{CODE}:ro",
        "--container-env=HF_TOKEN,MINE",
        "--no-container-remap-root",
        "--no-container-mount-home",
    )
    assert containers.command(container(Runtime.PYXIS)) == ()


@pytest.mark.parametrize(("gpus", "flag"), [(Gpus.NVIDIA, ["--nv"]), (Gpus.AMD, ["--rocm"]), (None, [])])
def test_apptainer(gpus, flag):
    asked = container(Runtime.APPTAINER, gpus=gpus, options=("--cleanenv",))
    binds = [f"--bind={WORKSPACE}:{WORKSPACE}", f"--bind={CODE}:{CODE}:ro"]
    assert list(containers.command(asked)) == [
        "apptainer",
        "exec",
        *flag,
        *binds,
        f"--pwd={STAGE}",
        "--cleanenv",
        "/images/train.sif",
    ]
    assert containers.srun_arguments(asked, Path("/unused")) == ()
    assert asked.prefix == "APPTAINERENV_"


def test_singularity_reads_variables_of_its_own_name():
    assert container(Runtime.APPTAINER, executable="/usr/bin/singularity").prefix == "SINGULARITYENV_"


def test_container_engine():
    asked = container(Runtime.ENGINE, image='/home/me/$x "y".toml')
    assert containers.srun_arguments(asked, Path("/s/container.toml")) == ("--environment=/s/container.toml",)
    assert tomllib.loads(containers.environment_text(asked)) == {
        "base_environment": '/home/me/$$x "y".toml',  # the engine expands variables; a doubled dollar is one
        "workdir": str(STAGE),
        "mounts": [f"{WORKSPACE}:{WORKSPACE}", f"{CODE}:{CODE}:ro"],
    }
    plain = tomllib.loads(
        containers.environment_text(container(Runtime.ENGINE, image="nvcr.io#nvidia/pytorch:25.06-py3"))
    )
    assert plain["image"] == "nvcr.io#nvidia/pytorch:25.06-py3"


@pytest.mark.parametrize(
    "changes", [{"variables": ("A=1",)}, {"variables": ("A,B",)}, {"image": "a\nb"}, {"options": ("--a\x07",)}]
)
def test_refused(changes):
    with pytest.raises(InputError):
        container(Runtime.PYXIS, **changes)
