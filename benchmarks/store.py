"""Plan and submission in a workspace whose store holds 100,000 sealed trainings, over the same with an empty store.

Each side is a fresh process; both are measured in turn. The profile says which GPU a partition has, so that the plan
looks for trainings of the same shape, and a quota. Slurm's commands are scripts that answer at once: what is measured
is ours. The first command after the entries were made reads each seal once, and is shown by itself.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import toychain
from measure import OVERNIGHT, Cost, Spread, alternate, child, report

from jobs.core import hashing, seal, speed
from jobs.core.paths import Workspace

ENTRIES = int(os.environ.get("BENCHMARK_ENTRIES", "100000"))
RATIO = 1.2
MEMORY = 200
"""MB of a process at most."""

PROFILE = """\
name: site
executor: slurm
partition: gpu
lead: "0:20"
quota: 100T
executors: {default: submitit, training: submitit}
resources: {default: {nodes: 1, gpus_per_node: 1, cpus: 2, time: "0:30:00"}}
partitions: {gpu: {gpu_model: A100, gpu_memory: 80G}}
"""

PEAK = """
import resource, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
"""

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256,
    "tie_word_embeddings": True, "torch_dtype": "bfloat16", "head_dim": 16, "rms_norm_eps": 1e-5,
}  # fmt: skip


def fill(workspace: Workspace) -> None:
    """Seals as trainings leave them; the outputs, which nobody opens, are left out."""
    found = seal.Seal(
        seal.SealKind.CHECKPOINT,
        "hf",
        "f" * 64,
        tuple(hashing.FileDigest(f"model-{number}.safetensors", 1_000_000, "0" * 64) for number in range(8)),
        metrics={speed.SHAPE: "batch 64 by 8", speed.GPU: "NVIDIA A100", speed.SECONDS: 1.5},
    )
    first = workspace.entry("checkpoint", f"{0:016x}")
    first.root.mkdir(parents=True)
    seal.write(first.seal, found)
    text = first.seal.read_bytes()
    for number in range(1, ENTRIES):
        entry = workspace.entry("checkpoint", f"{number:016x}")
        entry.root.mkdir()
        entry.seal.write_bytes(text)


def commands(directory: Path) -> Path:
    """A directory of Slurm's commands that answer at once."""
    directory.mkdir()
    for name, text in {"sbatch": "echo $$", "squeue": ":", "srun": ":", "scancel": ":"}.items():
        (directory / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (directory / name).chmod(0o755)
    return directory


def main() -> None:
    with toychain.scratch() as directory:
        pipeline = toychain.make(directory / "toy")
        (directory / "toy" / "base" / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
        profile = directory / "site.yaml"
        profile.write_text(PROFILE, encoding="utf-8")
        environment = {
            **os.environ,
            "PATH": f"{commands(directory / 'bin')}{os.pathsep}{os.environ['PATH']}",
            "XDG_STATE_HOME": str(directory / "state"),
        }
        peaks: dict[str, list[int]] = {}

        def overnight(verb: str, workspace: Path, *more: str) -> Cost:
            of_both = ["--cluster", profile, "--workspace", workspace, *more]
            program = [sys.executable, "-c", PEAK, OVERNIGHT[0]] if len(OVERNIGHT) == 1 else OVERNIGHT
            cost = child([*program, verb, pipeline, *of_both], environment=environment)
            said = [line for line in cost.output.splitlines() if line.startswith("peak ")]
            peaks.setdefault(workspace.name, []).extend(int(line.split()[1]) for line in said)
            return cost

        sides = {"empty store": directory / "empty", f"{ENTRIES:,} entries": directory / "full"}
        for workspace in sides.values():
            overnight("fetch", workspace)
        fill(Workspace(directory / "full"))
        first = overnight("plan", directory / "full")
        overnight("submit", directory / "full", "--json")
        overnight("plan", directory / "empty")
        overnight("submit", directory / "empty", "--json")
        found = alternate(
            {
                f"{verb}, {name}": (lambda verb=verb, workspace=workspace: overnight(verb, workspace))
                for verb in ("plan", "submit")
                for name, workspace in sides.items()
            }
        )
        print("chain of 8 stages, seconds: median (lowest to highest)")
        report("the first plan, which reads each seal, CPU", f"{first.cpu:.3f}")
        for measured in ("cpu", "wall"):
            spreads = {name: Spread.of([getattr(cost, measured) for cost in costs]) for name, costs in found.items()}
            for name, spread in spreads.items():
                report(f"{name}, {measured}", spread)
            empty, full = (sum(spreads[f"{verb}, {name}"].median for verb in ("plan", "submit")) for name in sides)
            report(
                f"plan and submit, full over empty, {measured}",
                f"{full / empty:.2f}",
                f"{RATIO}",
                full <= RATIO * empty,
            )
        largest = max(peaks["full"])
        report("largest memory of a process", f"{largest} MB", f"{MEMORY} MB", largest <= MEMORY)


if __name__ == "__main__":
    main()
