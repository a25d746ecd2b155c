"""Find nodes that caused a failure and exclude them from later starts.

Asked of Slurm on the batch host, once a start at most. Where Slurm does not answer nothing is concluded.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.core.slurm_states import JobState
from jobs.core.verdict import FailureClass

SECONDS = 20.0
"""How long a question to Slurm may take: a controller or database that is down blocks for 9 to 18 s."""

STRIKES = 2
"""Failures of a stage on a node after which the stage excludes it."""

MOST_EXCLUDED = 8
"""Nodes that one stage excludes at most."""

_BAD_STATES = ("DOWN", "FAIL", "NOT_RESPONDING", "ERROR", "POWERED_DOWN", "UNKNOWN")
_NAME = re.compile(r"[A-Za-z0-9._-]+\Z")


@dataclass(frozen=True)
class Ending:
    """What Slurm knows of a start that could not say itself how it ended."""

    failure: FailureClass
    evidence: str
    nodes: tuple[str, ...] = ()


def ask(*argv: str) -> str | None:
    """Output of a Slurm command; None where it failed or did not answer."""
    env = {**os.environ, "LC_ALL": "C.UTF-8", "SLURM_TIME_FORMAT": "%s"}
    try:
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def is_at_work(job: str) -> bool:
    """Whether Slurm has this job on nodes. Where it does not answer the job is taken to be there."""
    listed = ask("squeue", "-h", "--me", "-t", "all", "-o", "%A %T")
    if listed is None:
        return shutil.which("squeue") is not None
    states = [JobState.parse(line.split()[1]) for line in listed.splitlines() if line.split()[:1] == [job]]
    return any(state.is_running for state in states)


def ending(job: str, back: int, began: Mapping[str, float | None]) -> Ending:
    """How a start of ``job`` ended: the last that has ended for ``back`` 1, the one before it for 2. ``began``: its
    nodes, and when its work began on each (epoch second by the clock of that node; None where that is not known).

    Three sources: the accounting where there is one, the nodes themselves (a daemon that started after the work did is
    a node that went down under it), and else nothing is claimed. The clocks of two machines are never compared.
    """
    nodes = tuple(began)
    lost = tuple(_lost(began))
    names = ", ".join(lost)
    state = _accounted(job, back)
    if state is JobState.PREEMPTED:
        return Ending(FailureClass.PREEMPTED, f"sacct: job {job} {state}")
    if state in (JobState.NODE_FAIL, JobState.BOOT_FAIL):
        at_fault = lost or (tuple(nodes) if len(nodes) == 1 else ())
        return Ending(FailureClass.NODE_FAILURE, f"sacct: job {job} {state} {names}".rstrip(), at_fault)
    if lost:
        return Ending(FailureClass.NODE_FAILURE, f"{names} went down after the work had begun there", lost)
    if state is JobState.OUT_OF_MEMORY:
        return Ending(FailureClass.OUT_OF_MEMORY, f"sacct: job {job} {state}")
    said = f"sacct reports {state}" if state else "Slurm keeps no record of why"
    return Ending(FailureClass.KILLED, f"job {job} ended before it could say how; {said}")


def _accounted(job: str, back: int) -> JobState | None:
    """State of a run of a job, counted from the last one that has ended; None where the accounting does not know."""
    rows = ask("sacct", "-X", "-D", "-n", "-P", "-j", job, "-o", "State,Start,End") or ""
    ended = sorted(
        (int(start), state)
        for state, start, end in (row.split("|") for row in rows.splitlines() if row.count("|") == 2)
        if start.isdigit() and end.isdigit()
    )
    return JobState.parse(ended[-back][1]) if 0 < back <= len(ended) else None


def _lost(began: Mapping[str, float | None]) -> list[str]:
    """Those of the nodes that do not respond, or whose daemon or machine started after the work did."""
    shown = ask("scontrol", "show", "node", ",".join(began), "-o") if began else None
    found = []
    for line in (shown or "").splitlines():
        fields = dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", line))
        name, state = fields.get("NodeName", ""), fields.get("State", "")
        times = [int(fields[key]) for key in ("SlurmdStartTime", "BootTime") if fields.get(key, "").isdigit()]
        is_down = state.endswith("*") or any(bad in state for bad in _BAD_STATES)
        at = began.get(name)
        if name and (is_down or (at is not None and any(time > at for time in times))):
            found.append(name)
    return found


def expand(nodelist: str) -> tuple[str, ...]:
    """``node[1-3,07],login1`` as names; asked of Slurm where there are several brackets."""
    found: list[str] = []
    for part in re.findall(r"[^,\[]*(?:\[[^\]]*\][^,\[]*)*", nodelist):
        if part.count("[") > 1:
            return tuple((ask("scontrol", "show", "hostnames", nodelist) or "").split())
        head, _, rest = part.partition("[")
        inside, _, tail = rest.partition("]")
        for piece in inside.split(",") if inside else [""] if part else []:
            low, _, high = piece.partition("-")
            width = len(low) if low.startswith("0") else 0
            numbers = range(int(low), int(high) + 1) if high else ()
            found += [f"{head}{number:0{width}d}{tail}" for number in numbers] or [f"{head}{piece}{tail}"]
    return tuple(name for name in found if _NAME.match(name))


def to_avoid(job: str, strikes: Sequence[str], needed: int) -> list[str]:
    """Nodes that ``job`` is to exclude from now on, with those that its user excluded; empty where that is none.

    ``strikes`` has a node's name once for each failure there, oldest first. Bounded: as many nodes of the job's
    partition as it needs stay usable, and at most ``MOST_EXCLUDED`` are left out. Newest failures count first.
    """
    newest_first = list(dict.fromkeys(reversed(strikes)))
    bad = [name for name in newest_first if strikes.count(name) >= STRIKES and _NAME.match(name)][:MOST_EXCLUDED]
    if not bad:
        return []
    fields = dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", ask("scontrol", "show", "job", job, "-o") or ""))
    listed = ask("sinfo", "-h", "-N", "-p", fields.get("Partition", ""), "-o", "%N %T") if fields else None
    if listed is None:
        return []
    own = expand(fields.get("ExcNodeList", "").replace("(null)", ""))
    pairs = [line.split() for line in listed.splitlines()]
    usable = {pair[0] for pair in pairs if len(pair) == 2 and not _is_down(pair[1])} - set(own)
    chosen: list[str] = []
    for name in bad:
        if len(usable - {*chosen, name}) >= needed:
            chosen.append(name)
    return sorted({*chosen, *own}) if chosen else []


def _is_down(state: str) -> bool:
    return state.endswith("*") or state.startswith(("down", "drain", "fail", "unk", "error"))
