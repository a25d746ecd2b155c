"""Every reading command has ``--json``, and every answer names its schema; no command is left out of this walk."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

import pytest

from launch.base import answers
from launch.cli import main
from tests.support.toy_chain import STAGES, Chain

MORE = "  final: {kind: evaluate, backend: toy, checkpoint: cpt, tasks: {perplexity: {data: corpus}}}\n"
CORPUS, _, _, CPT = STAGES.splitlines(keepends=True)[:4]
SHORT = CORPUS + CPT + MORE
PRINTS_NO_ANSWER = {"schema", "completion", "man"}
"""What they print is a document of its own."""
NEEDS_MORE = {
    "via": "a login node: tests/slurm/test_via_ssh.py", "cluster": "Slurm's daemons: tests/slurm/test_devcluster.py",
    "submit": "Slurm; its answer is that of resume", "human": "answers of two models: tests/launch/people",
    "evaluate": "a model: tests/launch/cli/test_evaluate.py", "track": "a tracker: tests/launch/status/test_trackers.py",
    "publish": "an export and a hub: tests/launch/publish",
    "tensorboard": "its package: tests/launch/status/test_boards.py",
}  # fmt: skip
SCHEMA = re.compile(r"overnight/[a-z]+(/[a-z]+)?/\d+\Z")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    made = Chain.make(tmp_path_factory.mktemp("chain") / "c", SHORT)
    made.fetch()
    made.start()
    less = made.directory / "less.yaml"  # all of it is sealed already
    less.write_text(made.pipeline.read_text().replace(MORE, ""))
    made.overnight("run", str(less))
    return made


def commands_of(chain: Chain) -> dict[str, list[list[str]]]:
    run, pipeline = chain.newest_run, str(chain.pipeline)
    data = str(chain.entry("corpus").output)
    return {
        "new": [["new", "one", "--data", str(chain.directory / "sft.jsonl"), "--base", str(chain.directory / "base"),
                 "--keep", "nothing", "--yes", "--output", str(chain.directory / "one.yaml")],
                ["new", "--from", "guide", "--output", str(chain.directory / "guide.yaml")]],
        "fetch": [["fetch", pipeline]],
        "plan": [["plan", pipeline, "--cluster", "local", *more] for more in ([], ["--scripts"], ["--check"], ["--sweep", "seed=1,2"])],
        "run": [["run", pipeline]],
        "status": [["status"]], "watch": [["watch"]], "why": [["why"], ["why", run, "cpt"]], "report": [["report"]],
        "notify": [["notify"]], "compare": [["compare", run, chain.first_run]], "logs": [["logs", run, "cpt"]],
        "cancel": [["cancel", run]], "resume": [["resume", run]], "doctor": [["doctor"]], "gc": [["gc", "--dry-run"]],
        "rm": [["rm", run, "--dry-run"]],
        "list": [["list"]],
        "data": [["data", "inspect", data],
                 ["data", "instructions", str(chain.directory / "sft.jsonl"), "--output", str(chain.directory / "made")]],
        "profile": [["profile", "list"], ["profile", "show", "local"], ["profile", "check", "local"]],
    }  # fmt: skip


def test_no_command_is_left_out(chain: Chain) -> None:
    assert {*commands_of(chain), *PRINTS_NO_ANSWER, *NEEDS_MORE} == {*main.COMMANDS}


def test_each_command_has_json() -> None:
    (commands,) = (one for one in main.whole_parser()._actions if isinstance(one, argparse._SubParsersAction))
    for name in main.COMMANDS.keys() - PRINTS_NO_ANSWER:
        own = commands.choices[name]
        inner = [one for one in own._actions if isinstance(one, argparse._SubParsersAction)]
        # The other side of --via is no command of a person.
        parsers = [one for action in inner for key, one in action.choices.items() if key != "serve"] or [own]
        assert all("--json" in parser._option_string_actions for parser in parsers), name


@pytest.mark.parametrize("name", sorted(main.COMMANDS.keys() - PRINTS_NO_ANSWER - NEEDS_MORE.keys()))
def test_answers_name_their_schema(name: str, chain: Chain) -> None:
    if name == "data":
        pytest.importorskip("transformers")
    for command in commands_of(chain)[name]:
        done = chain.overnight(*command, "--json", check=False)
        assert done.returncode in (0, 1), done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert lines, command
        action = f"/{command[1]}" if name in ("data", "profile") else ""
        for line in lines:
            assert next(iter(line)) == "schema"
            assert line["schema"] == f"overnight/{name}{action}/{answers.VERSIONS.get(name + action, 1)}"
            assert SCHEMA.match(line["schema"])
        assert "\x1b" not in done.stdout


def test_an_error_names_its_schema_too(chain: Chain) -> None:
    done = chain.overnight("status", "nosuchrun", "--json", check=False)
    assert done.returncode == 2
    value: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    assert value["schema"] == "overnight/error/1"
    assert done.stdout == ""


def test_times_are_in_utc(chain: Chain) -> None:
    for zone in ("Asia/Seoul", "America/New_York"):
        told = Chain(chain.directory, environment={"TZ": zone})
        (newest, *_) = json.loads(told.overnight("list", "--json").stdout)["runs"]
        status = json.loads(told.overnight("status", "--json").stdout)
        assert newest["created"].endswith("Z")
        assert status["created"] == newest["created"]
        import time

        assert time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(newest["created_at"])) == newest["created"]
