"""Fake sbatch, squeue, sacct, scontrol, scancel, sinfo: one program under these names, found by PATH, with its state in a directory.

The rendered scripts are really executed, in the background, by ``shim.py run JOB``. ``scenario.json`` in the state
directory says what goes wrong; each entry applies to every call until the test changes it:

- ``sbatch``: ``lost`` (accepted, "Socket timed out"), ``dropped`` (accepted, "Zero Bytes were transmitted"), ``hang``,
  ``never`` (not accepted, "Socket timed out"), ``warn``, ``banner``, ``cluster`` (``id;cluster``), or the text of a refusal
- ``forbidden``: options of which sbatch refuses each
- ``squeue``: ``down``; ``state``: what squeue says of every job of ours; ``purged``: it knows none
- ``sacct``: ``down``, ``absent``, ``lagging`` (knows nothing yet), ``requeued`` (says REQUEUED for ever)
- ``scancel``, ``sinfo``: ``down``
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults.controller import Controller, Job, Refused

STATE = Path(os.environ["FAULTS_STATE"])
TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
DROPPED = "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received"
DOWN = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
NODES = 8
KILL_WAIT = 3.0
"""Seconds from TERM to KILL."""


def scenario() -> dict[str, Any]:
    path = STATE / "scenario.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


@contextmanager
def controller() -> Iterator[Controller]:
    """The queue, locked; jobs that may start are started at the end."""
    with open(STATE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = STATE / "queue.json"
        value = json.loads(path.read_text()) if path.exists() else {"jobs": {}, "next_id": 1}
        found = Controller({key: Job(**job) for key, job in value["jobs"].items()}, value["next_id"], nodes=NODES)
        yield found
        started = [] if scenario().get("stopped") else found.schedule(time.time())
        path.write_text(
            json.dumps({"jobs": {k: asdict(job) for k, job in found.jobs.items()}, "next_id": found.next_id})
        )
    for job in started:
        (STATE / f"pid-{job.id}").unlink(missing_ok=True)  # of its run before
        _detached("run", job.id)


def _detached(*arguments: str) -> None:
    subprocess.Popen(
        [sys.executable, __file__, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def note(name: str, arguments: list[str]) -> None:
    """For tests that count calls."""
    with open(STATE / "calls", "a") as stream:
        stream.write(json.dumps([name, *arguments]) + "\n")


def run(job_id: str) -> None:
    """Execute the script of a job as slurmd does, and report its end."""
    with controller() as queue:
        job = queue.jobs[job_id]
    header = _header(Path(job.script).read_text())
    out = header.get("output", "/dev/null").replace("%j", job_id).replace("%%", "%")
    environment = {
        **os.environ, "SLURM_JOB_ID": job_id, "SLURM_JOB_NODELIST": job.node, "SLURM_JOB_NAME": job.name,
        "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS": "1",
    }  # fmt: skip
    if job.restarts:
        environment["SLURM_RESTART_COUNT"] = str(job.restarts)
    with open(out, "a") as stream:
        process = subprocess.Popen(
            ["bash", job.script],
            cwd=header.get("chdir", "/"),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
        (STATE / f"pid-{job_id}").write_text(str(process.pid))
        code = process.wait()
    with controller() as queue:
        ended = queue.ended(job_id, code if code >= 0 else 128 - code, time.time())
    if ended is not None and ended.state == "PENDING":
        time.sleep(max(0.0, ended.begin - time.time()) + 0.05)
        with controller():
            pass  # let it start again


def _header(text: str) -> dict[str, str]:
    lines = (line.split("#SBATCH --", 1)[1] for line in text.splitlines() if line.startswith("#SBATCH --"))
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def sbatch(arguments: list[str]) -> int:
    how = scenario().get("sbatch", "")
    script = Path(arguments[-1])
    if how == "never":
        return _fail(TIMED_OUT)
    if how not in ("", "lost", "dropped", "hang", "warn", "banner", "cluster"):
        return _fail(f"sbatch: error: Batch job submission failed: {how}")
    header = _header(script.read_text())
    for option in sorted(set(scenario().get("forbidden", "").split()) & header.keys()):
        return _fail(f"sbatch: error: Batch job submission failed: --{option} is not allowed here")
    given = {key: value for key, _, value in (one.lstrip("-").partition("=") for one in arguments[:-1])}
    try:
        with controller() as queue:
            job = queue.submit(
                Job(
                    "",
                    header["job-name"],
                    str(script),
                    time.time(),
                    given.get("dependency", ""),
                    "no-requeue" not in header,
                    header.get("kill-on-invalid-dep") == "yes",
                    "hold" in header,
                )
            )
    except Refused as error:
        return _fail(f"sbatch: error: Batch job submission failed: {error}")
    if how == "lost":
        return _fail(TIMED_OUT)
    if how == "dropped":
        return _fail(DROPPED)
    if how == "hang":
        time.sleep(600)
    if how == "warn":
        print("sbatch: warning: can't honor --ntasks-per-node set to 1", file=sys.stderr)
    if how == "banner":
        print("*** Maintenance on 2031-01-01, 12 nodes down ***\n")
    print(job.id + (";lab" if how == "cluster" else ""))
    if how == "banner":
        print("Have a nice day")
    return 0


def squeue(arguments: list[str]) -> int:
    told = scenario()
    if told.get("squeue") == "down":
        return _fail(DOWN)
    with controller() as queue:
        jobs = [] if told.get("squeue") == "purged" else list(queue.jobs.values())
    if "-j" in arguments:
        wanted = arguments[arguments.index("-j") + 1]
        jobs = [job for job in jobs if job.id == wanted]
        if not jobs:
            return _fail("slurm_load_jobs error: Invalid job id specified")
    form = arguments[arguments.index("-o") + 1]
    for job in jobs:
        values = {
            "%A": job.id,
            "%T": told.get("state", job.state),
            "%V": _time(job.submitted),
            "%S": _time(job.start),
            "%e": _time(job.end),
            "%L": _left(job.end),
            "%D": "1",
            "%N": job.node,
            "%P": "batch",
            "%j": job.name,
            "%E": job.dependency or "(null)",
            "%r": job.reason,
        }
        line = form
        for key, value in values.items():
            line = line.replace(key, value)
        print(line)
    return 0


def _time(value: float | None) -> str:
    return "N/A" if not value else str(int(value))


def _left(end: float | None) -> str:
    left = max(0, int((end or 0) - time.time()))
    return f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}" if end else "INVALID"


def sacct(arguments: list[str]) -> int:
    how = scenario().get("sacct", "absent")
    if how == "absent":
        return _fail("Slurm accounting storage is disabled")
    if how == "down":
        return _fail("sacct: error: Problem talking to the database: Connection refused")
    if how == "lagging":
        return 0
    with controller() as queue:
        jobs = list(queue.jobs.values())
    for job in jobs:
        state = "REQUEUED" if how == "requeued" else how if how != "up" else job.state
        row = [job.id, state, "0:0", _time(job.submitted), _time(job.start), _time(job.end), job.node, job.name]
        print("\x1f".join(row))
    return 0


def scancel(arguments: list[str]) -> int:
    if scenario().get("scancel") == "down":
        return _fail("scancel: error: Unable to contact slurm controller (connect failure)")
    for one in arguments:
        with controller() as queue:
            is_running = queue.cancel(one, time.time())
        if is_running:
            _signal(one)
    return 0


def _signal(job_id: str) -> None:
    """TERM for everything in the job's session, and KILL for what is left of it a while later."""
    path = STATE / f"pid-{job_id}"
    for _ in range(600):  # its shell is just being started
        if path.exists() and path.read_text():
            break
        time.sleep(0.1)
    leader = path.read_text()
    _kill(leader, signal.SIGTERM)
    _detached("kill", leader)


def _kill(leader: str, number: int) -> None:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "stat").read_text().rpartition(")")[2].split()[3] == leader:
                os.kill(int(entry.name), number)
        except OSError:
            continue


def sinfo(arguments: list[str]) -> int:
    if scenario().get("sinfo") == "down":
        return _fail(DOWN)
    form = arguments[arguments.index("-o") + 1]
    for number in range(1, NODES + 1):
        print(form.replace("%N", f"node{number}").replace("%T", "idle"))
    return 0


def scontrol(arguments: list[str]) -> int:
    try:
        if arguments[0] == "requeue":
            with controller() as queue:
                queue.requeue(arguments[1])
            _signal(arguments[1])
        elif arguments[0] == "update":
            given = dict(one.split("=", 1) for one in arguments[1:])
            with controller() as queue:
                if "dependency" in given:
                    queue.update_dependency(given["jobid"], given["dependency"])
                if "excnodelist" in given:
                    queue.exclude_nodes(given["jobid"], given["excnodelist"])
        elif arguments[:2] == ["show", "hostnames"]:
            print(arguments[2])
        elif arguments[:2] == ["show", "node"]:
            for name in arguments[2].split(","):
                print(f"NodeName={name} State=IDLE BootTime=1 SlurmdStartTime=1")
        elif arguments[:2] == ["show", "job"]:
            with controller() as queue:
                job = queue.jobs[arguments[2]]
            print(
                f"JobId={job.id} JobState={job.state} Reason={job.reason} Dependency=(null) Requeue=1 Restarts={job.restarts} "
                f"Partition=batch ExcNodeList={job.excluded or '(null)'} End"
            )
    except (Refused, KeyError) as error:
        return _fail(f"scontrol: error: {error}")
    return 0


def srun(arguments: list[str]) -> int:
    """One task on this machine: the last argument is the program."""
    return subprocess.run([arguments[-1]], check=False).returncode


def _fail(text: str) -> int:
    print(text, file=sys.stderr)
    return 1


def main() -> int:
    name, arguments = sys.argv[1], sys.argv[2:]
    if name == "run":
        run(arguments[0])
        return 0
    if name == "kill":
        time.sleep(KILL_WAIT)
        _kill(arguments[0], signal.SIGKILL)
        return 0
    note(name, arguments)
    commands = {
        "sbatch": sbatch,
        "squeue": squeue,
        "sacct": sacct,
        "scancel": scancel,
        "scontrol": scontrol,
        "sinfo": sinfo,
        "srun": srun,
    }
    return commands[name](arguments)


if __name__ == "__main__":
    sys.exit(main())
