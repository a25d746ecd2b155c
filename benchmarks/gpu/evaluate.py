"""An evaluation on one GPU and on two, each a node: examples a second, and whether both say the same.

``python evaluate.py DIRECTORY OUT [--limit N] [--nodes 1,2]``, by the Python that runs Overnight, after ``setup.sh``
and ``inputs.py --nodes 2``: perplexity of texts, log-likelihoods of answers, and greedy answers, in bf16. The rate
counts from the first report of a stage to the last, so without its start, in which the model is loaded.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

from run import Out, ends, lines, submit, watch

NAME = "measured"


def pipeline(root: Path, limit: int) -> None:
    """``DIRECTORY/measured.yaml``: the data of the chain and one evaluation."""
    chain = json.loads((root / "chain.yaml").read_text())
    tasks = {
        "perplexity": {"data": "corpus", "limit": limit},
        "answers": {"data": "pairs", "limit": limit},
        "translation": {"data": "pairs", "limit": limit, "max_new_tokens": 32},
    }
    measure = {
        "kind": "evaluate", "backend": "trl", "checkpoint": "base", "tasks": tasks, "engine": {"precision": "bf16"},
    }  # fmt: skip
    pairs = {**chain["stages"]["pairs"], "split": {"test": 0.9, "validation": 0.02}}
    corpus = {**chain["stages"]["corpus"], "split": {"group": "document", "test": 0.5, "validation": 0.02}}
    stages = {"corpus": corpus, "pairs": pairs, NAME: measure}
    (root / f"{NAME}.yaml").write_text(json.dumps({**chain, "name": NAME, "stages": stages}, indent=1))


def rate(reports: list[dict[str, Any]]) -> float:
    """Examples a second between the first report and the last."""
    first, last = reports[0], reports[-1]
    return float((last["step"] - first["step"]) / (last["time"] - first["time"]))


def measured(root: Path, out: Out, nodes: int, end: float) -> dict[str, Any] | None:
    """The evaluation on so many nodes; its result is removed, so that the next is none that is there already."""
    run = submit(out, root, NAME, "--set", f"stages.{NAME}.nodes={nodes}")
    how = watch(out, run, end)
    label = f"{NAME}-{nodes}"
    ends(out, label, run, how)
    if how != "sealed":
        return None
    fingerprint = out.found[label]["stages"][NAME]["fingerprint"]
    entry = run.parents[1] / "store" / f"evaluation-{fingerprint[:16]}"
    values = json.loads((entry / "output" / "evaluation.json").read_text())["tasks"]
    shutil.rmtree(entry)
    found = {task: {name: one["value"] for name, one in it["metrics"].items()} for task, it in values.items()}
    return {"nodes": nodes, "rate": rate(lines(run / "stages" / NAME / "progress.jsonl")), "values": found}


def main() -> int:
    """0 when all of them came to their end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--limit", type=int, default=500, help="examples of each task")
    parser.add_argument("--nodes", default="1,2,1,2", help="how often, and on how many nodes, with commas")
    parser.add_argument("--seconds", type=float, default=500)
    given = parser.parse_args()
    root, out, end = given.directory.resolve(), Out(given.out.resolve(), "evaluate"), time.time() + given.seconds
    pipeline(root, given.limit)
    rows: list[dict[str, Any]] = []
    for nodes in map(int, given.nodes.split(",")):
        row = measured(root, out, nodes, end)
        if row is None:
            return 1
        rows.append(row)
        out.note("rows", rows)
        out.say(json.dumps(row))
    best = {
        nodes: max(row["rate"] for row in rows if row["nodes"] == nodes) for nodes in {row["nodes"] for row in rows}
    }
    least = min(best)
    for nodes in sorted(best):
        share = best[nodes] / best[least] / nodes * least
        out.say(f"{nodes} nodes: {best[nodes]:.1f} examples a second, {share:.3f} of what so many would do")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
