"""Start, stop or break a throw-away Slurm on this machine, for trying chains before they cost GPU hours."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from launch.cli import options

if TYPE_CHECKING:
    from launch.slurm.devcluster.cluster import DevCluster


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    common = argparse.ArgumentParser(add_help=False)
    default = "default: $OVERNIGHT_DEVCLUSTER or ~/.overnight/devcluster"
    common.add_argument("--dir", type=Path, metavar="DIR", help=default)
    common.add_argument("--json", action="store_true", help="print machine-readable output")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    up = actions.add_parser("up", parents=[common], help="start it, wait until all nodes are idle")
    up.add_argument("--nodes", type=int, metavar="N", help="number of nodes (default 4)")
    up.add_argument(
        "--accounting", action=argparse.BooleanOptionalAction, help="with slurmdbd and MariaDB: sacct, accounts, QOS"
    )
    up.add_argument(
        "--shape", metavar="PROFILE", help="partitions, GPUs, features, accounts and QOS that this profile names"
    )
    up.add_argument("--port", type=int, metavar="N", help="base of its block of ports (default: a free one)")
    up.add_argument("--install", action="store_true", help="install missing Debian packages first (root only)")

    actions.add_parser("down", parents=[common], help="stop all of it and remove its directory")
    actions.add_parser("status", parents=[common], help="what runs, and the state of its nodes in Slurm")
    kill = actions.add_parser("kill", parents=[common], help="power cut: a node with its jobs, or a daemon")
    kill.add_argument("name", metavar="NODE")
    start = actions.add_parser("start", parents=[common], help="power on: start a node or daemon again")
    start.add_argument("name", metavar="NODE")


def run(args: argparse.Namespace) -> int:
    """Do the action; 1 when ``status`` finds something down."""
    from launch.slurm.devcluster import location
    from launch.slurm.devcluster.cluster import DevCluster

    cluster = DevCluster(args.dir or location.default_directory())
    if args.action == "up":
        return _up(cluster, args)
    if args.action == "status":
        return _status(cluster, args)
    if args.action == "down":
        removed = cluster.down()
        line = f"{'removed' if removed else 'nothing in'} {cluster.directory}"
        options.print_result({"removed": removed}, [line], args.json)
    elif args.action == "kill":
        cluster.kill(args.name)
        line = f"{args.name}: power cut (back with: overnight cluster start {args.name})"
        options.print_result({"killed": args.name}, [line], args.json)
    else:
        cluster.start(args.name)
        options.print_result({"started": args.name}, [f"{args.name}: started"], args.json)
    return 0


def _up(cluster: DevCluster, args: argparse.Namespace) -> int:
    import time

    from launch.slurm.devcluster import location, packages

    start = time.monotonic()
    existing = cluster.config()
    shape = _shape(args, 4 if existing is None else existing.nodes)
    if args.accounting is None and (shape.get("accounts") or shape.get("qos")):
        args.accounting = True
    with_accounting = args.accounting if existing is None else existing.accounting
    packages.require(bool(with_accounting), install=args.install)

    def say(line: str) -> None:
        if not args.json:
            print(f"{time.monotonic() - start:5.1f} s  {line}", flush=True)

    settings = cluster.up(nodes=args.nodes, with_accounting=args.accounting, port=args.port, shape=shape, say=say)
    by_itself = cluster.directory == location.default_directory().resolve()
    finds = "finds it by itself" if by_itself else f"finds it with  export {location.VARIABLE}={cluster.directory}"
    value = {
        "directory": str(cluster.directory),
        "slurm_conf": str(settings.slurm_conf),
        "nodes": list(settings.node_names),
        "accounting": settings.accounting,
        "port": settings.port,
    }
    lines = [
        "",
        f"Slurm's own commands:   export SLURM_CONF={settings.slurm_conf}",
        f"Profile `devcluster`:   {finds}",
        "Remove it:              overnight cluster down" + ("" if by_itself else f" --dir {cluster.directory}"),
    ]
    options.print_result(value, lines, args.json)
    return 0


def _shape(args: argparse.Namespace, nodes: int) -> dict[str, object]:
    if args.shape is None:
        return {}
    from launch.config.profile_file import find
    from launch.site.devcluster_shape import shape_of

    return shape_of(find(args.shape), args.nodes or nodes)


def _status(cluster: DevCluster, args: argparse.Namespace) -> int:
    status = cluster.status()
    lines = [f"{cluster.directory}: {'up' if status.healthy else 'NOT all up'}"]
    for name, alive in status.daemons.items():
        state = status.nodes.get(name, "")
        lines.append(f"  {name:<10} {'running' if alive else 'DOWN':<8} {state}".rstrip())
    lines.append(f"export SLURM_CONF={status.config.slurm_conf}")
    value = {
        "directory": str(cluster.directory),
        "slurm_conf": str(status.config.slurm_conf),
        "healthy": status.healthy,
        "daemons": status.daemons,
        "nodes": status.nodes,
    }
    options.print_result(value, lines, args.json)
    return 0 if status.healthy else 1
