"""The notebooks: each runs from top to bottom, and what it claims holds; what is committed is what its source says."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import launch

pytest.importorskip("nbclient", reason="the dev extra is not installed")
nbformat = pytest.importorskip("nbformat")

ROOT = Path(launch.__file__).parent.parent
NOTEBOOKS = ROOT / "notebooks"
NAMES = (
    "01_continued_pretraining",
    "02_supervised_finetuning",
    "03_direct_preference_optimization_alignment",
    "fine_tuning_practice",
)
LANGUAGES = ("", ".ko")


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_notebooks", NOTEBOOKS / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for its dataclass
    spec.loader.exec_module(module)
    return module


def built(out: Path, workspace: Path, choice: str, *names: str) -> subprocess.CompletedProcess[str]:
    places = {"OVERNIGHT_WORKSPACE": str(workspace), "XDG_STATE_HOME": str(out / "state")}
    environment = {**os.environ, **places, "OVERNIGHT_NOTEBOOKS": choice, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(NOTEBOOKS / "build.py"), "--run", "--out", str(out), *names]
    return subprocess.run(command, cwd=out, env=environment, capture_output=True, text=True, check=False)


def test_all_run_from_top_to_bottom_with_the_toy_model(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the notebooks extra is not installed")
    done = built(tmp_path, tmp_path / "w", "toy")
    assert done.returncode == 0, done.stderr[-4000:]
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == list(NAMES)
    for name in NAMES:
        notebook = nbformat.read(tmp_path / f"{name}.ipynb", 4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in code)
        assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)
        assert str(tmp_path) not in (tmp_path / f"{name}.ipynb").read_text(encoding="utf-8")


@pytest.mark.full
@pytest.mark.train
@pytest.mark.network
def test_all_run_from_top_to_bottom_with_the_real_model(tmp_path: Path) -> None:
    done = built(tmp_path, tmp_path / "w", "pt_pt")
    assert done.returncode == 0, done.stderr[-4000:]


def test_a_claim_that_does_not_hold_writes_nothing(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "wrong.py"
    source.write_text('# %% [markdown]\n# Prose.\n# %%\nassert 1 > 2, "one is more than two"\n', encoding="utf-8")
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["build.py", "--run"])
    with pytest.raises(Exception, match="one is more than two"):
        build.main()
    assert list((tmp_path / "built").iterdir()) == []


@pytest.mark.parametrize("line", ["# %% [markdwn]", '# %% lang="ko"', "# %%x"])
def test_a_cell_that_is_no_cell_is_refused_with_its_line(build: ModuleType, tmp_path: Path, line: str) -> None:
    source = tmp_path / "wrong.py"
    source.write_text(f"# %%\n1\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"wrong\.py:3: write"):
        build.read(source)


@pytest.mark.parametrize("name", NAMES)
def test_every_text_stands_in_both_languages(build: ModuleType, name: str) -> None:
    cells = build.read(NOTEBOOKS / f"{name}.py")
    prose = [cell.lang for cell in cells if cell.lang is not None]
    assert prose == ["en", "ko"] * (len(prose) // 2)
    for cell in cells:
        hangul = len(re.findall("[가-힣]", cell.text))
        assert (hangul > 0) == (cell.lang == "ko") or len(cell.text) < 20, cell.text


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_committed_is_what_the_source_says(build: ModuleType, name: str, language: str) -> None:
    path = NOTEBOOKS / "built" / f"{name}{language}.ipynb"
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < build.MOST_BYTES
    committed = nbformat.reads(text, 4)
    nbformat.validate(committed)
    wanted = build.notebook(build.read(NOTEBOOKS / f"{name}.py"), language.removeprefix(".") or "en")
    assert [(cell.cell_type, cell.source) for cell in committed.cells] == [
        (cell.cell_type, cell.source) for cell in wanted.cells
    ], "make notebooks"
    outputs = [output for cell in committed.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert not re.search(r"/(?:tmp|root|home|work)/", text)
