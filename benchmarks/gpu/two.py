"""What is run on a machine with two GPUs, each of them a node of its own; after ``setup.sh`` and ``inputs.py``.

``python two.py chain DIRECTORY OUT``: the pipeline ``sharded`` by one ``overnight submit``; in the middle of each stage
that trains, everything of the second node is killed, and its daemon comes back (``--lost gpu1`` where there is one).
``python two.py speed DIRECTORY OUT``: the stage ``fsdp`` and the same recipe by hand in turn, on both GPUs and on one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from inputs import SIZES
from run import HERE, Out, begun, ends, estimated, lines, rate, submit, utilisation, watch


def lose(node: str) -> int:
    """Kill every process of ``node`` as a power cut does, those first that could tell Slurm; how many they were."""
    daemons, tasks, parents = [], [], set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words, named = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            if words.startswith(b"slurmd\0") and node.encode() in words.split(b"\0"):
                daemons.append(int(entry.name))
            elif f"SLURMD_NODENAME={node}\0".encode() in named and int(entry.name) != os.getpid():
                tasks.append(int(entry.name))
                parents.add(int((entry / "stat").read_text().rpartition(")")[2].split()[1]))
    steps = [pid for pid in parents if Path(f"/proc/{pid}/comm").read_text().startswith("slurmstepd")]
    for pid in (victims := [*daemons, *steps, *tasks]):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return len(victims)


def bring_back(node: str) -> None:
    """Start its daemon again, in a session of its own."""
    subprocess.Popen(
        ["slurmd", "-D", "-N", node], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip


class Losses(threading.Thread):
    """Loses a node once in each stage, after its second save."""

    def __init__(self, out: Out, run: Path, stages: list[str], node: str) -> None:
        super().__init__(daemon=True)
        self._out, self._run, self._left, self._node = out, run, stages, node

    def run(self) -> None:
        while self._left:
            time.sleep(0.2)
            here = self._run / "stages" / self._left[0]
            saved = [event for event in lines(here / "events.jsonl") if event["event"] == "saved"]
            if len(saved) < 2:
                continue
            name = self._left.pop(0)
            killed = lose(self._node)
            self._out.say(
                f"{name}: after the save at step {saved[-1]['step']}, {killed} processes of {self._node} are killed"
            )
            time.sleep(3)
            bring_back(self._node)


def by_hand(root: Path, out: Out, nodes: int, given: argparse.Namespace, number: int) -> dict[str, Any]:
    """The recipe in a job of its own."""
    found, gpu = root / f"hand-{nodes}-{number}.json", given.model != "tiny"
    request = [f"--nodes={nodes}", "--ntasks-per-node=1", f"--cpus-per-task={4 if gpu else 1}", "--time=0:10:00"]
    request += ["--gpus-per-node=1", f"--mem={given.mem}"] if gpu else ["--mem=2G"]
    words = [sys.executable, str(HERE / "by_hand_trl.py"), str(root), str(found)]
    line = " ".join([*words, "--model", given.model, "--steps", str(given.steps)])
    command = ["sbatch", "--parsable", "--wait", f"--output={found}.log", *request, "--wrap", f"srun {line}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    out.say(f"by hand on {nodes}: job {done.stdout.strip()} ended with {done.returncode}")
    if done.returncode:
        out.say(Path(f"{found}.log").read_text()[-3000:])
        raise RuntimeError("the recipe by hand failed")
    return dict(json.loads(found.read_text()))


def stage(root: Path, out: Out, nodes: int, number: int, end: float) -> tuple[list[float], dict[str, Any]] | None:
    """The stage; times at which its steps ended, and its seal's metrics."""
    run = submit(out, root, "fsdp", "--set", f"seed={number}", "--set", f"stages.fsdp.nodes={nodes}")
    how = watch(out, run, end)
    name = f"fsdp-{nodes}-{number}"
    ends(out, name, run, how)
    if how != "sealed":
        return None
    reports = lines(run / "stages" / "fsdp" / "progress.jsonl")
    return [report["time"] for report in reports], out.found[name]["stages"]["fsdp"]["metrics"]


def speed(root: Path, out: Out, given: argparse.Namespace, end: float) -> bool:
    """Pairs by hand and as a stage."""
    size = SIZES[given.model]
    rows: list[dict[str, Any]] = out.found.get("pairs", [])
    out.note("estimate", estimated(out, root, "fsdp"))
    for number, nodes in enumerate(map(int, given.nodes.split(",")), 1):
        if number <= len(rows) or time.time() > end - 60:
            continue
        hand = by_hand(root, out, nodes, given, number)
        found = stage(root, out, nodes, number, end)
        if found is None:
            return False
        ended, metrics = found
        tokens = size.batch * size.length
        row = {"nodes": nodes, "by_hand": rate(hand["ended"], tokens), "stage": rate(ended, tokens)}
        row["ratio"] = row["stage"] / row["by_hand"]
        row["utilisation"] = utilisation(size, size.length, row["stage"] / nodes)
        row["memory"] = {"by_hand": hand.get("peak_memory_bytes"), "stage": metrics.get("peak_memory_bytes")}
        row["losses"] = {"by_hand": hand["losses"][:3], "stage": [metrics.get("first_loss"), metrics.get("last_loss")]}
        rows.append(row)
        out.note("pairs", rows)
        out.say(json.dumps(row))
    out.say(f"median ratio {statistics.median(row['ratio'] for row in rows):.3f}")
    return True


def main() -> int:
    """Run one part; 0 when it came to its end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("chain", "speed"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=3600, help="stop watching after so long")
    parser.add_argument("--model", default="3b", help="speed: as given to inputs.py")
    parser.add_argument("--mem", default="60G", help="speed: of a node")
    parser.add_argument("--steps", type=int, default=25, help="speed: as given to inputs.py")
    parser.add_argument("--nodes", default="2,1,2", help="speed: nodes of each pair")
    parser.add_argument("--lost", default="gpu2", help="chain: the node that is lost")
    given = parser.parse_args()
    root, out = given.directory.resolve(), Out(given.out.resolve(), f"two-{given.part}")
    end = time.time() + given.seconds
    if given.part == "speed":
        return 0 if speed(root, out, given, end) else 1
    run = begun(root, "sharded") or submit(out, root, "sharded")
    Losses(out, run, ["cpt", "sft", "dpo"], given.lost).start()
    how = watch(out, run, end)
    ends(out, "sharded", run, how)
    return 0 if how == "sealed" else 1


if __name__ == "__main__":
    sys.exit(main())
