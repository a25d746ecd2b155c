"""Secrets: where they may come from, where they go, and nowhere else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.core import redaction
from jobs.core.paths import RunPaths
from launch.base.errors import InputError
from launch.config import secrets
from launch.runs import secret_files

VALUE = st.text(st.characters(blacklist_categories=("Cs", "Cc"))).map(lambda text: "x" + text) | st.just("a\nb $(id)")


def user_file(directory: Path, text: str, mode: int = 0o600) -> Path:
    path = directory / "secrets"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


@pytest.mark.failure(25)
def test_the_users_file_is_parsed_and_never_run(tmp_path: Path) -> None:
    text = "# mine\n\nA=$(touch never)\nexport B=' two words '\nC=\"`id`\"\nD=a=b#c\\n\n"
    found = secrets.read_user_file(user_file(tmp_path, text))
    assert found == {"A": "$(touch never)", "B": " two words ", "C": "`id`", "D": "a=b#c\\n"}


@pytest.mark.failure(25)
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o660])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(InputError, match=f"mode {mode:04o}"):
        secrets.read_user_file(user_file(tmp_path, "A=canary-value\n", mode))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = user_file(tmp_path, "A=1\n")
    os.chown(path, 12345, -1)
    with pytest.raises(InputError, match="belongs to user 12345"):
        secrets.read_user_file(path)


@pytest.mark.parametrize(
    "line", ["canary-value", "=canary-value", "A B=canary-value", "A=1\nA=canary-value", "A=\x07canary-value"]
)
def test_a_bad_line_is_named_and_not_shown(tmp_path: Path, line: str) -> None:
    with pytest.raises(InputError) as caught:
        secrets.read_user_file(user_file(tmp_path, f"{line}\n"))
    assert str(caught.value).startswith(f"{tmp_path}/secrets:{line.count(chr(10)) + 1}: ")
    assert "canary-value" not in str(caught.value)


def test_environment_then_file_then_what_the_run_has(tmp_path: Path) -> None:
    path = user_file(tmp_path, "A=file\nB=file\n")
    wanted = dict.fromkeys("ABC", "p.yaml:3:11")
    assert secrets.collect(wanted, {"A": "env"}, path, {"C": "run"}) == {"A": "env", "B": "file", "C": "run"}
    with pytest.raises(InputError, match=r"^p.yaml:3:11: secret C has no value"):
        secrets.collect(wanted, {"A": "env"}, path)


@pytest.mark.failure(25)
@given(value=VALUE)
@example('it\'s "$HOME" `id` \\ ; # é')
def test_bash_and_python_read_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    run = RunPaths(tmp_path_factory.mktemp("run"))
    secret_files.write(run, {"my_Token": value})
    assert run.secrets.stat().st_mode & 0o777 == 0o600
    assert run.private.stat().st_mode & 0o777 == 0o700
    assert redaction.read(run.secrets) == {"my_Token": value}
    done = subprocess.run(["bash", "-c", f'. {run.secrets}; printf %s "$my_Token"'], capture_output=True, check=True)
    assert done.stdout == value.encode()


@given(data=st.data())
def test_a_value_is_taken_out_wherever_the_stream_is_cut(data: st.DataObject) -> None:
    text = data.draw(st.lists(st.sampled_from(["abcd", "abab-secret", "ab", "x\n"])).map("".join)).encode()
    redactor = redaction.Redactor({"S": "abab-secret", "T": "abcd"})
    out, at = b"", 0
    while at < len(text):
        step = data.draw(st.integers(1, 9))
        out += redactor.feed(text[at : at + step])
        at += step
    out += redactor.flush()
    assert out == text.replace(b"abab-secret", b"[S]").replace(b"abcd", b"[T]")
