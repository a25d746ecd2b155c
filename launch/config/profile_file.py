"""The profile as a file: found by name or path, read in layers, checked as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.base.errors import InputError
from launch.base.text import nearest, suggest, user_place
from launch.config.document import layers
from launch.config.document.positions import Document, MarkedFile, Positions, Problem, failure
from launch.config.document.typed import validate
from launch.config.profile import Continuation, Profile
from launch.config.profile_fields import MemoryRule, node_parts
from launch.inputs.toolkit import package_directory
from launch.slurm.options import OPTIONS, flag_name


@dataclass(frozen=True)
class ProfileFile(MarkedFile):
    """A profile, all layers put together. ``data`` has no ``extends``: it reads as the same profile."""

    profile: Profile

    def with_pipeline(self, data: dict[str, Any], positions: Positions) -> ProfileFile:
        """This profile under the ``cluster:`` and ``resources:`` of a pipeline. Raises InputError: with that file's
        line."""
        above = layers.of_pipeline(Document(data, positions))
        if not above.data:
            return self
        merged = layers.overlay(Document(self.data, self.positions), above)
        hint = f"overnight profile check {self.path}"
        return ProfileFile(self.path, merged.data, merged.positions, _validated(merged.data, merged.positions, hint))


def _validated(data: dict[str, Any], positions: Positions, hint: str, kept: bool = False) -> Profile:
    profile = validate(Profile, data, positions, hint=hint)
    # What a run was submitted with is not judged anew: another version's list would lock its user out.
    if not kept and (problems := option_problems(profile)):
        raise failure(problems, positions, hint=hint)
    return profile


def user_directory() -> Path:
    """Where a user keeps profiles."""
    return user_place("CONFIG", ".config") / "profiles"


def _directories() -> list[Path]:
    """Where profiles with names lie: packaged, of the site (``$OVERNIGHT_PROFILES``, /etc), of the user."""
    site = [Path(part) for part in os.environ.get("OVERNIGHT_PROFILES", "").split(os.pathsep) if part]
    packaged = package_directory("cluster_profiles")
    return [packaged, Path("/etc/overnight/profiles"), *reversed(site), user_directory()]


def available() -> dict[str, Path]:
    """Profiles that can be named; the user's before the site's, the site's before the packaged ones."""
    return _named(_directories())


def _named(directories: Sequence[Path]) -> dict[str, Path]:
    found = [path for directory in directories if directory.is_dir() for path in sorted(directory.glob("*.yaml"))]
    return {path.stem: path for path in found}


CHOSEN = "OVERNIGHT_CLUSTER"
"""Environment variable: the profile of a command without ``--cluster``."""


def default_name() -> tuple[str, str]:
    """The profile of a command without ``--cluster``, and why it is that one: ``$OVERNIGHT_CLUSTER``, else the only
    profile of the user or, without any, of the site. Raises InputError: there is none, or more than one."""
    if chosen := os.environ.get(CHOSEN):
        return chosen, f"${CHOSEN}"
    _, *site, user = _directories()
    for own in ([user], site):
        found = sorted(_named(own))
        if len(found) == 1:
            return found[0], "the only profile"
        if found:
            hint = f"--cluster NAME, or export {CHOSEN}=NAME"
            raise InputError(f"which cluster? There are the profiles {', '.join(found)}", hint=hint)
    raise InputError(
        "which cluster? There is no profile yet",
        hint="overnight profile init, on a login node; or --cluster NAME with a profile of `overnight profile list`",
    )


def locate(name_or_path: str, *, below: Path | None = None) -> Path:
    """File of a profile: a path, or a name in the user's directory, the site's or the package. With ``below`` only in
    directories after that file's: a user's ``juwels`` can extend the packaged one. Raises InputError: there is none."""
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path).expanduser()
        return path if below is None else below.parent / path
    directories = _directories()
    if below is not None and below.stem == name_or_path:
        own = [number for number, directory in enumerate(directories) if directory.resolve() == below.parent.resolve()]
        directories = directories[: own[-1]] if own else directories
    known = _named(directories)
    if name_or_path not in known:
        raise InputError(
            f"there is no cluster profile {name_or_path!r}; {suggest(name_or_path, list(known))}",
            hint=f"--cluster NAME or --cluster FILE.yaml; your own go to {user_directory()}",
        )
    return known[name_or_path]


def read_profile(path: Path, text: str | None = None, kept: bool = False) -> ProfileFile:
    """A profile with what it extends, checked; the default ``name`` is the file's. ``text`` replaces the content of the
    file; ``kept``: it belongs to a run and was checked at submission. Raises InputError: every fault with its line."""
    document = layers.read_all(path, lambda name, file: locate(name, below=file), text)
    data = {"name": path.stem, **document.data}
    hint = f"overnight profile check {path}"
    return ProfileFile(path, data, document.positions, _validated(data, document.positions, hint, kept))


def find(name_or_path: str) -> Profile:
    """The profile of that name or path."""
    return read_profile(locate(name_or_path)).profile


def option_problems(profile: Profile) -> list[Problem]:
    """Entries of ``sbatch`` that a profile cannot set and of ``remove`` that no job gets, with the nearest valid
    one."""
    further = set(profile.sbatch)
    further |= {flag_name(one) for one in profile.containers.options if one[:2] == "--"}
    known = sorted(further.union(name for name, row in OPTIONS.items() if row.is_removable))
    found = list(_impossible(profile))
    reserved = [(name, row.reserved) for name in profile.sbatch if (row := OPTIONS.get(name)) and row.reserved]
    found += [Problem(("sbatch", name), f"{name!r} cannot be set: {why}", at_key=True) for name, why in reserved]
    for number, name in enumerate(profile.remove):
        if name in OPTIONS and OPTIONS[name].needed:
            found.append(Problem(("remove", number), f"{name!r} cannot be left out: {OPTIONS[name].needed}"))
        elif name not in known:
            near = nearest(name, known)
            rest = f"nearest: {near}" if near else "`overnight plan PIPELINE --scripts` shows those of a pipeline"
            found.append(Problem(("remove", number), f"no job gets an option {name!r}; {rest}"))
    return found


_MEMORY = ("mem", "mem-per-cpu", "mem-per-gpu")


def _impossible(profile: Profile) -> Iterator[Problem]:
    """Values that are right by themselves and not together."""
    links = profile.links if profile.continuation is Continuation.CHAIN else 1
    least, longest = profile.job_name.shortest(links), profile.job_name.longest
    if longest is not None and longest < least:
        text = f"{longest} is too short for a name that comes only once: write {least} or more, or a shorter prefix"
        yield Problem(("job_name", "longest"), text)
    for name, value in profile.env.items():
        if any(variable for variable, _ in node_parts(value)):
            text = f"{value!r} stays as it is, its variable is not replaced: write it in node_env"
            yield Problem(("env", name), text)
    asked = [name for name in _MEMORY if name not in profile.remove and profile.sbatch.get(name) not in (None, False)]
    for name in asked:
        if other := next((key for key in _memory_keys(profile) if key[0] != name), None):
            text = f"Slurm takes one of --{name} and --{other[0]}, which comes from {other[1]}"
            yield Problem(("sbatch", name), f"{text}: take one out, or write remove: [{other[0]}]", at_key=True)


def _memory_keys(profile: Profile) -> Iterator[tuple[str, str]]:
    """Options of sbatch that ask for memory, each with the key of the profile that says so."""
    taken_out = {*profile.remove, *(name for name in _MEMORY if profile.sbatch.get(name, "") in (None, False))}
    said = [(name, f"sbatch.{name}") for name in _MEMORY if name in profile.sbatch]
    if profile.mem is MemoryRule.NODE:
        said.append(("mem", "mem: node"))
    if profile.mem is not MemoryRule.NEVER:
        said += [("mem", f"resources.{group}.mem") for group, keys in profile.resources.items() if keys.mem is not None]
    said += [("mem-per-cpu", "per_cpu.mem")] if profile.per_cpu.mem is not None else []
    said += [("mem-per-gpu", "per_gpu.mem")] if profile.per_gpu.mem is not None else []
    return (one for one in said if one[0] not in taken_out)
