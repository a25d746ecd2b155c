"""Memory and time of a whole corpus build by the size of its input: every step, tokens and near-duplicates included.

    python benchmarks/data_scale.py CORPUS.jsonl TOKENIZER_DIRECTORY WORK GIGABYTES ...     # 0.5 5

A corpus of each size is made of CORPUS, passing over it as often as needed. In every pass, the first one too, each
fifth word of a text is replaced by one drawn from the words of the corpus: no text is a duplicate of its like in
another pass, all take part in every step, and a megabyte of the last pass costs what one of the first costs. Shown
for each: CPU seconds of all processes, their largest sum of resident sets, and the CPU time of a megabyte beside that
of the first size (1.00: growth is linear).
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import sys
from pathlib import Path

from data_tokens import lines, watched


def corpus_of(source: Path, target: Path, size: int) -> int:
    """Write at least ``size`` bytes of text; returns how many."""
    dice = random.Random(7)
    pool: list[str] = []
    for line in lines(source):
        pool += json.loads(line)["text"].split()
        if len(pool) > 1_000_000:
            break
    written = 0
    with open(target, "w", encoding="utf-8") as stream:
        while written < size:
            for line in lines(source):
                words = json.loads(line)["text"].split(" ")
                words[::5] = dice.choices(pool, k=len(words[::5]))
                text = " ".join(words)
                stream.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                written += len(text.encode())
                if written >= size:
                    break
    return written


def main() -> None:
    source, tokenizer, work = (Path(argument).resolve() for argument in sys.argv[1:4])
    work.mkdir(parents=True, exist_ok=True)
    first = 0.0
    for gigabytes in map(float, sys.argv[4:]):
        path = work / f"{gigabytes:g}.jsonl"
        size = corpus_of(source, path, int(gigabytes * 1e9)) / 1e6
        output = work / f"out-{gigabytes:g}"
        for old in (output, output.with_name(f"{output.name}.work")):
            shutil.rmtree(old, ignore_errors=True)
        found = watched(
            [
                sys.executable,
                "-m",
                "launch.cli",
                "data",
                "corpus",
                str(path),
                "--output",
                str(output),
                "--json",
                "--set",
                f"tokenizer={tokenizer}",
            ]
        )
        if found.returncode:
            raise SystemExit(found.errors)
        first = first or found.cpu / size
        each = found.cpu / size
        print(
            f"{size:7.0f} MB: {found.cpu:7.1f} s CPU, {found.seconds:7.1f} s by the clock, peak "
            f"{found.peak / 1e6:5.0f} MB; {1000 * each:.0f} ms CPU a MB, {each / first:.2f} of the first size's",
            flush=True,
        )
        path.unlink()
        shutil.rmtree(output)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    if len(sys.argv) < 5:
        print((__doc__ or "").strip())
    else:
        main()
