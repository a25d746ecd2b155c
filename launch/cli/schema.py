"""Print the JSON Schema of pipelines, profiles or results: editors complete keys and check values with it.

The first line of a pipeline names it: # yaml-language-server: $schema=FILE
"""

from __future__ import annotations

import argparse

KINDS = ("pipeline", "profile", "results")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("of", choices=KINDS, metavar="OF", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("--markdown", action="store_true", help="as tables: docs/pipeline.md, docs/results.md")


def run(args: argparse.Namespace) -> int:
    """Print."""
    import json

    from launch.base.errors import InputError
    from launch.config import data_settings
    from launch.config.schema import files, reference

    if args.markdown and args.of == "profile":
        raise InputError("--markdown: of a pipeline or results", hint="docs/profiles.md has the keys of profiles")
    if args.of == "pipeline":
        found = files.of_pipeline(data_settings.json_schemas(files.pipeline_word))
    else:
        found = files.of_profile() if args.of == "profile" else files.of_results()
    lines = reference.of_results if args.of == "results" else reference.lines
    print("\n".join(lines(found)) if args.markdown else json.dumps(found, indent=1, ensure_ascii=False))
    return 0
