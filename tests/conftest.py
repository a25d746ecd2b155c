"""What a run of the tests left out, said where everybody looks: right above the summary line."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import settings

from tests import reliability
from tests.support import environments

_left = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what it puts into the background with SIGINT ignored, and children inherit that: they could not be
    # interrupted, which is what some tests are about.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A busy machine is no error of the code.
    settings.register_profile("overnight", deadline=None)
    settings.load_profile("overnight")
    config.stash[_left] = []


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if environments.FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.nvidia)
        if wrong := reliability.unknown(mark.args for mark in item.iter_markers("failure")):
            raise pytest.UsageError(f"{item.nodeid}: no such failure in tests/failures.toml: {wrong}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    environments.is_asked_for = item.get_closest_marker("nvidia") is not None


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("full"):
            item.config.stash[_left].append(item.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # one of several processes (pytest-xdist)
        session.config.workeroutput["left"] = session.config.stash[_left]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """One of several processes has ended; each of them has left out the same."""
    node.config.stash[_left] = getattr(node, "workeroutput", {}).get("left", node.config.stash[_left])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left = config.stash[_left]
    if left:
        terminalreporter.section(f"{len(left)} tests left to make test-full")
        for name in left:
            terminalreporter.write_line(name)
