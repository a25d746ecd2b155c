"""From a planned stage to the scripts of one attempt: the only place that renders templates."""

from __future__ import annotations

import os
import shlex
from collections.abc import MutableMapping
from functools import cache
from importlib.machinery import SourceFileLoader
from types import CodeType
from typing import Any
from zlib import crc32

from jinja2 import BaseLoader, Environment, StrictUndefined, Template, compiler

from jobs.core.slurm_states import JobState
from launch.base.errors import InputError
from launch.base.text import control_character
from launch.config.profile_fields import node_parts
from launch.inputs.toolkit import package_directory
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
def _environment() -> Environment:
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
        loader=_Templates(),
    )
    environment.filters["sh"] = quote
    environment.filters["on_node"] = on_node
    environment.globals["final_states"] = [state.value for state in JobState if state.is_final]
    environment.globals["silence"] = refusals.SILENCE
    return environment


class _Templates(BaseLoader):
    """Loads those of ``sbatch_templates``."""

    def load(
        self,
        environment: Environment,
        name: str,
        globals: MutableMapping[str, Any] | None = None,  # noqa: A002
    ) -> Template:
        code = _ByteCode(name, str(package_directory("sbatch_templates") / name)).get_code(name)
        assert code is not None
        return environment.template_class.from_code(environment, code, {} if globals is None else globals)


class _ByteCode(SourceFileLoader):
    """The code that Jinja makes of a template, kept in ``__pycache__`` as Python keeps that of its modules: making it
    for each command is a twentieth of the CPU of a submission."""

    def source_to_code(self, data: Any, path: Any, **_: Any) -> CodeType:  # type: ignore[override]
        return _environment().compile(data.decode("utf-8"), self.name, path)

    def path_stats(self, path: Any) -> dict[str, Any]:
        found = dict(super().path_stats(path))
        # What an earlier Jinja made, or these options did, is as old as what was made of another text.
        makers = [os.stat(file).st_mtime_ns for file in (compiler.__file__, __file__)]
        return {**found, "mtime": crc32(repr((found["mtime"], makers)).encode())}


def template(name: str, **values: Any) -> str:
    """Render a template of ``sbatch_templates``; every value that reaches the shell goes through the ``sh`` filter."""
    return _environment().get_template(name).render(**values)
