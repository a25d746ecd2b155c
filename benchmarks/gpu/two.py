"""What is run on a machine with two GPUs, each of them a node of its own; after ``setup.sh`` and ``inputs.py``.

``python two.py chain DIRECTORY OUT``: the pipeline ``sharded`` by one ``overnight submit``; in the middle of each stage
that trains, everything of the second node is killed, and its daemon comes back (``--lost gpu1`` where there is one).
``across``: the same of the pipeline of that name, CPT and SFT by NeMo. ``fewer``: a save of two processes, resumed by
one. ``adapters``: LoRA and DoRA by TRL, a copy of the model on each node. ``ray``: DPO by NeMo-RL on a Ray cluster,
``eight``: CPT by NeMo in FP8, ``auto``: by AutoModel; in each a node is lost, and ``auto`` is cancelled besides.
``python two.py speed DIRECTORY OUT --pairs NAME:NODES:BATCH:MICRO,...``: stages and the same recipe by hand in turn, on
both GPUs and on one: ``fsdp`` by TRL, the shapes of ``inputs.SHAPES`` by NeMo.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from inputs import SIZES
from run import HERE, WARM_UP, Out, begun, ends, lines, rate, submit, utilisation, watch


def lose(node: str) -> int:
    """Kill every process of ``node`` as a power cut does, those first that could tell Slurm; how many they were."""
    daemons, tasks, parents, children = [], [], set(), defaultdict[int, list[int]](list)
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words, named = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            children[parent].append(int(entry.name))
            if words.startswith(b"slurmd\0") and node.encode() in words.split(b"\0"):
                daemons.append(int(entry.name))
            elif f"SLURMD_NODENAME={node}\0".encode() in named and int(entry.name) != os.getpid():
                tasks.append(int(entry.name))
                parents.add(parent)
    steps = [pid for pid in parents if Path(f"/proc/{pid}/comm").read_text().startswith("slurmstepd")]
    for pid in tasks:  # also what has no variable of Slurm any more, as the processes of Ray
        tasks.extend(child for child in children[pid] if child not in tasks)
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


def gone(node: str, seconds: float = 60) -> None:
    """Wait until Slurm has seen that ``node`` is away and has nothing running there; where its daemon came back before
    that, srun would wait for the lost processes for minutes."""
    end = time.time() + seconds
    asked = ["squeue", "-h", "-w", node, "-t", "RUNNING"]
    while time.time() < end and subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip():
        time.sleep(0.5)


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
            gone(self._node)
            self._out.say(f"Slurm has seen it; {self._node} comes back")
            bring_back(self._node)


@dataclass(frozen=True)
class Pair:
    """What is timed by hand and as a stage: ``NAME:NODES:BATCH:MICRO``, with ``:saves`` behind it where the stage also
    saves (twice) and validates, after its timed steps, and ``:beside`` for ``save_beside``."""

    name: str
    nodes: int
    batch: int
    micro: int
    saves: bool = False
    beside: bool = False

    @classmethod
    def of(cls, text: str) -> Pair:
        name, nodes, batch, micro, *more = text.split(":")
        return cls(name, int(nodes), int(batch), int(micro), "saves" in more, "beside" in more)


def by_hand(root: Path, out: Out, pair: Pair, given: argparse.Namespace, number: int) -> dict[str, Any]:
    """The recipe in a job of its own."""
    found, gpu = given.out.resolve() / f"hand-{pair.name}-{pair.nodes}-{number}.json", given.model != "tiny"
    request = [f"--nodes={pair.nodes}", "--ntasks-per-node=1", f"--cpus-per-task={4 if gpu else 1}", "--time=0:10:00"]
    request += ["--gpus-per-node=1", f"--mem={given.mem}"] if gpu else ["--mem=2G"]
    is_trl = pair.name == "fsdp"
    script = HERE / ("by_hand_trl.py" if is_trl else "by_hand.py")
    words = [sys.executable if is_trl else given.nemo, str(script), str(root), pair.name, str(found)]
    words += ["--model", given.model, "--steps", str(given.steps)]
    line = " ".join([*words, "--batch", str(pair.batch), "--micro", str(pair.micro)])
    command = [
        "sbatch",
        "--parsable",
        "--wait",
        f"--output={found}.log",
        *request,
        "--wrap",
        f"srun --kill-on-bad-exit=1 {line}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    out.say(f"{pair.name} by hand on {pair.nodes}: job {done.stdout.strip()} ended with {done.returncode}")
    if done.returncode:
        out.say(Path(f"{found}.log").read_text()[-3000:])
        raise RuntimeError("the recipe by hand failed")
    return dict(json.loads(found.read_text()))


def stage(
    root: Path, out: Out, pair: Pair, given: argparse.Namespace, number: int, end: float
) -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
    """The stage; what it reported of its steps, and its seal's metrics. Its checkpoints are removed."""
    name = pair.name
    told = {"nodes": pair.nodes, "batch_size": pair.batch, "micro_batch_size": pair.micro, "steps": given.steps}
    if pair.saves:
        told |= {"steps": 2 * given.steps + 4, "save_every": given.steps, "validate_every": given.steps + 2}
    if pair.beside:
        told["options.save_beside"] = True
    sets = [f"stages.{name}.{key}={json.dumps(value)}" for key, value in told.items()]
    run = submit(out, root, name, *itertools.chain(*(("--set", text) for text in (f"seed={number}", *sets))))
    how = watch(out, run, end)
    label = f"{name}-{pair.nodes}-{number}"
    ends(out, label, run, how)
    if how != "sealed":
        return None
    entry = run.parents[1] / "store" / f"checkpoint-{out.found[label]['stages'][name]['fingerprint'][:16]}"
    for path in (entry / "saves", entry / "output"):
        shutil.rmtree(path, ignore_errors=True)
    reports = [each for each in lines(run / "stages" / name / "progress.jsonl") if "loss" in each["metrics"]]
    return reports, out.found[label]["stages"][name]["metrics"]


def stood(reports: list[dict[str, Any]], pair: Pair, steps: int) -> dict[str, float]:
    """Seconds that the training stood for each save, and for its validation; and by how much the steps between the two
    saves took longer, in all, than those before."""
    took = {after["step"]: after["time"] - before["time"] for before, after in itertools.pairwise(reports)}
    usual = statistics.median(took[step] for step in range(WARM_UP + 1, steps + 1))
    # A validation comes before the report of its step, a save behind it.
    found = {"step": usual, "save": took[steps + 1] - usual, "second_save": took[2 * steps + 1] - usual}
    found["validation"] = took[steps + 2] - usual
    found["later_steps"] = sum(took[step] - usual for step in range(steps + 3, 2 * steps + 1))
    return found


def speed(root: Path, out: Out, given: argparse.Namespace, end: float) -> bool:
    """Pairs by hand and as a stage."""
    size = SIZES[given.model]
    rows: list[dict[str, Any]] = out.found.get("pairs", [])
    # Stages of two such runs are two stages: a seed for each.
    for number, text in enumerate(given.pairs.split(","), 51 if given.swap else 1):
        if number % 50 <= len(rows) or time.time() > end - 60:
            continue
        pair = Pair.of(text)
        found = stage(root, out, pair, given, number, end) if (number % 2 == 0) != given.swap else None
        hand = None if given.alone else by_hand(root, out, pair, given, number)
        found = found or stage(root, out, pair, given, number, end)
        if found is None:
            return False
        reports, metrics = found
        length = json.loads((root / f"{pair.name}.yaml").read_text())["stages"][pair.name]["sequence_length"]
        tokens = pair.batch * length
        ended = [report["time"] for report in reports][: given.steps]
        row: dict[str, Any] = {**asdict(pair), "stage": rate(ended, tokens)}
        row["utilisation"] = utilisation(size, length, row["stage"] / pair.nodes)
        row["memory"] = {"stage": metrics.get("peak_memory_bytes")}
        row["losses"] = {"stage": [report["metrics"]["loss"] for report in reports][:3]}
        if hand is not None:
            row["by_hand"] = rate(hand["ended"], tokens)
            row["ratio"] = row["stage"] / row["by_hand"]
            row["memory"]["by_hand"] = hand.get("peak_memory_bytes")
            row["losses"]["by_hand"] = hand["losses"][:3]
        if pair.saves:
            row["stood"] = stood(reports, pair, given.steps)
        rows.append(row)
        out.note("pairs", rows)
        out.say(json.dumps(row))
    for name, nodes in sorted({(row["name"], row["nodes"]) for row in rows if "ratio" in row}):
        ratios = [row["ratio"] for row in rows if "ratio" in row and (row["name"], row["nodes"]) == (name, nodes)]
        out.say(f"{name} on {nodes}: median ratio {statistics.median(ratios):.3f} of {len(ratios)}")
    return True


def fewer(root: Path, out: Out, end: float) -> bool:
    """The pipeline ``fewer``: cancelled after its second save, it goes on with one node; whether from that save."""
    run = begun(root, "fewer") or submit(out, root, "fewer")
    while sum(event["event"] == "saved" for event in lines(run / "stages" / "fewer" / "events.jsonl")) < 2:
        time.sleep(0.2)
        if time.time() > end:
            return False
    out.type("cancel", run.name, "--workspace", str(run.parents[1]), seconds=120)
    # The same stage, which finds its saves: how many nodes train is no part of a result.
    run = submit(out, root, "fewer", "--set", "stages.fewer.nodes=1")
    how = watch(out, run, end)
    ends(out, "fewer", run, how)
    resumed = [event for event in out.found["fewer"]["stages"]["fewer"]["events"] if event["event"] == "resumed"]
    out.say(f"fewer: went on with one node from {[event['step'] for event in resumed]}")
    return how == "sealed" and bool(resumed)


def cancelled(out: Out, run: Path, stage: str, end: float) -> None:
    """Cancel a run once ``stage`` has saved twice."""
    while sum(event["event"] == "saved" for event in lines(run / "stages" / stage / "events.jsonl")) < 2:
        time.sleep(0.2)
        if time.time() > end:
            return
    out.type("cancel", run.name, "--workspace", str(run.parents[1]), seconds=120)


def main() -> int:
    """Run one part; 0 when it came to its end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("chain", "across", "fewer", "adapters", "ray", "eight", "auto", "speed"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=3600, help="stop watching after so long")
    parser.add_argument("--model", default="3b", help="speed: as given to inputs.py")
    parser.add_argument("--mem", default="60G", help="speed: of a node")
    parser.add_argument("--steps", type=int, default=10, help="speed: that are timed, with those of the warm-up")
    parser.add_argument("--pairs", default="fsdp:2:32:4:saves,fsdp:2:32:4,fsdp:1:16:4", help="speed: with commas")
    parser.add_argument("--alone", action="store_true", help="speed: stages only, nothing by hand")
    parser.add_argument("--swap", action="store_true", help="speed: another run beside one on the other GPU")
    parser.add_argument("--nemo", default="", help="speed: the Python with NeMo, for other pairs than of fsdp")
    parser.add_argument("--lost", default="gpu2", help="chain, across: the node that is lost")
    given = parser.parse_args()
    root, out = given.directory.resolve(), Out(given.out.resolve(), f"two-{given.part}")
    end = time.time() + given.seconds
    if given.part == "speed":
        return 0 if speed(root, out, given, end) else 1
    if given.part == "fewer":
        return 0 if fewer(root, out, end) else 1
    name = {"chain": "sharded"}.get(given.part, given.part)
    lost = {"chain": ["cpt", "sft", "dpo"], "across": ["cpt", "sft"], "ray": ["dpo"], "eight": ["cpt"], "auto": ["cpt"]}
    run = begun(root, name) or submit(out, root, name)
    Losses(out, run, lost.get(given.part, []), given.lost).start()
    if given.part == "auto":
        cancelled(out, run, "sft", end)
        run = submit(out, root, name)
    how = watch(out, run, end)
    ends(out, name, run, how)
    return 0 if how == "sealed" else 1


if __name__ == "__main__":
    sys.exit(main())
