"""The grid of chat templates in each back end's own path: what its loader hands to the model beside our ids and loss."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from jobs.encoding.errors import CannotEncode
from jobs.encoding.load import load
from jobs.encoding.rows import RowEncoder
from jobs.encoding.settings import Encoding
from jobs.encoding.tokens import Tokens
from tests.support import fed_rows
from tests.support.templates import GRID, templates, write_tokenizer

SCRIPT = Path(fed_rows.__file__)
OTHER = {"role": "assistant", "content": "I would rather not say."}
BACK_ENDS = {
    "trl": "the batch of a step, by the loader of TRL's trainer",
    "trl preferences": "that of DPO: each last answer, chosen before another one",
    "nemo": "a batch of NeMo's data set, by its own collation",
    "nemo packed": "packed sequences of NeMo's data set, divided again where rows begin",
    "nemo_rl": "the file that NeMo-RL reads, and of it the ids that our description of its functions gives; a test has "
    "NeMo-RL's own functions make them where `OVERNIGHT_NEMO_RL_VENV` names an environment. It learns one answer a row: "
    "the last one here (`answers: last`)",
    "automodel": "a batch by AutoModel's own collation",
}
"""Of each back end what is compared."""
HEAD = "## In each back end"

Wanted = dict[str, dict[str, list[Tokens]]]
"""Of each model and data set the rows that a back end must be given; none: it must refuse."""


def write(directory: Path) -> dict[str, Wanted]:
    """Write the data sets of all templates; what is wanted of them by the folder of ``fed_rows.FEEDS``."""
    wanted: dict[str, Wanted] = {"instructions": {}, "preferences": {}, "last": {}}
    for title, template in templates().items():
        name = _name(title)
        encoder = RowEncoder(load(write_tokenizer(directory / name / "tokenizer", template)))
        for kind, change in (("instructions", dict), ("preferences", _pair), ("last", _last)):
            own: dict[str, list[dict[str, Any]]] = {}
            wanted[kind][name] = {}
            for at, row in enumerate(changed for given in GRID.values() if (changed := change(given))):
                try:
                    ours = list(encoder.encode(row).values())
                except CannotEncode:
                    ours = []
                data = "fitting" if ours and kind != "last" else f"row-{at:02d}"
                own.setdefault(data, []).append(row)
                wanted[kind][name].setdefault(data, []).extend(ours)
            for data, rows in own.items():
                _write(directory / name / kind / data / "output", rows)
    return wanted


def _name(template: str) -> str:
    return template.replace("/", "-")


def _pair(row: dict[str, Any]) -> dict[str, Any]:
    *before, last = row["messages"]
    if last["role"] != "assistant" or not last.get("weight", 1):
        return {}
    rest = {"tools": row["tools"]} if "tools" in row else {}
    return {"prompt": before, "chosen": [last], "rejected": [OTHER], **rest}


def _last(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the loss on one answer."""
    answers = [at for at, one in enumerate(row["messages"]) if one["role"] == "assistant" and one.get("weight", 1)]
    messages = [{**one, "weight": 0} if at in answers[:-1] else one for at, one in enumerate(row["messages"])]
    return {**row, "messages": messages}


def _write(output: Path, rows: list[dict[str, Any]]) -> None:
    output.mkdir(parents=True)
    Encoding().write(output)
    (output / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def fed(names: list[str], directory: Path, python: Path | None = None) -> dict[str, Any]:
    """What back ends feed, by name; in another environment by its Python."""
    if python is None:
        return {name: fed_rows.fed(name, directory) for name in names}
    command = [str(python), str(SCRIPT), ",".join(names), str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(wanted: Wanted, given: dict[str, Any]) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """Of each model how many rows are fed as they are wanted and how many are refused; and what is wrong."""
    counts: dict[str, tuple[int, int]] = {}
    wrong = []
    for name, sets in wanted.items():
        equal = refused = 0
        for data, rows in sets.items():
            one = given[name][data]
            if one["refused"]:
                refused += max(1, len(rows))
                if data == "fitting":
                    wrong.append(f"{name} {data}: {one['refused']}")
                continue
            left = list(one["fed"])
            # The longest first: a short row is also the beginning of a long one that is learned up to there.
            for row in sorted(rows, key=len, reverse=True):
                at = next((at for at, two in enumerate(left) if _is(row, *two)), None)
                if at is None:
                    wrong.append(f"{name} {data}: no row has {list(row.ids)} and this loss")
                    continue
                del left[at]
                equal += 1
            if left or not rows:
                wrong.append(f"{name} {data}: {len(left) or 'a refused row'} more than wanted")
        counts[name] = (equal, refused)
    return counts, wrong


def _is(row: Tokens, ids: list[int | None], mask: list[bool]) -> bool:
    """Whether ids and loss are those of a row, but for what is filled up behind it; an id that is not handed over (the
    last one, without loss) is any."""
    size = len(row)
    same = all(one is None or one == own for one, own in zip(ids, row.ids, strict=False))
    return len(ids) >= size and same and [*map(bool, mask[:size])] == list(row.mask) and not any(mask[size:])


def section(counts: dict[str, dict[str, tuple[int, int]]]) -> str:
    """The part of docs/templates.md about back ends: of each template how many rows are equal, by back end."""
    names = list(BACK_ENDS)
    what = "\n".join(f"* `{name}`: {text}." for name, text in BACK_ENDS.items())
    lines = [f"| template | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    lines += [
        f"| {title} | {' | '.join(_cell(counts[name][_name(title)]) for name in names)} |" for title in templates()
    ]
    rows = "\n".join(lines)
    return f"""
{HEAD}

The same rows as the back end's own loader hands them to the model (`tests/support/fed_rows.py`), in its own environment
with its own transformers: equal are ids and loss, behind its collation. A conversation that is refused above must be
refused here, too. Of preferences the rows that end with an answer that is learned, two sequences each.

{what}

A cell says how many are equal, and how many are refused where some are; none came out otherwise.

{rows}
"""


def _cell(count: tuple[int, int]) -> str:
    return f"{count[0]}" + (f" ({count[1]})" if count[1] else "")


def column(page: str, name: str) -> dict[str, str]:
    """What a page says of a back end, by template."""
    found = {}
    for line in page.partition(HEAD)[2].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and "/" in cells[0]:
            found[_name(cells[0])] = cells[1 + list(BACK_ENDS).index(name)]
    return found


def shown(counts: dict[str, tuple[int, int]]) -> dict[str, str]:
    """Counts as a column of the page has them."""
    return {name: _cell(count) for name, count in counts.items()}
