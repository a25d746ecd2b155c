"""What somebody types who takes ``pipelines/nvidia.yaml`` to a DGX cluster: ``python -m tests.support.nvidia_example`` writes
docs/transcripts/dgx-nvidia.txt anew.

Everything is real output of this machine, which has neither Slurm nor a container engine for it; only names of its
directories are replaced. The base model is gated, so a directory with the numbers of its architecture stands in for it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from tests.support import commands
from tests.support.base_model import complete
from tests.support.llamas import LLAMA_1B

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = ROOT / "pipelines" / "nvidia.yaml"
TRANSCRIPT = ROOT / "docs" / "transcripts" / "dgx-nvidia.txt"

PROFILE = """\
extends: dgx-pyxis
name: my-dgx
account: research
workspace: {workspace}
environments:
  nemo: {{image: "nvcr.io#nvidia/nemo:TAG"}}
  nemo_rl: {{image: "nvcr.io#nvidia/nemo-rl:TAG", python: /opt/nemo_rl_venv/bin/python}}
resources:
  convert: {{gpus_per_node: 8}}  # a node is given out as a whole here
"""

INSERTED = {"base-nemo": "nemo", "sft-hf": "nemo", "dpo-hf": "nemo_rl"}
"""Conversions that stand between the stages, and who makes them."""


def overnight(*arguments: str, cwd: Path, check: bool = True) -> str:
    """What a command prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = commands.overnight(*arguments, cwd=cwd, environment=environment, timeout=300)
    if check and done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def place(directory: Path) -> Path:
    """The pipeline, the profile and a stand-in for the model in ``directory``; the profile's file."""
    (directory / "llama").mkdir()
    (directory / "llama" / "config.json").write_text(json.dumps({**LLAMA_1B, "architectures": ["LlamaForCausalLM"]}))
    complete(directory / "llama")
    (directory / "nvidia.yaml").write_bytes(PIPELINE.read_bytes())
    profile = directory / "my-dgx.yaml"
    profile.write_text(PROFILE.format(workspace=directory / "overnight"))
    return profile


def transcript(directory: Path) -> str:
    """The commands, and what they print."""
    profile = place(directory)
    lines = [
        "# The chain of pipelines/nvidia.yaml on a DGX cluster with pyxis, from its login node, which needs neither NeMo nor a",
        "# container engine. ./llama holds the config.json of Llama 3.2 1B: what the estimates are made from.",
        "",
        "$ cat my-dgx.yaml",
        *profile.read_text().splitlines(),
        "",
    ]
    common = ("nvidia.yaml", "--cluster", "my-dgx.yaml", "--set", "model.base=./llama")
    for command, pick in (("fetch", None), ("plan", None), ("plan --scripts", "cpt"), ("plan --scripts", "dpo")):
        words = command.split()
        output = overnight(words[0], *common, *words[1:], cwd=directory)
        shell = f"$ overnight {words[0]} {' '.join(common)} {' '.join(words[1:])}".rstrip()
        if pick is not None:
            begin, end = f"======== {pick}: job.sh ========", f"======== {pick}: host.sh ========"
            output = begin + output.partition(begin)[2].partition(end)[0] + end
            shell += f" | sed -n '/= {pick}: job.sh/,/= {pick}: host.sh/p'"
        lines += [shell, *output.strip("\n").splitlines(), ""]
    text = "\n".join(line.rstrip() for line in lines)
    for real, shown in (
        (str(directory / "overnight"), "/lustre/me/overnight"),
        (str(directory), "/home/me"),
        (sys.executable, "/home/me/venv/bin/python"),
        (str(ROOT), "/home/me/overnight-source"),
    ):
        text = text.replace(real, shown)
    return text


def main() -> None:
    """Write the transcript."""
    with tempfile.TemporaryDirectory(prefix="overnight-") as scratch:
        TRANSCRIPT.write_text(transcript(Path(scratch)))


if __name__ == "__main__":
    main()
