"""Templates are compiled once and kept as byte code; what was made of another text or by another Jinja is not used."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import jinja2
import pytest

from launch.inputs.toolkit import package_directory
from launch.render import templates

Render = Callable[[], tuple[str, int]]


@pytest.fixture
def render(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Render]:
    """Renders ``small.sh.j2`` of a directory as a process of its own would; the text, and how often Jinja compiled."""
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    monkeypatch.setattr(templates, "package_directory", lambda name: tmp_path)
    compiled: list[str] = []
    compile_ = jinja2.Environment.compile

    def counted(environment: jinja2.Environment, source: str, *rest: str) -> object:
        compiled.append(source)
        return compile_(environment, source, *rest)

    monkeypatch.setattr(jinja2.Environment, "compile", counted)

    def once() -> tuple[str, int]:
        templates._environment.cache_clear()
        before = len(compiled)
        return templates.template("small.sh.j2", value="a b"), len(compiled) - before

    yield once
    templates._environment.cache_clear()


def written(path: Path, text: str) -> None:
    path.write_text(text)
    os.utime(path, (1_700_000_000, 1_700_000_000 + len(text)))


def test_compiled_once_and_again_for_another_text(render: Render, tmp_path: Path) -> None:
    written(tmp_path / "small.sh.j2", "echo {{ value | sh }}\n")
    assert render() == ("echo 'a b'\n", 1)
    assert render() == ("echo 'a b'\n", 0)
    written(tmp_path / "small.sh.j2", "print {{ value | sh }}\n")
    assert render() == ("print 'a b'\n", 1)


def test_byte_code_of_another_jinja_is_not_used(
    render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "small.sh.j2", "echo {{ value | sh }}\n")
    render()
    other = tmp_path / "compiler.py"
    shutil.copy(jinja2.compiler.__file__, other)
    os.utime(other, (1, 1))
    monkeypatch.setattr(jinja2.compiler, "__file__", str(other))
    assert render()[1] == 1


def test_where_nothing_can_be_written_it_is_compiled_each_time(
    render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "small.sh.j2", "echo {{ value | sh }}\n")
    (tmp_path / "__pycache__").write_text("in the way")
    assert render() == ("echo 'a b'\n", 1)
    assert render() == ("echo 'a b'\n", 1)


def test_every_template_compiles() -> None:
    for path in package_directory("sbatch_templates").glob("*.j2"):
        templates._environment().get_template(path.name)
