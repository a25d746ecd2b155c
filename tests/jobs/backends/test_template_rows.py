"""Every chat template of the grid in the path of each back end: the rows that its loader hands to the model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("trl")

from tests.support import environments, fed_rows, template_rows
from tests.support.template_rows import Wanted
from tests.support.templates import PAGE

pytestmark = pytest.mark.train

Written = tuple[Path, dict[str, Wanted]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    directory = tmp_path_factory.mktemp("grid") / "rows"
    return directory, template_rows.write(directory)


def check(written: Written, names: list[str], python: Path | None = None) -> None:
    """Ids and loss are ours (those of transformers: ``test_templates.py``), or the row is refused; the page says so."""
    directory, wanted = written
    for name, given in template_rows.fed(names, directory, python).items():
        counts, wrong = template_rows.compare(wanted[fed_rows.FEEDS[name][1]], given)
        assert wrong == [], name
        equal = sum(count[0] for count in counts.values())
        assert equal > 0.6 * sum(map(sum, counts.values())), name
        column = template_rows.column(PAGE.read_text(encoding="utf-8"), name.removesuffix(" itself"))
        assert column == template_rows.shown(counts), "python -m tests.support.templates writes docs/templates.md"


@pytest.mark.parametrize("name", ["trl", "trl preferences", "nemo_rl"])
def test_in_this_environment(written: Written, name: str) -> None:
    check(written, [name])


def test_nemo(written: Written, nemo: Path) -> None:
    check(written, ["nemo", "nemo packed"], nemo)


@pytest.mark.nvidia
def test_automodel(written: Written, tmp_path: Path) -> None:
    venv = environments.installed("automodel", "nemo_automodel")
    check(written, ["automodel"], environments.on_cpu(venv, tmp_path / "venv") / "bin/python")


@pytest.mark.nvidia
def test_nemo_rl_itself(written: Written) -> None:
    """Its own functions, where an environment has a checkout of it in a ``.pth`` file."""
    venv = os.environ.get("OVERNIGHT_NEMO_RL_VENV")
    if not venv:
        pytest.skip("no environment with NeMo-RL: set OVERNIGHT_NEMO_RL_VENV")
    check(written, ["nemo_rl itself"], Path(venv) / "bin/python")


def test_another_row_is_seen(written: Written) -> None:
    """The comparison tells another id, another loss, a row too many and one that had to be refused."""
    directory, wanted = written
    model = "trl-qwen2_5"
    own = {model: wanted["last"][model]}
    given = {model: template_rows.fed(["nemo_rl"], directory)["nemo_rl"][model]}
    assert template_rows.compare(own, given)[1] == []
    data = next(name for name, one in given[model].items() if one["fed"])
    ids, mask = given[model][data]["fed"][0]
    refused = next(name for name, one in given[model].items() if one["refused"])
    for name, fed in (
        (data, [([ids[0] + 1, *ids[1:]], mask)]),
        (data, [(ids, [*mask[:-1], not mask[-1]])]),
        (data, [(ids, mask), (ids, mask)]),
        (refused, [(ids, mask)]),
    ):
        changed = {model: {**given[model], name: {"fed": fed, "refused": ""}}}
        assert template_rows.compare(own, changed)[1]
