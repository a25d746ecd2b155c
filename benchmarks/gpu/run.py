"""What is run on a GPU machine, step by step; what a step found is on disk before the next begins.

``python run.py chain|more|large DIRECTORY OUT [--seconds N]``, by the Python that runs Overnight, after ``setup.sh``
and ``inputs.py``. ``chain``: one pipeline through ``overnight submit``, its time limit hit inside CPT. ``more``: what
it leaves out, the time limit inside NeMo-RL's DPO. ``large``: the shapes of the 1b model, the first of them three times
against the same recipe started by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

from inputs import SIZES, Size

HERE = Path(__file__).resolve().parent
PEAK = 989e12
"""Dense bf16 operations a second of an H100 or H200, by the vendor's datasheet."""

WARM_UP = 4
"""Steps that are not timed, by hand and in a stage."""


class Out:
    """``OUT/NAME.json``, written anew after every change, and a transcript of what was typed."""

    def __init__(self, directory: Path, name: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / f"{name}.json"
        self._transcript = directory / f"{name}.txt"
        self.logs = directory / f"{name}-logs.tar.gz"
        self.began = time.time()
        # A part that was cut off goes on where it was.
        self.found: dict[str, Any] = json.loads(self._path.read_text()) if self._path.exists() else {}

    def note(self, name: str, value: Any) -> None:
        self.found[name] = value
        self._path.write_text(json.dumps(self.found, indent=1))

    def type(self, *command: str, seconds: float = 120, show: bool = True, codes: tuple[int, ...] = (0,)) -> str:
        """Run a command of Overnight; it and its answer go into the transcript.

        Raises:
            RuntimeError: another exit code than ``codes``.
        """
        words = [sys.executable, "-m", "launch.cli", *command]
        # Not the working directory's packages, whatever lies there.
        where = HERE.parents[1]
        done = subprocess.run(words, cwd=where, capture_output=True, text=True, timeout=seconds, check=False)
        if show or done.returncode not in codes:
            shown = f"$ overnight {' '.join(command)}\n{done.stdout}{done.stderr}\n"
            with open(self._transcript, "a") as stream:
                stream.write(f"[{time.time() - self.began:6.1f} s] {shown}")
            print(shown, flush=True)
        if done.returncode not in codes:
            raise RuntimeError(f"overnight {command[0]} ended with {done.returncode}")
        return done.stdout

    def say(self, text: str) -> None:
        with open(self._transcript, "a") as stream:
            stream.write(f"[{time.time() - self.began:6.1f} s] {text}\n")
        print(text, flush=True)


def lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file; none where there is none."""
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError:
        return []


def estimated(out: Out, root: Path, name: str) -> dict[str, Any]:
    """What ``overnight plan`` expects of each stage."""
    text = out.type("plan", str(root / f"{name}.yaml"), "--cluster", str(root / "gpu.yaml"), "--json", show=False)
    return {entry["stage"]: entry for entry in json.loads(text).get("estimates", [])}


def submit(out: Out, root: Path, name: str, *more: str) -> Path:
    """Directory of the new run."""
    given = (str(root / f"{name}.yaml"), "--cluster", str(root / "gpu.yaml"), *more)
    out.type("fetch", *given, seconds=300)
    text = out.type("submit", *given)
    found = re.search(r"^run (\S+) in (\S+)", text, re.MULTILINE)
    assert found is not None, text
    return Path(found[2])


def watch(out: Out, run: Path, end: float, raise_limit: str | None = None) -> str:
    """Follow a run until all is sealed (``sealed``), something failed (``failed``) or ``end`` (``time``).

    ``raise_limit``: a stage whose time limit is raised once it has been requeued, so that it is cut once only.
    """
    told: dict[str, str] = {}
    raised = False
    workspace = str(run.parents[1])
    while True:
        text = out.type("status", run.name, "--workspace", workspace, "--json", show=False, codes=(0, 1))
        status = json.loads(text)
        for stage in status["stages"]:
            if told.get(stage["stage"]) != stage["state"]:
                told[stage["stage"]] = stage["state"]
                out.say(f"{stage['stage']}: {stage['state']}, job {stage['job']}: {stage['text']}")
            events = lines(run / "stages" / stage["stage"] / "events.jsonl") if stage["stage"] == raise_limit else []
            if not raised and any(event["restart"] > 0 for event in events):
                command = ["scontrol", "update", f"JobId={stage['job']}", "TimeLimit=10"]
                subprocess.run(command, timeout=20, check=False)
                out.say(" ".join(command))
                raised = True
        states = set(told.values())
        if states == {"sealed"}:
            return "sealed"
        if states & {"failed", "blocked"}:
            return "failed"
        if time.time() > end:
            return "time"
        time.sleep(2)


def sealed(run: Path) -> dict[str, Any]:
    """Stage -> job, seal and what was measured, for everything of the run that is sealed."""
    workspace = run.parents[1]
    plan = json.loads((run / "plan.json").read_text())
    found: dict[str, Any] = {}
    for stage in plan["stages"]:
        entry = workspace / "store" / f"{stage['produces_kind']}-{stage['fingerprint'][:16]}"
        here = run / "stages" / stage["name"]
        value: dict[str, Any] = {"kind": stage["kind"], "backend": stage["backend"], "settings": stage["settings"]}
        if (entry / "seal.json").exists():
            seal = json.loads((entry / "seal.json").read_text())
            value |= {key: seal[key] for key in ("job", "restart", "step", "format", "metrics", "fingerprint")}
            value |= {"files": len(seal["files"]), "bytes": sum(file["size"] for file in seal["files"])}
        value["events"] = lines(here / "events.jsonl")
        value["verdicts"] = [json.loads(path.read_text()) for path in sorted(here.glob("verdict-*.json"))]
        reports = lines(here / "progress.jsonl")
        value["steps"] = [[report["step"], report["restart"], round(report["time"], 3)] for report in reports]
        value["losses"] = [report["metrics"]["loss"] for report in reports if "loss" in report["metrics"]]
        found[stage["name"]] = value
    return found


def keep_logs(out: Out, run: Path) -> None:
    """The logs, configurations and scripts of a run."""
    with tarfile.open(out.logs, "w:gz") as archive:
        for path in sorted(run.rglob("*")):
            if path.is_file() and path.stat().st_size < 4_000_000 and "code" not in path.parts:
                archive.add(path, str(path.relative_to(run.parent)))


def ends(out: Out, name: str, run: Path, how: str) -> None:
    """Note how a run ended, with its logs where it did not end well."""
    out.note(name, {"run": run.name, "ended": how, "seconds": time.time() - out.began, "stages": sealed(run)})
    workspace = str(run.parents[1])
    try:
        out.type("status", run.name, "--workspace", workspace, codes=(0, 1))
        if how != "sealed":
            out.type("why", run.name, "--workspace", workspace, codes=(0, 1))
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        out.say(str(error))
    keep_logs(out, run)


def begun(root: Path, name: str) -> Path | None:
    """A run of this pipeline that is there: cut off by a limit of the machine, it goes on where it was."""
    for plan in sorted((root / "workspace" / "runs").glob("*/plan.json")):
        if json.loads(plan.read_text())["pipeline"] == name:
            return plan.parent
    return None


def chain(root: Path, out: Out, end: float, name: str, limited: str) -> bool:
    """The pipeline ``name``, in which ``limited`` is cut once by its time limit; whether all is sealed."""
    run = begun(root, name) or submit(out, root, name)
    how = watch(out, run, end, raise_limit=limited)
    try:
        out.note("estimates", estimated(out, root, name))
    except RuntimeError as error:
        out.say(str(error))
    ends(out, name, run, how)
    return how == "sealed"


def by_hand(root: Path, out: Out, name: str, given: argparse.Namespace, end: float) -> Any:
    """The recipe in a job of its own."""
    where, gpu = root / name, given.model != "tiny"
    where.mkdir(exist_ok=True)
    script = where / "job.sh"
    command = [given.nemo, str(HERE / "by_hand.py"), str(root), given.paired, str(where / "found.json")]
    request = ["#SBATCH --gpus-per-node=1", "#SBATCH --mem=40G"] if gpu else ["#SBATCH --mem=2G"]
    script.write_text(
        "\n".join(
            [
                "#!/bin/bash",
                f"#SBATCH --job-name={name}",
                f"#SBATCH --output={where}/log",
                f"#SBATCH --cpus-per-task={4 if gpu else 1}",
                *request,
                f"srun {' '.join(command)} --model {given.model} --steps {given.steps}",
                "",
            ]
        )
    )
    done = subprocess.run(
        ["sbatch", "--parsable", "--wait", str(script)],
        capture_output=True,
        text=True,
        timeout=max(30.0, end - time.time()),
        check=False,
    )
    out.say(f"by hand: job {done.stdout.strip()} ended with {done.returncode}")
    if done.returncode:
        out.say((where / "log").read_text()[-3000:])
        raise RuntimeError("the recipe by hand failed")
    return json.loads((where / "found.json").read_text())


def utilisation(size: Size, length: int, tokens_per_second: float) -> float:
    """Model FLOPs utilisation of one GPU: 6 operations a parameter and token, and those of attention, backward
    included; ``length`` of a sequence."""
    head = size.hidden // size.heads
    layer = size.hidden * (2 * size.hidden + 2 * size.groups * head + 3 * size.ffn)
    weights = size.layers * layer + size.vocabulary * size.hidden
    attention = 6 * size.layers * size.hidden * length  # causal: half of 12
    return (6 * weights + attention) * tokens_per_second / PEAK


def rate(ended: list[float], tokens: int) -> float:
    """Tokens a second of all steps after the warm-up."""
    return tokens * (len(ended) - 1 - WARM_UP) / (ended[-1] - ended[WARM_UP])


def stage(root: Path, out: Out, end: float, name: str, number: int = 0) -> list[float] | None:
    """One shape as a stage of Overnight; the times at which its steps ended, or None where it did not end well."""
    given = ("--set", f"seed={number}") if number else ()
    run = (None if number else begun(root, name)) or submit(out, root, name, *given)
    how = watch(out, run, end)
    label = f"{name}-{number}" if number else name
    out.note(f"estimate-{label}", estimated(out, root, name))
    ends(out, label, run, how)
    if how != "sealed":
        return None
    return [report["time"] for report in lines(run / "stages" / name / "progress.jsonl")]


def large(root: Path, out: Out, end: float, given: argparse.Namespace) -> bool:
    """The shapes, and pairs of the first shape by hand and as a stage; what takes part in a pair alternates."""
    paired = given.paired
    settings = json.loads((root / f"{paired}.yaml").read_text())["stages"][paired]
    length = settings["sequence_length"]
    tokens = settings["batch_size"] * length
    rows: list[dict[str, float]] = out.found.get("throughput", {}).get("tokens_per_second", [])
    order = [*range(1, given.pairs + 1), *filter(None, given.shapes.split(","))]
    for number in order:
        if out.found.get(str(number), {}).get("ended") == "sealed" or (isinstance(number, int) and number <= len(rows)):
            continue
        if isinstance(number, str):
            if stage(root, out, end, number) is None:
                return False
            continue
        hand = by_hand(root, out, f"hand-{number}", given, end)
        ended = stage(root, out, end, paired, number)
        if ended is None:
            return False
        row = {"by_hand": rate(hand["ended"], tokens), "stage": rate(ended, tokens)}
        row["ratio"] = row["stage"] / row["by_hand"]
        row["utilisation"] = utilisation(SIZES[given.model], length, row["stage"])
        rows.append(row)
        median = statistics.median(entry["ratio"] for entry in rows)
        out.note("throughput", {"tokens_per_second": rows, "median_ratio": median, "last_by_hand": hand})
        out.say(json.dumps(row))
    return True


def main() -> int:
    """Run one part; 0 when it came to its end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("chain", "more", "large"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=3600, help="stop watching after so long")
    parser.add_argument("--model", default="1b", help="large: as given to inputs.py")
    parser.add_argument("--nemo", default="", help="large: the Python with NeMo")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--paired", default="selective", help="large: the shape that is timed by hand, too")
    parser.add_argument("--shapes", default="full,kept,lora", help="large: after the pairs, with commas between them")
    given = parser.parse_args()
    root, out = given.directory.resolve(), Out(given.out.resolve(), given.part)
    end = time.time() + given.seconds
    limited = {"chain": "cpt", "more": "rl-dpo"}
    if given.part in limited:
        return 0 if chain(root, out, end, given.part, limited[given.part]) else 1
    return 0 if large(root, out, end, given) else 1


if __name__ == "__main__":
    sys.exit(main())
