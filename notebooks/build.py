"""Notebooks from their sources: ``python notebooks/build.py [--run] [--out DIR] [NAME ...]``.

A source is plain Python in cells (``# %%``, the percent format of jupytext). ``# %% [markdown]`` begins prose in English,
``# %% [markdown] lang="ko"`` the same in Korean; code is common. Two notebooks are made of a source, ``NAME.ipynb`` and
``NAME.ko.ipynb``. With ``--run`` the code runs once, top to bottom, and both get its outputs; a claim that does not hold
is an exception, and then nothing is written.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import v4

HERE = Path(__file__).resolve().parent
SECONDS = 3600
"""At most, for one cell: the machine may be busy."""

MOST_BYTES = 300_000
_CELL = re.compile(r"^# %%(?P<markdown> \[markdown\])?(?: lang=\"(?P<lang>\w+)\")?$")


@dataclass(frozen=True)
class Cell:
    """``lang``: of prose; None: of code."""

    lang: str | None
    text: str


def sources() -> list[Path]:
    """All of them."""
    return sorted(path for path in HERE.glob("*.py") if path.read_text(encoding="utf-8").startswith("# %%"))


def read(path: Path) -> list[Cell]:
    """The cells of a source. Raises ValueError: a line that begins a cell says something else."""
    cells: list[tuple[str | None, list[str]]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("# %%"):
            match = _CELL.match(line)
            if match is None or (match["lang"] and not match["markdown"]):
                raise ValueError(f"{path}:{number}: write '# %%', '# %% [markdown]' or '# %% [markdown] lang=\"ko\"'")
            cells.append(((match["lang"] or "en") if match["markdown"] else None, []))
        else:
            cells[-1][1].append(line if cells[-1][0] is None else re.sub(r"^# ?", "", line))
    return [Cell(lang, "\n".join(lines).strip("\n")) for lang, lines in cells]


def notebook(cells: list[Cell], lang: str, ran: list[Any] | None = None) -> Any:
    """The notebook in one language. ``ran``: code cells with their outputs, in order."""
    made, code = [], iter(ran or [])
    for number, cell in enumerate(cells):
        if cell.lang is None:
            one = next(code) if ran is not None else v4.new_code_cell(cell.text)
        elif cell.lang == lang:
            one = v4.new_markdown_cell(cell.text)
        else:
            continue
        made.append(nbformat.from_dict({**one, "id": f"cell-{number}"}))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=made, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def run(cells: list[Cell]) -> list[Any]:
    """The code cells with their outputs. Raises nbclient's CellExecutionError: a cell failed, such as a claim."""
    from jupyter_client.manager import KernelManager
    from nbclient import NotebookClient

    made = notebook(cells, "en")
    # Sockets in a private directory: TCP ports would be open to everybody on this machine.
    kernel = KernelManager(kernel_name="python3", transport="ipc")
    with tempfile.TemporaryDirectory(prefix="overnight-kernel-") as directory:
        kernel.ip = str(Path(directory) / "kernel")
        try:
            NotebookClient(made, km=kernel, timeout=SECONDS, resources={"metadata": {"path": str(HERE)}}).execute()
        finally:
            kernel.shutdown_kernel(now=True)
    ran = [cell for cell in made.cells if cell.cell_type == "code"]
    for cell in ran:
        cell.metadata.pop("execution", None)
        cell.outputs = [_without_places(output) for output in _joined(cell.outputs)]
    return ran


def _joined(outputs: list[Any]) -> list[Any]:
    """Pieces of one stream together: where they were cut says nothing. What libraries write to stderr (bars, warnings)
    goes there, and is no result."""
    found: list[Any] = []
    for one in outputs:
        if one.get("name") == "stderr":
            print(one.text, file=sys.stderr, end="")
            continue
        if found and one.output_type == "stream" and found[-1].get("name") == one.name:
            found[-1].text += one.text
        else:
            found.append(one)
    return found


def _without_places(value: Any) -> Any:
    """``value`` without directories of this machine: a notebook is read elsewhere."""
    if isinstance(value, str):
        workspace = os.environ.get("OVERNIGHT_WORKSPACE")
        for place, name in ((workspace, "~/overnight"), (str(HERE.parent), "."), (str(Path.home()), "~")):
            value = value.replace(place, name) if place and place != "/" else value
        return value
    if isinstance(value, dict):
        return nbformat.from_dict({key: _without_places(one) for key, one in value.items()})
    return [_without_places(one) for one in value] if isinstance(value, list) else value


def main() -> int:
    """Build those that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="sources without .py (default: all)")
    parser.add_argument("--run", action="store_true", help="run the code, and keep its outputs")
    parser.add_argument("--out", type=Path, default=HERE / "built", metavar="DIR", help="default: notebooks/built")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for path in sources():
        if args.names and path.stem not in args.names:
            continue
        began, cells = time.monotonic(), read(path)
        ran = run(cells) if args.run else None
        for lang, name in (("en", f"{path.stem}.ipynb"), ("ko", f"{path.stem}.ko.ipynb")):
            text = nbformat.writes(notebook(cells, lang, ran), version=4) + "\n"
            if len(text.encode()) > MOST_BYTES:
                print(f"{name} would have {len(text.encode()):,} bytes, more than {MOST_BYTES:,}", file=sys.stderr)
                return 1
            (args.out / name).write_text(text, encoding="utf-8")
        print(f"{path.stem}: {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
