"""The connections of --via: check that a login node has what it needs, and close them."""

from __future__ import annotations

import argparse

from launch.cli import options


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in (("check", "connect, and print which overnight is there"), ("close", "end the connection")):
        own = actions.add_parser(name, help=text)
        own.add_argument("host", metavar="HOST", help="[USER@]HOST or a Host of ~/.ssh/config; HOST:/path/to/overnight")
        own.add_argument("--json", action="store_true", help="print machine-readable output")
    actions.add_parser("serve", help="the server side; started through ssh, not by hand")


def run(args: argparse.Namespace) -> int:
    """Do the action."""
    if args.action == "serve":
        from launch.cli.via_ssh.serve import serve

        return serve(args.main)
    from launch.cli.via_ssh.client import session
    from launch.cli.via_ssh.connection import Connection, Target

    target = Target.parse(args.host)
    connection = Connection(target)
    if args.action == "close":
        closed = connection.close()
        line = f"{target.host}: {'closed' if closed else 'was not open'}"
        options.print_result({"host": target.host, "closed": closed}, [line], args.json)
        return 0
    connection.open()
    with session(connection) as other:
        found = other.greeting()
    value = {"host": target.host, "version": found.version, "staging": found.staging, "bundles": len(found.have)}
    line = f"{target.host}: overnight {found.version}; bundles go to {found.staging} ({len(found.have)} there)"
    options.print_result(value, [line], args.json)
    return 0
