"""The client of the Slurm that a profile names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from launch.base.errors import InputError
from launch.config.profile import Profile
from launch.slurm.client import Gateway


def gateway(profile: Profile, secrets: Iterable[str] = (), environment: Mapping[str, str] | None = None) -> Gateway:
    """The client of the profile's Slurm; the named ``secrets`` are removed from the environment of its commands.

    Args:
        environment: of its commands; default: this process's.

    Raises:
        InputError: the profile is of the throw-away cluster, and that is not up.
    """
    if not profile.devcluster:
        return Gateway(drop=secrets, environment=environment)
    from launch.slurm.devcluster.location import slurm_conf

    conf = slurm_conf()
    if conf is None:
        raise InputError(
            f"the profile {profile.name!r} is of the throw-away cluster, which is not up", hint="overnight cluster up"
        )
    return Gateway(conf, drop=secrets, environment=environment)
