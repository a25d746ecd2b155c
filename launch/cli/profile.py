"""Profiles of clusters: write one for the cluster you are on, look at it, check it, and try it in a job."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from launch.cli import options

if TYPE_CHECKING:
    from launch.slurm.client import Gateway


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print machine-readable output")
    named = argparse.ArgumentParser(add_help=False, parents=[common])
    named.add_argument("name", metavar="NAME", help="profile: a name or a YAML file")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    init = actions.add_parser("init", parents=[common], help="write a profile from what this login node answers")
    init.add_argument("name", nargs="?", metavar="NAME", help="default: the name of the cluster")
    init.add_argument(
        "--output", metavar="FILE", help="where to write it, - for the terminal (default: among your profiles)"
    )
    init.add_argument(
        "--seconds", type=float, default=4.0, metavar="N", help="how long to wait for each answer (default 4)"
    )
    init.add_argument("--force", action="store_true", help="write over a file that is there")

    show = actions.add_parser("show", parents=[named], help="all values of a profile, all layers put together")
    show.add_argument("--origin", action="store_true", help="the file and line of each value")

    actions.add_parser("check", parents=[named], help="compare it with the cluster, without a job")

    test = actions.add_parser("test", parents=[named], help="try it: a small job on two nodes, one an executor")
    test.add_argument("--no-amend", action="store_true", help="do not write into the profile what was found")
    test.add_argument(
        "--skip", action="append", default=[], choices=("requeue", "signal"), help="leave this out (it takes a while)"
    )
    test.add_argument("--minutes", type=int, metavar="N", help="time limit of the job (default 1; 10 with an image)")
    test.add_argument("--wait", type=float, metavar="MINUTES", help="cancel it if it is not done by then (default: no)")
    test.add_argument("--workspace", type=Path, metavar="DIR", help="where its files go (default: the profile's)")

    actions.add_parser("list", parents=[common], help="the profiles that can be named")


def run(args: argparse.Namespace) -> int:
    """Do the action; 1 where ``check`` or ``test`` finds that something fails."""
    if args.action == "test":
        from launch.cli import profile_try

        return profile_try.run(args)
    return {"init": _init, "show": _show, "check": _check, "list": _list}[args.action](args)


def _init(args: argparse.Namespace) -> int:
    import os
    import shlex
    import time

    from launch.base.errors import InputError
    from launch.config.fields import slug
    from launch.site import init
    from launch.site.show import packaged

    began = time.monotonic()
    if args.name is not None:
        try:
            slug(args.name)
        except ValueError as error:
            raise InputError(str(error)) from error
    if not args.seconds > 0:
        raise InputError(f"--seconds {args.seconds}: must be more than 0")
    gateway, devcluster = _here()
    made = init.make(gateway, args.name, os.environ, devcluster, args.seconds)
    if not made.facts.config:
        said = "\n".join(f"  {command}: {why}" for command, why in made.facts.unknown.items())
        raise InputError(
            f"Slurm does not answer here, so there is nothing to write a profile from:\n{said}",
            hint="run this on a login node of the cluster, or: overnight cluster up",
        )
    path = _write(args, made.name, made.text)
    seconds = time.monotonic() - began
    if args.json:
        asked = [
            {"command": one.command, "seconds": round(one.seconds, 3), "problem": one.problem or None}
            for one in made.response.values()
        ]
        value = {"name": made.name, "path": path and str(path), "asked": asked, "text": made.text}
        options.print_result(value, (), as_json=True)
        return 0
    if path is None:
        print(made.text, end="")
        return 0
    for command, problem in made.facts.unknown.items():
        print(f"no answer: {command}: {problem}")
    print(f"{path}: written, {len(made.response)} questions in {seconds:.1f} s; review the lines marked `guessed`")
    if made.name in packaged():
        print(f"a profile {made.name!r} comes with the package, too; from the site's own pages: `extends: {made.name}`")
    shown = made.name if args.output is None else shlex.quote(str(path))
    print(f"next: overnight profile check {shown}; overnight profile test {shown}")
    return 0


def _write(args: argparse.Namespace, name: str, text: str) -> Path | None:
    """Where it was written; None for the terminal. The text is read back first: what is written can be used."""
    import tempfile

    from jobs.core.files import write_atomic
    from launch.base.errors import InputError
    from launch.config.profile_file import read_profile, user_directory

    with tempfile.TemporaryDirectory(prefix="overnight-") as scratch:
        trial = Path(scratch) / f"{name}.yaml"
        trial.write_text(text, encoding="utf-8")
        read_profile(trial)
    if args.output == "-":
        return None
    path = user_directory() / f"{name}.yaml" if args.output is None else Path(args.output).expanduser()
    if path.exists() and not args.force:
        raise InputError(f"{path} is already there", hint="--output FILE for another place, --force to write over it")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text)
    return path


def _here() -> tuple[Gateway, Path | None]:
    """The Slurm of this machine: what the environment or the installation says, else the throw-away cluster."""
    import os

    from launch.slurm.client import Gateway
    from launch.slurm.devcluster.location import slurm_conf

    dev = slurm_conf()
    installed = any(Path(path).exists() for path in ("/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf"))
    if dev is not None and "SLURM_CONF" not in os.environ and not installed:
        return Gateway(dev), dev
    return Gateway(), dev


def _show(args: argparse.Namespace) -> int:
    from launch.config.profile_file import locate, read_profile
    from launch.site.show import lines, values

    found = read_profile(locate(args.name))
    shown = [one.as_json() for one in values(found)]
    value = {"profile": found.profile.name, "path": str(found.path), "values": shown}
    options.print_result(value, lines(found, args.origin), args.json)
    return 0


def _check(args: argparse.Namespace) -> int:
    from launch.config.profile import ExecutorKind
    from launch.config.profile_file import locate, read_profile
    from launch.runs import client
    from launch.site import check

    found = read_profile(locate(args.name))
    gateway = None if found.profile.executor is ExecutorKind.LOCAL else client.gateway(found.profile)
    return options.print_findings({"profile": found.profile.name}, check.check(found, gateway), args.json)


def _list(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from launch.base.text import table
    from launch.site.show import summaries

    found = summaries()
    rows = [[one.name, one.whose, one.description, one.link] for one in found]
    lines = table(("profile", "from", "description", "follows"), rows)
    options.print_result({"profiles": [asdict(one) for one in found]}, lines, args.json)
    return 0
