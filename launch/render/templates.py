"""From a planned stage to the scripts of one attempt: the only place that renders templates."""

from __future__ import annotations

import shlex
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template

from jobs.core.slurm_states import JobState
from launch.base.errors import InputError
from launch.base.text import control_character
from launch.config.profile_fields import node_parts
from launch.slurm import refusals


def quote(value: object) -> str:
    """Quote a value for bash. Raises InputError: a control character; no name, path or value needs one."""
    text = str(value)
    if found := control_character(text):
        raise InputError(f"control character in {text!r} ({found}); it would end up in a job script")
    return shlex.quote(text)


def on_node(text: str) -> str:
    """A value for bash whose variables are those of the node; all else in it stays as it is.

    Raises:
        InputError: the value has a control character.
    """
    missing = "not found on this node"
    return "".join(f'"${{{name}:?{missing}}}"' if name else quote(part) for name, part in node_parts(text))


@cache
def _compiled(name: str) -> Template:
    """A template, compiled once: every stage of a chain renders the same two."""
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
        loader=FunctionLoader(_source),
    )
    environment.filters["sh"] = quote
    environment.filters["on_node"] = on_node
    environment.globals["final_states"] = [state.value for state in JobState if state.is_final]
    environment.globals["silence"] = refusals.SILENCE
    return environment.get_template(name)


def _source(name: str) -> str:
    return resources.files("sbatch_templates").joinpath(name).read_text(encoding="utf-8")


def template(name: str, **values: Any) -> str:
    """Render a template of ``sbatch_templates``; every value that reaches the shell goes through the ``sh`` filter."""
    return _compiled(name).render(**values)
