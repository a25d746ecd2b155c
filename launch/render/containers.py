"""The container that a stage's work runs in: what it sees, and how each runtime is told.

Only the work runs inside. Prologue, watcher and verdict stay on the batch host, so an image needs bash and the Python
that trains, and nothing of Slurm. Variables go in by name: their values stay in the environment and are never part of
a command line, where every user of the node could read them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from launch.base.errors import InputError
from launch.base.text import control_character
from launch.config.mounts import Gpus, Mount, Runtime
from launch.config.secrets import VARIABLE_NAME
from launch.slurm.options import flag_name


@dataclass(frozen=True)
class Container:
    """What one stage's work runs in.

    Attributes:
        image: as the runtime wants it: pyxis ``[USER@][REGISTRY#]IMAGE[:TAG]`` or a squashfs file; apptainer a SIF
            file, a sandbox directory or a URI; the container engine also the path of an environment file (``*.toml``).
        workdir: where the work starts; must lie in a mount.
        mounts: later ones may lie inside earlier ones.
        variables: names that go in although the image may set them otherwise.
        executable: ``apptainer``, or ``singularity`` where it is called so.
        options: further options of ``apptainer exec`` or, for pyxis, of srun.
        remove: names of options of ours that ``apptainer exec`` does not get.

    Raises:
        InputError: a name that is no variable's, or an image with a control character.
    """

    runtime: Runtime
    image: str
    workdir: Path
    mounts: tuple[Mount, ...] = ()
    variables: tuple[str, ...] = ()
    gpus: Gpus | None = None
    executable: str = "apptainer"
    options: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.variables:
            if not VARIABLE_NAME.match(name):
                raise InputError(f"{name!r} is not the name of an environment variable")
        for text in (self.image, self.executable, *self.options):
            if found := control_character(text):
                raise InputError(f"control character in {text!r} ({found})")

    @property
    def prefix(self) -> str:
        """What apptainer wants before the name of a variable that it is to set inside."""
        return f"{Path(self.executable).name.upper()}ENV_"


def mounts(
    workspace: Path, code: Iterable[Path], inputs: Iterable[Path] = (), further: Iterable[Mount] = ()
) -> tuple[Mount, ...]:
    """What the work needs: the workspace, in it the snapshots of the code (read only), inputs that lie elsewhere (read
    only), and what the profile adds. The profile may mount something else at the same place: the last one wins."""
    found = [Mount(workspace, workspace)]
    found += [Mount(path, path, read_only=True) for path in _outermost(inputs, workspace)]
    found += [Mount(path, path, read_only=True) for path in code]
    by_target = {mount.target: mount for mount in [*found, *further]}
    return tuple(by_target.values())


def _outermost(paths: Iterable[Path], workspace: Path) -> list[Path]:
    """``paths`` without those that lie in another of them or in the workspace."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(above) for above in [workspace, *kept]):
            kept.append(path)
    return kept


def srun_arguments(container: Container, environment_file: Path) -> tuple[str, ...]:
    """Options of srun; none for apptainer, which node.sh starts. ``environment_file`` holds ``environment_text``."""
    if container.runtime is Runtime.ENGINE:
        # On srun only: CSCS discourages the option in the header, where the batch script would start in the container.
        return (f"--environment={environment_file}", *container.options)
    if container.runtime is not Runtime.PYXIS:
        return ()
    arguments = [f"--container-image={container.image}", f"--container-workdir={container.workdir}"]
    if container.mounts:
        arguments.append(f"--container-mounts={','.join(map(str, container.mounts))}")
    if container.variables:
        arguments.append(f"--container-env={','.join(container.variables)}")
    # Root inside would own what the work writes by another name; a home directory would bring its ~/.local along.
    arguments += ["--no-container-remap-root", "--no-container-mount-home"]
    return (*arguments, *container.options)


def command(container: Container) -> tuple[str, ...]:
    """``apptainer exec ... IMAGE``, which node.sh puts before itself; empty for the other runtimes."""
    if container.runtime is not Runtime.APPTAINER:
        return ()
    words = [] if container.gpus is None else ["--nv" if container.gpus is Gpus.NVIDIA else "--rocm"]
    words += [*(f"--bind={mount}" for mount in container.mounts), f"--pwd={container.workdir}"]
    words = [word for word in words if flag_name(word) not in container.remove]
    return (container.executable, "exec", *words, *container.options, container.image)


def environment_text(container: Container) -> str:
    """The environment definition file (TOML) of the container engine; empty for other runtimes. Without variables: it
    passes the host's, and node.sh exports the profile's again. See
    https://docs.cscs.ch/software/container-engine/edf/"""
    if container.runtime is not Runtime.ENGINE:
        return ""
    key = "base_environment" if container.image.endswith(".toml") else "image"
    lines = [
        f"{key} = {_toml(container.image)}",
        f"workdir = {_toml(container.workdir)}",
        "mounts = [",
        *(f"    {_toml(mount)}," for mount in container.mounts),
        "]",
    ]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    """A basic string of TOML (which is JSON's); the engine expands ``${NAME}`` unless the dollar is doubled."""
    return json.dumps(str(value), ensure_ascii=False).replace("$", "$$")
