"""Explain an sbatch or srun error: the option, the line that set it, and the entry that fixes it.

Slurm often names no option ("Requested node configuration is not available"). Then each that it may mean is left out
once with ``sbatch --test-only``, which makes no job: those without which Slurm accepts the script are the cause.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from launch.base.errors import OvernightError, RejectedByCluster
from launch.base.text import suggest
from launch.render import provenance
from launch.render.provenance import JobOption
from launch.runs.rundir import Run
from launch.slurm import refusals
from launch.slurm.ask import user_name
from launch.slurm.client import Gateway
from launch.slurm.options import OPTIONS

ASK_SECONDS = 10.0

_OF_QOS = re.compile(r"\bQOS(?:Max|Min|Grp)")
_MODEL = re.compile(r"(?:gpu:)?([A-Za-z][\w.-]*):\d+")
"""Of what a job asks for, and of what sinfo says that nodes have."""


def explain(error: RejectedByCluster, run: Run, stage: str, script: Path, gateway: Gateway) -> None:
    """Add to the error the options of ``stage`` that it is about, where that is known; ``script`` was rejected."""
    add(error, provenance.load(run.paths.emitted, stage), script, gateway)


def add(error: RejectedByCluster, known: Sequence[JobOption], script: Path, gateway: Gateway) -> None:
    """As ``explain``, with the options of the stage at hand."""
    suspects = refusals.about(error.stderr)
    of_qos = bool(suspects) and _OF_QOS.search(error.stderr) is not None
    suspects += ("qos",) if of_qos else ()
    found = [one for one in known if one.command == "sbatch" and one.option in suspects]
    if len(found) > 1:
        found = _decisive(found, script, gateway) or found
    if not found:
        return
    partition = next((str(one.value) for one in known if one.option == "partition"), None)
    error.causes = [asdict(one) for one in found]
    error.advice = "\n".join(line for one in found for line in origin(one, _there_is(one, partition, gateway)))
    if of_qos and not any(one.option == "qos" for one in known):
        error.advice += "\nthe limit is that of your default QOS; one that allows more: qos: NAME   in the profile"
    error.hint = "change that entry and submit again; what is queued already is adopted, not queued twice"


def of_command(said: str, run: Run, stage: str) -> list[str]:
    """The same for what srun printed inside a job, or sbatch before it; empty, and nothing is read, for other words."""
    command = said.partition(": ")[0]
    if command not in ("srun", "sbatch"):
        return []
    known = provenance.load(run.paths.emitted, stage)
    suspects = refusals.about(said)
    found = [one for one in known if one.command == command and one.option in suspects]
    # srun takes the resources that it is not given from its job.
    found = found or [one for one in known if one.command == "sbatch" and one.option in suspects]
    last = {one.option: one for one in found}  # of an option that is given twice the last one counts
    if command == "sbatch" and len(last) > 1:  # which of them was known only then
        return []
    return [text for one in last.values() for text in origin(one)]


def _decisive(suspects: Sequence[JobOption], script: Path, gateway: Gateway) -> list[JobOption]:
    """Those without which the script would be accepted; none where two are wrong at once, or nobody answers."""
    found = []
    try:
        text = script.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory(prefix="overnight-") as scratch:
            without = Path(scratch) / "without.sh"
            for one in suspects:
                line = rf"^#SBATCH --{re.escape(one.option)}(?:=.*)?\n"
                without.write_text(re.sub(line, "", text, flags=re.MULTILINE), encoding="utf-8")
                try:
                    gateway.test_only(without)
                except RejectedByCluster:
                    continue
                found.append(one)
    except (OSError, OvernightError):
        return []
    return found


def origin(one: JobOption, there_is: str = "") -> list[str]:
    """Where an option comes from, what the cluster has of the kind, and the entries that end it."""
    place = f"comes from {one.key}, {one.where}" if one.where else f"is built in{f' ({one.key})' if one.key else ''}"
    lines = [f"{one.text} {place}"]
    if there_is:
        lines.append(f"  this cluster has {there_is}")
    if one.change:
        lines.append(f"  to change it: {one.change}   in {one.file}")
    if one.remove:
        lines.append(f"  to leave it out: {one.remove}   in the profile")
    return lines


def _there_is(one: JobOption, partition: str | None, gateway: Gateway) -> str:
    """The values that the cluster has for the option, as a clause; empty without an answer."""
    row = OPTIONS.get(one.option)
    if row is None or row.question is None:
        return ""
    program, field, what = row.question
    if program == "sacctmgr":
        words = _answer(
            ["sacctmgr", "-nP", "show", "associations", "where", f"user={user_name()}", f"format={field}"], gateway
        )
    else:
        # Without a known partition: of all of them.
        within = ["-p", partition] if partition is not None and one.option != "partition" else []
        words = _answer(["sinfo", "-h", *within, "-o", field], gateway)
        what += f" (partition {partition})" if within else ""
    if not words:
        return ""
    near = f"; {suggest(str(one.value), words)}" if row.example == "NAME" else _other_model(str(one.value), words)
    return f"{what}: {', '.join(words)}{near if 'nearest' in near else ''}"


def _other_model(asked: str, words: Sequence[str]) -> str:
    """The name of the GPUs that are there, where a job asks for another (``H100`` for ``h100``)."""
    wanted, there = _MODEL.match(asked), sorted({found[1] for word in words if (found := _MODEL.match(word))})
    if wanted is None or wanted[1] in there:
        return ""
    near = suggest(wanted[1], there)
    return f"; {near} (gpu_request.model; capitals count)"


def _answer(command: Sequence[str], gateway: Gateway) -> list[str]:
    try:
        answer = gateway.ask(command, timeout=ASK_SECONDS)
    except OvernightError:
        return []
    if answer.exit_code != 0:
        return []
    lines = (word.strip() for line in answer.stdout.splitlines() for word in line.split(","))
    return sorted({word for word in lines if word and word != "(null)"})[:20]
