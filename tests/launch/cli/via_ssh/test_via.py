"""The parts of --via that need no ssh; the way there and back is tested with a real sshd (tests/slurm/test_via_ssh.py)."""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from launch.base.errors import InputError
from launch.cli.via_ssh import bundle, connection, protocol, serve
from launch.cli.via_ssh.client import rebuilt
from launch.inputs import user_code
from tests.support.chains import make_inputs

WORDS = {
    "fetch": ["-x;y.yaml", "--cluster=a b", "--set", "a.b=-1", "--set", "c='$(x)'", "--update", "--json"],
    "plan": ["p.yaml", "--cluster", "c", "--json", "--workspace", "/w x"],
    "submit": ["p.yaml", "--cluster", "-c", "--set=x=y"],
    "status": ["--workspace", "/w", "-r"],
    "why": ["run", "-stage"],
    "report": ["run", "--json", "--workspace=/w x"],
    "logs": ["-f", "--all", "run", "stage"],
    "cancel": ["run", "--adopted"],
    "resume": [],
    "doctor": ["run", "--fix"],
    "gc": ["--keep-days=-1", "--dry-run"],
    "rm": ["run", "--yes"],
    "list": ["--json"],
}


@pytest.mark.parametrize("name", protocol.COMMANDS)
def test_arguments_mean_the_same_over_there(name: str) -> None:
    parser = argparse.ArgumentParser()
    importlib.import_module(f"launch.cli.{name}").configure(parser)
    places = [word for word in WORDS[name] if _is_place(word)]
    args = parser.parse_args([*_with_equals(WORDS[name]), *(["--", *places] if places else [])])
    assert parser.parse_args(rebuilt(parser, args, {})) == args


def _is_place(word: str) -> bool:
    return word in ("-x;y.yaml", "p.yaml", "run", "stage", "-stage", "-r")


def _with_equals(words: list[str]) -> list[str]:
    """Options as ``--name=value``, for a value may begin with "-"."""
    found: list[str] = []
    for word in words:
        if _is_place(word):
            continue
        if word.startswith("--") or word == "-f" or not found:
            found.append(word)
        else:
            found[-1] += f"={word}"
    return found


def test_arguments_are_replaced_and_left_out() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("--cluster")
    parser.add_argument("--via")
    args = parser.parse_args(["a.yaml", "--cluster", "x", "--via", "host"])
    assert rebuilt(parser, args, {"pipeline": "./b.yaml", "via": None}) == ["--cluster=x", "--", "./b.yaml"]


@pytest.mark.parametrize(
    "text", ["-oProxyCommand=x", "a b", "a;b", "a:$(x)", "a:b c", "a:'", "", ":x", "a@-b", "a\nb", "a:~x/y"]
)
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(InputError, match="--via"):
        connection.Target.parse(text)


def test_the_command_line_has_nothing_to_be_expanded_but_home() -> None:
    assert (
        connection.Target.parse("me@login.site:~/v/bin/overnight").serve
        == "exec bash -lc 'exec ~/v/bin/overnight via serve'"
    )
    assert connection.Target.parse("login").program is None


def test_the_sockets_lie_where_nobody_else_can_enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    place = connection.socket_directory()
    assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o750)
    with pytest.raises(InputError, match="not yours alone"):
        connection.socket_directory()
    place.rmdir()
    place.symlink_to("/tmp")
    with pytest.raises(InputError, match="not yours alone"):
        connection.socket_directory()


@pytest.fixture
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    make_inputs(tmp_path / "in")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "mine.py").write_text("VALUE = 1\n")
    corpus = {"kind": "corpus", "from": str(tmp_path / "in" / "raw")}
    value = {"name": "p", "model": {"base": "hf:org/name"}, "code": "./tree", "stages": {"corpus": corpus}}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(value))
    return argparse.Namespace(pipeline=tmp_path / "p.yaml", cluster="devcluster", set=[], via="host")


def files_of(made: bundle.Bundle) -> list[str]:
    return user_code.listing(made.directory)


def test_a_bundle_is_called_by_its_content(laptop: argparse.Namespace) -> None:
    with bundle.made(laptop) as first:
        assert first is not None
        assert files_of(first) == ["code.overnight.json", "code/mine.py", "p.yaml"], (
            "a packaged profile goes by its name"
        )
        assert first.replace["set"] == ["code=./code"]
    with bundle.made(laptop) as again:
        assert again is not None
        assert again.digest == first.digest
    assert not first.directory.exists()
    (laptop.pipeline.parent / "tree" / "mine.py").write_text("VALUE = 2\n")
    with bundle.made(laptop) as other:
        assert other is not None
        assert other.digest != first.digest


def test_a_profile_of_the_laptop_goes_with_what_it_extends(laptop: argparse.Namespace) -> None:
    own = laptop.pipeline.parent / "config" / "overnight" / "profiles"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("# a comment\nextends: devcluster\npartition: other\n")
    laptop.cluster = "mine"
    with bundle.made(laptop) as made:
        assert made is not None
        sent = made.directory / "cluster" / "mine.yaml"
        assert made.replace["cluster"] == "./cluster/mine.yaml"
        assert sent.read_text().startswith("# a comment"), "as it is, so that lines are named rightly over there"
    (own / "below.yaml").write_text("extends: devcluster\naccount: a1\n")
    (own / "mine.yaml").write_text("extends: below\npartition: other\n")
    with bundle.made(laptop) as made:
        assert made is not None
        together = yaml.safe_load((made.directory / "cluster" / "mine.yaml").read_text())
        assert (together["account"], together["partition"], together["executor"]) == ("a1", "other", "slurm")
        assert "extends" not in together


@pytest.mark.parametrize(
    "told",
    [
        b"no json\n",
        b"[]\n",
        b'{"argv": [], "bundle": null}\n',
        b'{"argv": ["via", "serve"], "bundle": null}\n',
        b'{"argv": ["run", "x"], "bundle": null}\n',
        b'{"argv": [1], "bundle": null}\n',
        b'{"argv": ["list"], "bundle": {"digest": "../../x", "incoming": null}}\n',
        json.dumps({"argv": ["list"], "bundle": {"digest": "0" * 64, "incoming": "../x"}}).encode() + b"\n",
        json.dumps({"argv": ["list"], "bundle": {"digest": "0" * 64, "incoming": None}}).encode() + b"\n",
    ],
)
def test_what_is_not_of_the_protocol_is_refused(told: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is invalid|removed meanwhile"):
        serve.understood(told, tmp_path)


def test_a_bundle_that_is_not_what_was_sent_is_not_taken(laptop: argparse.Namespace, tmp_path: Path) -> None:
    place = tmp_path / "staging"
    place.mkdir()
    with bundle.made(laptop) as made:
        assert made is not None
        for name in ("incoming-a", "incoming-b"):
            shutil.copytree(made.directory, place / name)
    (place / "incoming-a" / "code" / "mine.py").chmod(0o644)
    (place / "incoming-a" / "code" / "mine.py").write_text("VALUE = 666\n")

    def told(incoming: str) -> bytes:
        assert made is not None
        return json.dumps({"argv": ["list"], "bundle": {"digest": made.digest, "incoming": incoming}}).encode() + b"\n"

    with pytest.raises(InputError, match="not what was sent"):
        serve.understood(told("incoming-a"), place)
    assert not (place / "incoming-a").exists()
    argv, directory = serve.understood(told("incoming-b"), place)
    assert (argv, directory) == (["list"], place / made.digest)
    assert serve.bundles(place) == [made.digest]
    # The code goes into the workspace as it came, to the byte, also from below a directory that git ignores.
    from jobs.core.paths import Workspace

    digest = user_code.digest(laptop.pipeline.parent / "tree")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text("*\n")
    taken = user_code.take(directory / "code", Workspace(tmp_path / "w"))
    assert (taken.files, taken.digest) == (1, digest)


def test_who_prints_to_nobody_goes_on() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"to nobody")
    tolerant = serve._Tolerant(writer)
    assert tolerant.write(b"submitted\n") == 10, "as if it had been read"
    stream = io.TextIOWrapper(io.BufferedWriter(tolerant), line_buffering=True)
    print("submitted", file=stream, flush=True)
    os.close(writer)
