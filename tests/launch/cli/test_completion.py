"""Completion and the manual page have every command and every option."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.cli import completion, main, man


def options_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for own in action.choices.values():
                yield from options_of(own)
        elif action.help != argparse.SUPPRESS:
            yield from (option for option in action.option_strings if option.startswith("--"))


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_every_command_and_option_is_completed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["completion", shell]) == 0
    shown = capsys.readouterr().out
    wanted = {*main.COMMANDS, *options_of(main.whole_parser())}
    assert len(wanted) > 60
    missing = [one for one in wanted if one.removeprefix("--") not in shown]
    assert missing == []


def complete(script: Path, words: str, directory: Path) -> list[str]:
    """What bash would offer after ``words``."""
    given = words.split(" ")
    lines = [
        f"source {script}", f"COMP_WORDS=({' '.join(given[:-1])} '{given[-1]}')", f"COMP_CWORD={len(given) - 1}",
        f"COMP_LINE='{words}'", "COMP_POINT=${#COMP_LINE}",
        'name=$(complete -p overnight | sed -n "s/.*-F \\([^ ]*\\).*/\\1/p")', "$name", 'printf "%s\\n" "${COMPREPLY[@]}"',
    ]  # fmt: skip
    done = subprocess.run(["bash", "-c", "\n".join(lines)], cwd=directory, capture_output=True, text=True, check=True)
    return sorted(done.stdout.split())


def test_bash_completes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["completion", "bash"]) == 0
    script = tmp_path / "overnight.bash"
    script.write_text(capsys.readouterr().out)
    (tmp_path / "night.yaml").write_text("")
    assert complete(script, "overnight sub", tmp_path) == ["submit"]
    assert complete(script, "overnight status --w", tmp_path) == ["--workspace"]
    assert complete(script, "overnight data ins", tmp_path) == ["inspect", "instructions"]
    assert "night.yaml" in complete(script, "overnight plan ni", tmp_path)


def test_the_manual_has_every_option_and_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["man"]) == 0
    page = capsys.readouterr().out
    for option in {*options_of(main.whole_parser())} - {"--help"}:
        assert option.replace("-", "\\-") in page
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    (tmp_path / "o.1").write_text(page)
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-P-c", "-P-b", "-P-u", "o.1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "SYNOPSIS" in done.stdout


def test_the_page_of_commands_is_up_to_date() -> None:
    page = (Path(main.__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    parser = main.whole_parser()
    assert page == "\n".join(man.markdown(parser)) + "\n", "overnight man --markdown > docs/cli.md"
    shown = set(re.findall(r"--[a-z][a-z-]*", page))
    assert {*options_of(parser)} - {"--help", "--version", *shown} == set()
