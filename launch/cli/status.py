"""Show the state of a run: what is sealed, what runs and how far it is, why the rest waits, and what to type next."""

from __future__ import annotations

import argparse

from launch.cli import families, options

configure = options.add_run


def run(args: argparse.Namespace) -> int:
    """Print the status; 1 if something failed, 4 if the cluster did not respond, else 0."""
    from launch.status import ask, text

    if (family := families.named(args)) is not None:
        return families.show_status(family, args.json)
    found, plan, profile = options.open_run(args)
    status = ask.look(found, plan, profile)
    value, lines = text.as_json(found, plan, profile.name, status), text.lines(found, plan, profile.name, status)
    options.print_result(value, lines, args.json)
    if status.is_done and not args.json:
        from launch.status.results import print_results

        print_results(found, plan, as_json=False)
    return ask.exit_code(status)
