"""A JSON-lines corpus of real text for the data benchmarks: the documentation of installed Debian packages.

    python benchmarks/data_corpus.py OUT.jsonl MEGABYTES [DIRECTORY ...]

Text, Markdown and HTML files and manual pages as they are, cleaned as ``data_prep`` cleans, until there are MEGABYTES
of them; directories default to /usr/share/doc and /usr/share/man. Big ``-doc`` packages (libstdc++-12-doc, erlang-doc,
openjdk-17-doc) make up the size. Says so if it had to repeat files.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data_prep.corpus import clean
from data_prep.corpus.recipe import Recipe

ENDINGS = (".txt", ".md", ".html", ".htm", ".rst", ".tex", ".1", ".2", ".3", ".5", ".7", ".8")
LONGEST = 2_000_000


def texts(directories: list[str]) -> Iterator[str]:
    """Every readable text below ``directories``, in an order that mixes the packages."""
    found = [
        Path(root) / name
        for directory in directories
        for root, _, names in os.walk(directory)
        for name in names
        if name.removesuffix(".gz").endswith(ENDINGS)
    ]
    random.Random(1).shuffle(found)
    for path in found:
        try:
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            yield content[:LONGEST].decode()
        except (OSError, EOFError, UnicodeDecodeError):
            continue


def main() -> None:
    target, wanted = Path(sys.argv[1]), int(float(sys.argv[2]) * 1e6)
    directories = sys.argv[3:] or ["/usr/share/doc", "/usr/share/man"]
    notes: Counter[str] = Counter()
    recipe = Recipe()
    size = documents = passes = 0
    with open(target, "w", encoding="utf-8") as stream:
        while size < wanted:
            passes += 1
            before = size
            for text in texts(directories):
                text = clean.normalise(text, recipe, notes)
                if text.strip():
                    line = json.dumps({"text": text if passes == 1 else f"{passes} {text}"}, ensure_ascii=False) + "\n"
                    size += len(text.encode())
                    documents += 1
                    stream.write(line)
                if size >= wanted:
                    break
            if size == before:
                raise SystemExit(f"no text below {', '.join(directories)}")
    repeated = f", REPEATED {passes} times" if passes > 1 else ""
    print(f"{target}: {size / 1e6:.0f} MB of text, {documents} documents{repeated}")


if __name__ == "__main__":
    main()
