"""What a probe has shown: one finding for each thing that was tried, and the entries of the profile that follow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.core import symptoms
from launch.base.text import clock, duration
from launch.config.fields import memory_bytes
from launch.config.profile_file import ProfileFile
from launch.site import choose
from launch.site.finding import Finding, Level
from launch.site.probe import run as probe
from launch.site.probe.amend import ProfileChange
from launch.site.probe.run import Probe
from launch.slurm import ask

_SLACK = 5
"""Seconds by which a warning may come late: clocks of nodes differ, and a second is cut off each reading."""

_SEEN_SECONDS = 60
"""As ``jobs.probe`` has it; that is not imported on this side."""


@dataclass(frozen=True)
class ProbeResult:
    """Findings of one probe, and what its profile should say."""

    probe: Probe
    findings: tuple[Finding, ...]
    changes: tuple[ProfileChange, ...]

    @property
    def failed(self) -> bool:
        return any(one.level is Level.FAIL for one in self.findings)


def judge(found: ProfileFile, one: Probe) -> ProbeResult:
    """Of a probe that has ended, or that was given up."""
    judge = _Judge(found, one)
    findings = list(judge.findings())
    return ProbeResult(one, tuple(findings), tuple(judge.changes))


class _Judge:
    def __init__(self, found: ProfileFile, one: Probe) -> None:
        self._found = found
        self._probe = one
        self._plan = one.plan
        self.changes: list[ProfileChange] = []

    def findings(self) -> Iterator[Finding]:
        one = self._probe
        if one.refusal:
            yield Finding(Level.FAIL, "submission", one.refusal, one.where or self._found.where("partition"))
            return
        if not one.notes.get("start"):
            yield self._never_started()
            return
        yield Finding(Level.OK, "submission", f"job {one.job} as for a stage of kind {self._plan.kind}")
        yield from self._requeue()
        yield from self._deadline()
        yield self._core()
        if len(one.nodes) < self._plan.resources.nodes:
            yield self._no_work()
        else:
            yield from self._work()
        yield from self._signal()

    def _note(self, name: str) -> str:
        """The newest note of that name; empty where there is none."""
        return self._probe.notes.get(name, [""])[-1]

    def _starts(self) -> list[list[str]]:
        return [line.split() for line in self._probe.notes.get("start", [])]

    def _never_started(self) -> Finding:
        row = self._probe.row
        if row is None:
            return Finding(Level.FAIL, "start", f"job {self._probe.job} was never seen in the queue")
        why = row.why or row.reason
        state = f"job {self._probe.job} is {row.state}" + (f": {why}" if why else "")
        hint = "; its batch shell could not write into the workspace" if row.state.is_final else "; it was cancelled"
        return Finding(Level.FAIL, "start", state + hint, self._found.where("workspace"))

    def _no_work(self) -> Finding:
        code = self._note("work").partition(" ")[0]
        ended = f"srun ended with {code}" if code else "it did not end"
        response, wanted = len(self._probe.nodes), self._plan.resources.nodes
        if cause := _cause(self._probe):
            ended += f": {cause}"
        elif code == "0" or response:
            ended += f"; what {response} of {wanted} nodes wrote can be seen here: do all share the workspace?"
        lines = _last_lines(self._probe)
        return Finding(Level.FAIL, "work", f"{ended}; its log ends with: {lines}", self._where_of_backend())

    def _where_of_backend(self) -> str:
        name = self._plan.backend
        return self._found.where("environments", name) if name in self._found.profile.environments else ""

    # -- Slurm -----------------------------------------------------------------------------------------------------

    def _requeue(self) -> Iterator[Finding]:
        if not self._plan.requeue:
            return
        where = self._found.where("continuation")
        refused = self._note("requeue").removeprefix("refused").strip()
        starts = self._starts()
        again = [start for start in starts if int(start[1]) > 0]
        if "accepted" in self._probe.notes.get("requeue", []) and again:
            seconds = int(again[0][2]) - int(starts[0][2])
            same = {start[0] for start in starts} == {self._probe.job}
            text = f"job {self._probe.job} came back under its id after {seconds} s"
            yield Finding(Level.OK if same else Level.FAIL, "requeue", text, where)
            return
        said = refused or "it was accepted, but the job did not come back"
        change = ProfileChange(("continuation",), "chain", "profile test: a job could not requeue itself")
        self.changes.append(change)
        yield Finding(Level.WARN, "requeue", f"{said}; `continuation: chain` does without", where)

    def _deadline(self) -> Iterator[Finding]:
        end, start = self._note("end"), self._starts()[-1]
        if not end.isdigit():
            yield Finding(Level.FAIL, "deadline", "squeue in the job does not say what time it has left")
            return
        seconds = int(end) - int(start[2])
        level = Level.OK if abs(seconds - 60 * self._plan.minutes) <= 60 else Level.WARN
        yield Finding(level, "deadline", f"known in the job: {duration(seconds)} after its start")

    def _signal(self) -> Iterator[Finding]:
        if self._plan.lead is None:
            return
        came, end = self._note("signal"), self._note("end")
        if not came.isdigit() or not end.isdigit():
            text = f"--signal=B:{probe.SIGNAL}@{self._plan.lead}: it did not come; stages do not need it"
            yield Finding(Level.WARN, "signal", text)
            return
        lead = int(end) - int(came)
        level = Level.OK if lead >= self._plan.lead - _SLACK else Level.WARN
        text = f"{probe.SIGNAL} came {lead} s before the end ({self._plan.lead} were asked for)"
        yield Finding(level, "signal", text)

    # -- the nodes -------------------------------------------------------------------------------------------------

    def _core(self) -> Finding:
        said = self._note("core")
        if said.startswith("{"):
            return Finding(Level.OK, "python", "that of overnight runs on the batch host")
        text = f"the one that runs overnight does not run on the batch host: {said or 'no answer'}"
        return Finding(Level.FAIL, "python", text + "; environments: {core: {venv: PATH}} names another")

    def _work(self) -> Iterator[Finding]:
        nodes, plan = self._probe.nodes, self._plan
        hosts = [str(node["host"]) for node in nodes]
        level = Level.OK if len(set(hosts)) == plan.resources.nodes else Level.FAIL
        version = ", ".join(sorted({node["python"] for node in nodes}))
        yield Finding(level, "nodes", f"{', '.join(hosts)}; Python {version} of back end {plan.backend}")
        yield self._ranks()
        yield from self._gpus()
        yield self._cpus()
        yield from self._container()
        yield from self._file_system()
        yield from self._environment()
        self._interfaces()

    def _ranks(self) -> Finding:
        world = self._plan.resources.nodes * self._plan.resources.processes_per_node
        met = [each for node in self._probe.nodes for each in node["ranks"] if each["world"] == world]
        seconds = max(float(node["meet_seconds"]) for node in self._probe.nodes)
        text = f"{len(met)} of {world} processes met at {self._probe.nodes[0]['host']}, after {seconds:.1f} s"
        return Finding(Level.OK if len(met) == world else Level.FAIL, "rendezvous", text)

    def _gpus(self) -> Iterator[Finding]:
        asked = self._plan.resources.gpus_per_node or 0
        if not asked:
            return
        where = self._found.where("gpu_request")
        devices = {node["devices"] for node in self._probe.nodes}
        shown = [gpu for node in self._probe.nodes for gpu in node["gpus"]]
        if devices == {None} and not shown:
            yield Finding(Level.WARN, "gpus", f"{asked} a node were asked for, but none was reported", where)
            return
        counts = {len(node["gpus"]) or node["devices"] for node in self._probe.nodes}
        words = ", ".join(sorted({gpu["name"] for gpu in shown})) or "no nvidia-smi to ask for their model"
        level = Level.OK if counts == {asked} else Level.FAIL
        yield Finding(level, "gpus", f"{_list(counts)} of {asked} on each node ({words})", where)
        self._gpu_memory(shown)

    def _gpu_memory(self, shown: Sequence[dict[str, Any]]) -> None:
        """What one GPU has, into the partition: the plan then refuses what cannot fit."""
        name = self._plan.resources.partition
        partition = self._found.profile.partitions.get(name or "")
        sizes = {gpu["mib"] for gpu in shown}
        if name is None or partition is None or len(sizes) != 1:
            return
        gib = math.floor(sizes.pop() / 1024)
        if partition.gpu_memory is None or memory_bytes(partition.gpu_memory) >> 30 > gib + 1:
            why = f"profile test: nvidia-smi on {self._probe.nodes[0]['host']}"
            self.changes.append(ProfileChange(("partitions", name, "gpu_memory"), f"{gib}G", why))

    def _cpus(self) -> Finding:
        asked, has = self._plan.resources.cpus, min(int(node["cpus"]) for node in self._probe.nodes)
        where = self._found.where("srun_options")
        if asked is None or has >= asked:
            return Finding(Level.OK, "cpus", f"{has} on each node" + (f", {asked} asked for" if asked else ""))
        if all(node["cpus"] == node["all_cpus"] for node in self._probe.nodes):
            return Finding(Level.OK, "cpus", f"{has}, all that the machine has ({asked} were asked for)", where)
        text = f"the work may use {has} of the {asked} that were asked for: srun_options: {{cpu_bind: none}}?"
        return Finding(Level.WARN, "cpus", text, where)

    def _container(self) -> Iterator[Finding]:
        image = self._found.profile.image_of(self._plan.backend, self._plan.resources)
        if not image:
            return
        first = next(node for node in self._probe.nodes if node["number"] == 0)
        inside = first["mounts"] != self._note("mounts")
        text = f"{self._found.profile.containers.runtime} {'entered' if inside else 'did not enter'} {image}"
        yield Finding(Level.OK if inside else Level.FAIL, "container", text, self._where_of_backend())

    def _file_system(self) -> Iterator[Finding]:
        nodes, where = self._probe.nodes, self._found.where("workspace")
        if len(nodes) > 1:
            late = [node["host"] for node in nodes if node["seen_seconds"] is None]
            slowest = max(float(node["seen_seconds"] or 0) for node in nodes)
            text = f"a file written on one node is seen on the other after {slowest:.2f} s"
            if late:
                text = f"not shared: {_list(late)} did not see what was written elsewhere in {_SEEN_SECONDS} s"
            yield Finding(Level.FAIL if late else Level.OK, "file system", text, where)
        swaps = [node["swap"] for node in nodes]
        total = {key: sum(swap[key] for swap in swaps) for key in swaps[0]}
        bad = {key: total[key] for key in ("missing", "torn", "errors") if total[key]}
        text = f"{total['reads']} reads of a file that was replaced {total['replaced']} times: "
        text += ", ".join(f"{count} {key}" for key, count in bad.items()) or "always whole"
        yield Finding(Level.FAIL if bad else Level.OK, "rename", text, where)

    def _environment(self) -> Iterator[Finding]:
        seen = {name for node in self._probe.nodes for name in node["environment"]}
        leaked = sorted(seen & {probe.SECRET, probe.LEFT_OVER})
        if leaked:
            yield Finding(Level.FAIL, "environment", f"{', '.join(leaked)} got into the job")
            return
        passed = probe.KEPT in seen
        text = "a secret of your shell and a left-over of Slurm's stayed out of the job"
        yield Finding(Level.OK, "environment", text if passed else f"{text}; the rest does not get in either")

    def _interfaces(self) -> None:
        """A fast interface that all nodes have and no entry names: NCCL would have to guess."""
        if "NCCL_SOCKET_IFNAME" in self._found.profile.env:
            return
        common = set.intersection(*(set(node["interfaces"]) for node in self._probe.nodes))
        fast = sorted(choose.fast(common))
        if fast:
            why = f"profile test: all nodes have {', '.join(fast)}"
            name = fast[0].rstrip("0123456789")
            self.changes.append(ProfileChange(("env", "NCCL_SOCKET_IFNAME"), name, why))
            self.changes.append(ProfileChange(("env", "GLOO_SOCKET_IFNAME"), fast[0], why))


def tested(verdicts: Sequence[ProbeResult], now: float) -> str:
    """One line for the profile: when, where, and what did not work."""
    parts = []
    for one in verdicts:
        hosts = ", ".join(str(node["host"]) for node in one.probe.nodes) or "no node"
        bad = [finding.what for finding in one.findings if finding.level is not Level.OK]
        parts.append(f"{one.probe.plan.executor} on {hosts}: {'not ' + ', '.join(bad) if bad else 'all works'}")
    return f"{clock(now, now=0.0)}, {'; '.join(parts)}"


def _list(values: object) -> str:
    return ", ".join(sorted(map(str, values))) if isinstance(values, set | list) else str(values)


def _cause(one: Probe) -> str:
    """The line of a probe's log that says why its nodes did not meet; empty where none does."""
    logs: list[Path] = list(probe.log_of(one))
    lines = logs[-1].read_text(encoding="utf-8", errors="replace").splitlines() if logs else []
    unreached = next((line for line in lines if " does not reach " in line), None)
    found = symptoms.search(lines)
    return ask.plain(unreached or (found.line if found else ""))[:400]


def _last_lines(one: Probe, count: int = 3) -> str:
    logs: list[Path] = list(probe.log_of(one))
    if not logs:
        return "nothing"
    lines = [line for line in logs[-1].read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    shown = " / ".join(lines[-count:])
    return ask.plain(shown)[-400:] + f" ({logs[-1]})"
