"""The client of the Slurm that a profile names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from launch.base.errors import InputError
from launch.base.text import user_place
from launch.config.profile import Profile
from launch.slurm.client import Gateway


def gateway(profile: Profile, secrets: Iterable[str] = (), environment: Mapping[str, str] | None = None) -> Gateway:
    """The client of the profile's Slurm; the named ``secrets`` are removed from the environment of its commands.

    Args:
        environment: of its commands; default: this process's.

    Raises:
        InputError: the profile is of the throw-away cluster, and that is not up.
    """
    floor = 0.0 if profile.poll_floor is None else float(profile.poll_floor.seconds)
    more: dict[str, Any] = {"cluster": profile.clusters, "floor": floor, "asked": asked_file(profile)}
    if not profile.devcluster:
        return Gateway(drop=secrets, environment=environment, **more)
    from launch.slurm.devcluster.location import slurm_conf

    conf = slurm_conf()
    if conf is None:
        raise InputError(
            f"the profile {profile.name!r} is of the throw-away cluster, which is not up", hint="overnight cluster up"
        )
    return Gateway(conf, drop=secrets, environment=environment, **more)


def asked_file(profile: Profile) -> Path:
    """The file whose time is that of the last question to the queue, by any command or job of this user there."""
    return user_place("STATE", ".local/state") / f"asked-{profile.clusters or 'here'}"
