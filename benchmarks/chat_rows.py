"""Chat rows to ids: the data stage (every check, split and card with it) against ``datasets.map`` of
``apply_chat_template``, side by side in one run, on the same cores.

    python benchmarks/chat_rows.py TOKENIZER_DIRECTORY WORK [ROWS [OTHER]]   # 100000; the tokenizer has a chat template

``datasets.map`` is given the first OTHER of the ROWS (all, if it is not said).

Rows are conversations of one to three turns, some with a system message, of words from Python's own documentation
strings. Shown for each side: rows a second by the clock, CPU seconds, the largest sum of the resident memory of all
its processes. Then the ids of every row that both have are compared.
"""

from __future__ import annotations

import builtins
import itertools
import json
import pkgutil
import random
import shutil
import signal
import sys
from pathlib import Path

from data_tokens import watched
from measure import report

_THEIRS = """
import os, sys
from datasets import load_dataset
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], local_files_only=True)
def ids(row):
    return {"input_ids": tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=False)}
found = load_dataset("json", data_files=sys.argv[2], split="train", cache_dir=sys.argv[3] + "/cache")
cores = len(os.sched_getaffinity(0))
found.map(ids, num_proc=cores, remove_columns=found.column_names).save_to_disk(sys.argv[3] + "/ids")
"""
_COMPARE = """
import json, sys
from pathlib import Path
from datasets import load_from_disk
from jobs.encoding.load import load
from jobs.encoding.rows import RowEncoder
from jobs.encoding.settings import Encoding
theirs = load_from_disk(sys.argv[1] + "/ids")["input_ids"]
encoder, seen, equal = RowEncoder(load(Path(sys.argv[3])), Encoding.of(Path(sys.argv[2]) / "train.jsonl")), 0, 0
def rows():  # those that both have
    for split in ("train", "validation", "test"):
        with open(Path(sys.argv[2]) / (split + ".jsonl")) as stream:
            yield from (row for row in map(json.loads, stream) if row["meta"]["id"] < len(theirs))
import itertools
known, rows = itertools.tee(rows())
for row, found in zip(known, encoder.encode_all(rows)):
    seen += 1
    equal += list(found["completion"].ids) == list(theirs[row["meta"]["id"]])
print(seen, equal)
"""


def words() -> list[str]:
    """The words of the documentation strings of Python's built-in names and modules."""
    texts = [str(getattr(one, "__doc__", "")) for one in vars(builtins).values()]
    for module in pkgutil.iter_modules():
        if module.name.startswith("_") or module.name in ("antigravity", "this", "idlelib"):
            continue
        spec = module.module_finder.find_spec(module.name, None)  # type: ignore[call-arg]
        if spec and spec.origin and spec.origin.endswith(".py") and "site-packages" not in spec.origin:
            texts.append(Path(spec.origin).read_text(encoding="utf-8", errors="replace")[:20_000])
    # Control tokens in texts are text for us and control tokens for them (special_tokens: escape), so there are none.
    return [word for word in " ".join(texts).split() if not {"<", "|"} & {*word}]


def write_rows(path: Path, count: int) -> None:
    """``count`` conversations, none twice."""
    dice, pool = random.Random(7), words()

    def text(low: int, high: int) -> str:
        start = dice.randrange(len(pool) - high)
        return " ".join(pool[start : start + dice.randint(low, high)])

    with open(path, "w", encoding="utf-8") as stream:
        for number in range(count):
            messages = [{"role": "system", "content": text(5, 20)}] if dice.random() < 0.2 else []
            for turn in range(dice.choice((1, 1, 1, 2, 3))):
                asked = f"{number}.{turn} {text(5, 60)}"
                messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": text(20, 200)}]
            stream.write(json.dumps({"id": number, "messages": messages}) + "\n")


def main() -> None:
    tokenizer, work = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 100_000
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    other = int(sys.argv[4]) if len(sys.argv) > 4 else count
    source, first, output = work / "rows.jsonl", work / "first.jsonl", work / "ours"
    write_rows(source, count)
    with open(source, "rb") as stream, open(first, "wb") as part:
        part.writelines(itertools.islice(stream, other))
    print(f"{count:,} rows, {source.stat().st_size / 1e6:,.0f} MB, tokenizer {tokenizer.name}", flush=True)
    ours_as = ["-m", "launch.cli", "data", "instructions", str(source), "--output", str(output), "--json"]
    sides = {
        "overnight data instructions": ([*ours_as, "--set", f"tokenizer={tokenizer}"], count),
        "datasets.map of apply_chat_template": (["-c", _THEIRS, str(tokenizer), str(first), str(work)], other),
    }
    found = {}
    for name, (arguments, rows) in sides.items():
        one = found[name] = watched([sys.executable, *arguments])
        if one.returncode:
            raise SystemExit(one.errors)
        took = f"{one.seconds:.0f} s, {one.cpu:.0f} s of CPU"
        report(f"{name}, rows a second", f"{rows / one.seconds:,.0f} ({rows:,} rows: {took})")
        report(f"{name}, memory of all processes", f"{one.peak / 1e6:,.0f} MB")
    ours, theirs = found.values()
    share = count / other
    rate = theirs.seconds * share / ours.seconds
    report("rate, ours over theirs", f"{rate:.2f}", "1.00", rate >= 1)
    report("the same by CPU", f"{theirs.cpu * share / ours.cpu:.2f}")
    report("memory, ours", f"{ours.peak / 1e6:,.0f} MB", "1,500 MB", ours.peak <= 1.5e9)
    compared = watched([sys.executable, "-c", _COMPARE, str(work), str(output), str(tokenizer)])
    seen, equal = map(int, compared.output.split()) if not compared.returncode else sys.exit(compared.errors)
    report("rows with the same ids", f"{equal:,} of {seen:,}", "all", equal == seen == other)
    shutil.rmtree(work)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    if len(sys.argv) < 3:
        print((__doc__ or "").strip())
    else:
        main()
