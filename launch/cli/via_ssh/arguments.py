"""The arguments of a command as another machine is to get them: parsed here, with some of them replaced."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any


def rebuilt(parser: argparse.ArgumentParser, args: argparse.Namespace, replace: Mapping[str, Any]) -> list[str]:
    """Arguments that ``parser`` reads as ``args``, with the values of ``replace`` (by ``dest``; None: left out)."""
    options: list[str] = []
    places: list[str] = []
    for action in parser._actions:
        if action.dest == argparse.SUPPRESS or not hasattr(args, action.dest):
            continue
        value = replace.get(action.dest, getattr(args, action.dest))
        if value is None or (value == action.default and action.dest not in replace):
            continue
        if not action.option_strings:
            places += [str(one) for one in value] if isinstance(value, list) else [str(value)]
        elif action.nargs == 0:
            options.append(action.option_strings[-1] if value else f"--no-{action.dest.replace('_', '-')}")
        else:
            # With "=", for a value may begin with "-".
            values = value if isinstance(value, list) else [value]
            options += [f"{action.option_strings[-1]}={one}" for one in values]
    return [*options, "--", *places] if places else options
