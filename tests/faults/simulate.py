"""Thousands of chains on a simulated site: ``python -m tests.faults.simulate --chains 10000``; one again: ``--seed N``.

What is under test is real: the submitter, the ledger, cancel, status, attempts, claims, seals, prologue and finish, on real
files. Simulated are Slurm, the trainers and the clock. A seed decides the chain, the faults, and who runs when; every few
system calls of a process another may run, or it is killed. After the faults ``resume`` is called until all is sealed, and
then the invariants are checked: every stage sealed once, never two writers at a time, no step lost beyond the last save, no
job left in the queue, every job announced in a journal, and a further ``resume`` changes nothing.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import gc
import io
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from multiprocessing import Pool
from pathlib import Path, PurePath
from typing import Any
from unittest import mock

from jobs.core import attempts, claim, files, hashing, seal
from jobs.core import spec as specs
from jobs.core.attempts import Attempt
from jobs.core.budget import RETRIES
from jobs.core.paths import StorePaths, Workspace
from jobs.core.spec import StageSpec
from jobs.lifecycle import nodes, steps
from jobs.lifecycle.start import Start
from launch.base.errors import ClusterUnreachable, InputError, RejectedByCluster
from launch.config.profile import Profile
from launch.config.profile_file import read_profile
from launch.plan.model import Plan, PlannedStage
from launch.render import scripts
from launch.runs import attempt_state
from launch.runs.journal import Event
from launch.runs.rundir import LOCK_STALE_SECONDS, Run
from launch.status import assess
from launch.status.cluster import Queue
from launch.status.model import State
from launch.submit import cancel, submitter
from tests.faults.controller import edges
from tests.faults.site import Carrier, Gateway, Site, record
from tests.faults.world import EPOCH, World
from tests.support.made_runs import stage

PATIENCE = 8
"""Calls of resume, after the last fault, in which a chain must be done."""

MOST_IDLE_STARTS = 10
"""Starts of one attempt at the same step: more is a loop, unless its failures have larger budgets together."""

ENDLESS = 7200.0
"""Virtual seconds after which a command is taken to run for ever."""

PROGRESS_SECONDS = 10.0

HORIZON = 900.0
"""Virtual seconds in which faults strike."""


@dataclass
class Outcome:
    """Of one chain."""

    seed: int
    violations: list[str]
    injected: Counter[str] = field(default_factory=Counter)
    story: str = ""


@cache
def _profile(continuation: str, kill_on_invalid_dep: bool) -> Profile:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "site.yaml"
        lines = f"continuation: {continuation}\nkill_on_invalid_dep: {str(kill_on_invalid_dep).lower()}\n"
        path.write_text(f"executor: slurm\npartition: batch\nlinks: 3\n{lines}")
        return read_profile(path).profile


class _OneByOne:
    """In place of a pool of threads: a few bytes are digested sooner than a thread has started."""

    def __init__(self, max_workers: int) -> None:
        pass

    def __enter__(self) -> _OneByOne:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def map(self, function: Callable[..., Any], *values: Iterable[Any]) -> Iterator[Any]:
        return iter([function(*one) for one in zip(*values, strict=False)])


class Simulation:
    """One chain of two to four stages, perhaps shared by two runs."""

    def __init__(self, seed: int, root: Path) -> None:
        self.seed = seed
        self.world = World(seed)
        self.workspace = Workspace(root / "workspace")
        self.site = Site(self.world, self.workspace.root)
        self.gateway = Gateway(self.site)
        self.dice = self.world.dice
        self._locks: dict[str, tuple[int, str, float]] = {}
        continuation = self.dice.choice(("requeue", "requeue", "chain"))
        self.profile = _profile(continuation, self.dice.random() < 0.5)
        names = ("one", "two", "three", "four")[: self.dice.randint(2, 4)]
        planned: list[PlannedStage] = []
        for number, name in enumerate(names):
            above = self.dice.sample(names[:number], k=min(number, self.dice.choice((1, 1, 2))))
            whole = self.dice.random() < 0.3  # a data stage: no saves
            planned.append(
                stage(
                    name,
                    *sorted(above),
                    resumable=not whole,
                    steps=self.dice.randint(2, 9),
                    continuation="requeue" if whole and continuation == "chain" else continuation,
                )
            )
        self.plan = Plan("simulated", tuple(planned), (), sys.executable)
        self.runs: list[Run] = []
        self.site.on_ending = self._resume

    def _make_run(self, name: str) -> Run:
        run = Run(self.workspace, name)
        run.paths.stages.mkdir(parents=True)
        self.workspace.store.mkdir(exist_ok=True)
        run.journal.write(Event.CREATED, run=name)
        return run

    def store(self, planned: PlannedStage) -> StorePaths:
        return planned.store(self.workspace)

    # Processes of the user

    @contextmanager
    def _locked(self, run: Run) -> Iterator[None]:
        """As ``rundir.locked``, whose holder shows signs of life: here one of another host is taken over after so long that
        it has none."""
        actor = self.world.current
        assert actor is not None
        self.world.point()
        held = self._locks.get(run.id)
        if held is not None:
            pid, host, since = held
            dead = all(other.pid != pid for other in self.world.actors)
            if not (dead if host == actor.host else self.world.now - since > LOCK_STALE_SECONDS):
                raise InputError("another overnight is working on it")
        mine = self._locks[run.id] = (actor.pid, actor.host, self.world.now)
        yield
        if self._locks.get(run.id) == mine:
            del self._locks[run.id]

    def _advance(self, run: Run) -> None:
        with self._locked(run):
            try:
                submitter.Submitter(run, self.plan, self.profile, self.gateway).advance()  # type: ignore[arg-type]
            except (RejectedByCluster, ClusterUnreachable):
                if self._locks.get(run.id, (0,))[0] == getattr(self.world.current, "pid", -1):
                    del self._locks[run.id]

    def _cancel(self, run: Run) -> None:
        names = {one.name for one in self.plan.stages}
        chosen = names if self.dice.random() < 0.5 else self.plan.below({self.dice.choice(sorted(names))})
        with self._locked(run), contextlib.suppress(RejectedByCluster, ClusterUnreachable):
            cancel.on_slurm(run, self.plan, self.gateway, chosen)  # type: ignore[arg-type]

    def _look(self, run: Run) -> None:
        queue = Queue.ask(self.gateway)  # type: ignore[arg-type]
        said = assess.look(run, self.plan, queue)
        for found in said.stages:
            if found.state is State.SEALED and not self.store(self.plan.stage(found.stage)).seal.exists():
                self.site.violations.append(f"status says that {found.stage} is sealed")
            if queue.unreachable and found.state in (State.LOST, State.CANCELLED) and found.job in self.site.processes:
                self.site.violations.append(f"status calls {found.stage} {found.state} while nobody answers")

    def _process(self, work: Callable[[Run], None], run: Run, host: str, kill_after: float | None = None) -> None:
        def guarded() -> None:
            with contextlib.suppress(InputError):
                work(run)

        actor = self.world.spawn(work.__name__, host, guarded)

        def note() -> None:
            if actor.error is not None:
                self.site.violations.append(f"{work.__name__} broke: {actor.error!r}")

        def give_up() -> None:
            if not actor.is_done:
                self.site.violations.append(f"{work.__name__} has not ended after {ENDLESS:.0f} s")
                self.world.kill(actor)

        actor.on_end = note
        self.world.after(ENDLESS, give_up)
        if kill_after is not None:
            self.world.after(kill_after, lambda: None if actor.is_done else self.world.kill(actor))

    # Faults

    def _some_job(self, alive: bool = True) -> str | None:
        found = [job.id for job in self.site.controller.jobs.values() if not job.is_final or not alive]
        return self.dice.choice(found) if found else None

    def _resume(self) -> None:
        mortal = self.dice.random() < 0.4
        life = self.dice.choice((self.dice.uniform(0, 0.3), self.dice.uniform(0, 300))) if mortal else None
        self._process(self._advance, self.dice.choice(self.runs), self.dice.choice(("login1", "login2")), life)

    def _two_resumes(self) -> None:
        run = self.dice.choice(self.runs)
        for host in ("login1", self.dice.choice(("login1", "login2"))):
            self._process(self._advance, run, host)

    def _cancel_run(self) -> None:
        self._process(self._cancel, self.dice.choice(self.runs), "login1")

    def _node_fails(self) -> None:
        if self.site.processes:
            job = self.dice.choice(sorted(self.site.processes))
            self.site.power_cut(job, is_only_presumed=self.dice.random() < 0.3)

    def _preempted(self) -> None:
        if self.site.processes:
            self.site.preempt(self.dice.choice(sorted(self.site.processes)))

    def _storm(self) -> None:
        """Of one job after the other, sooner than a trainer saves."""
        for number in range(30):
            self.world.after(15.0 * number, lambda: self._preempted() if self.site.chaos else None)

    def _scancel(self) -> None:
        job = self._some_job()
        if job:
            self._cancel_job(job)

    def _cancel_job(self, job: str) -> None:
        self.site.terminate(job, lambda one: self.site.controller.cancel(one, self.world.now))

    def _second_copy(self) -> None:
        job = self._some_job(alive=False)
        if job:
            self.site.copy(self.site.controller.jobs[job])

    def _one_of_two_copies_cancelled(self) -> None:
        """Which releases the link behind it, while the other is at work."""
        jobs = [job for job in self.site.controller.jobs.values() if not job.is_final]
        names = Counter(job.name for job in jobs)
        twice = [job.id for job in jobs if names[job.name] > 1]
        if twice:
            self._cancel_job(self.dice.choice(twice))

    def _copy_below_a_failure(self) -> None:
        """A job that waits has been accepted twice, and what it waits for is cancelled."""
        jobs = self.site.controller.jobs
        waiting = [job for job in jobs.values() if job.state == "PENDING" and edges(job.dependency)]
        if waiting:
            chosen = self.dice.choice(waiting)
            self.site.copy(chosen)
            self._cancel_job(self.dice.choice(edges(chosen.dependency))[1])

    def _waiting_link_cancelled(self) -> None:
        """Somebody cancels a link of a chain of jobs that waits for those before it."""
        jobs = self.site.controller.jobs.values()
        waiting = [job.id for job in jobs if job.state == "PENDING" and "afterany" in job.dependency]
        if waiting:
            self._cancel_job(self.dice.choice(waiting))

    def _controller_killed(self) -> None:
        """What was submitted in its last seconds is gone; it does not answer for a while."""
        for job in list(self.site.controller.jobs.values()):
            if self.world.now - job.submitted < 5.0:
                self.site.controller.lose(job.id)
        self.site.silent_until = self.world.now + self.dice.uniform(5, 60)

    def _bad_node(self) -> None:
        self.site.bad_nodes.add(self.dice.choice(self.site.controller.node_names))

    def _files_away(self) -> None:
        """No job can read or write for a while: a server fails over."""
        self.site.files_away_until = self.world.now + self.dice.choice((5.0, 40.0, 300.0))

    def _node_without_files(self) -> None:
        self.site.without_files.add(self.dice.choice(self.site.controller.node_names))

    def _silence(self) -> None:
        self.site.silent_until = self.world.now + self.dice.uniform(5, 400)

    def _purge(self) -> None:
        self.site.controller.purge(lambda job: self.world.now - (job.end or 0.0) > 60.0)

    def _ids_used_again(self) -> None:
        alive = {int(job.id) for job in self.site.controller.jobs.values() if not job.is_final}
        free = [number for number in range(1, self.site.controller.next_id) if number not in alive]
        # It takes millions of submissions: not while one of ours is on its way.
        if free and not self.site.submissions and not any(number > free[0] for number in alive):
            self.site.controller.next_id = free[0]

    def faults(self) -> dict[str, Callable[[], None]]:
        """By name."""
        return {
            "resume": self._resume,
            "two resumes": self._two_resumes,
            "cancel": self._cancel_run,
            "node failure": self._node_fails,
            "preemption": self._preempted,
            "preemption storm": self._storm,
            "scancel": self._scancel,
            "copy below a failure": self._copy_below_a_failure,
            "waiting link cancelled": self._waiting_link_cancelled,
            "second copy": self._second_copy,
            "one of two copies cancelled": self._one_of_two_copies_cancelled,
            "controller killed": self._controller_killed,
            "unreachable": self._silence,
            "bad node": self._bad_node,
            "file system away": self._files_away,
            "one node without files": self._node_without_files,
            "purge": self._purge,
            "ids used again": self._ids_used_again,
        }

    # The run

    def play(self) -> Outcome:
        """Let everything happen, and check."""
        with self.patched():
            self.runs = [self._make_run(f"run{number}") for number in range(self.dice.choice((1, 1, 1, 2)))]
            first = self.dice.random() < 0.4
            for run in self.runs:
                life = self.dice.choice((self.dice.uniform(0, 0.5), self.dice.uniform(0, 300))) if first else None
                self._process(self._advance, run, "login1", life)
            faults = self.faults()
            for name in self.dice.choices(list(faults), k=self.dice.randint(0, 6)):
                self.site.injected[name] += 1
                # While the first submission is at work, while the first jobs are, or at any time.
                self.world.after(self.dice.uniform(0, self.dice.choice((1.0, 150.0, HORIZON))), faults[name])
            for _ in range(2):
                at = self.dice.uniform(0, HORIZON)
                self.world.after(at, lambda: self._process(self._look, self.dice.choice(self.runs), "login2"))
            self.world.after(HORIZON, self._calm)
            self.world.run()
            for _ in range(PATIENCE):
                if self._is_done():
                    break
                self._everybody_resumes()
            self._check()
        return Outcome(self.seed, self.site.violations, self.site.injected)

    def _calm(self) -> None:
        self.site.chaos = False
        self.site.bad_nodes.clear()
        self.site.without_files.clear()

    def _everybody_resumes(self) -> None:
        self.world.now += 2 * LOCK_STALE_SECONDS
        for run in self.runs:
            self._process(self._advance, run, "login1")
            self.world.run()

    def _is_done(self) -> bool:
        return all(self.store(one).seal.exists() for one in self.plan.stages)

    def _check(self) -> None:
        wrong = self.site.violations
        for one in self.plan.stages:
            self._check_stage(one, wrong)
        before = [job.id for job in self._all_jobs()]
        self._everybody_resumes()
        if [job.id for job in self._all_jobs()] != before:
            wrong.append("resume of a finished run made a job")
        announced = {
            name
            for run in self.runs
            for entry in run.journal.read()
            if entry["event"] == Event.INTENT
            for name in entry["names"]
        }
        for job in self._all_jobs():
            if job.name not in announced:
                wrong.append(f"no journal explains job {job.id} {job.name}")
            if not job.is_final and self.site.controller.jobs.get(job.id) is job:
                wrong.append(f"job {job.id} {job.name} is left in the queue: {job.state} {job.reason} {job.dependency}")

    def _all_jobs(self) -> list[Any]:
        return [*self.site.controller.forgotten, *self.site.controller.jobs.values()]

    def story(self) -> str:
        """Everything that was written down, in order of time."""
        lines = [line for run in self.runs for line in record(run.paths.journal)]
        lines += [
            line for run in self.runs for path in run.paths.stages.glob("*/events.jsonl") for line in record(path)
        ]
        lines.sort(key=lambda line: float(str(line["at"])))
        return "\n".join(
            f"{float(str(line.pop('at'))) - EPOCH:10.3f} " + " ".join(f"{key}={value}" for key, value in line.items())
            for line in lines
        )

    def _check_stage(self, planned: PlannedStage, wrong: list[str]) -> None:
        store = self.store(planned)
        if not store.seal.exists():
            wrong.append(f"{planned.name} is not sealed after {PATIENCE} calls of resume")
            return
        try:
            sealed = seal.verify(store.output, store.seal)
        except seal.SealBroken as error:
            wrong.append(f"{planned.name}: {error}")
            return
        lines = [line for run in self.runs for line in record(run.paths.stage(planned.name).events)]
        lines.sort(key=lambda line: float(str(line["at"])))
        seals = [line for line in lines if line["event"] == "sealed"]
        if len(seals) > 1:  # none where the power was cut between the seal and the note of it
            wrong.append(f"{planned.name} was sealed {len(seals)} times")
        if planned.target_step is not None and sealed.step != planned.target_step:
            wrong.append(f"{planned.name} was sealed at step {sealed.step} of {planned.target_step}")
        for role, parent in planned.inputs.items():
            above = self.workspace.entry(parent.kind, parent.fingerprint)
            if sealed.parents.get(role) != seal.digest_of(above.seal):
                wrong.append(f"{planned.name} was made from another {role}")
        begun = {
            (line["attempt"], line["step"], line["job"], line["restart"]) for line in lines if line["event"] == "start"
        }
        idle = Counter(one[:2] for one in begun)
        for (attempt, _), starts in idle.items():
            if starts > max(MOST_IDLE_STARTS, self._within_budgets(lines, attempt)):
                wrong.append(f"{planned.name} was started {starts} times at one step")
        saved = 0
        for line in lines:
            if line["event"] == "saved":
                saved = max(saved, int(str(line["step"])))
            elif line["event"] == "start" and int(str(line["step"])) < saved and not self._is_void(line):
                wrong.append(f"{planned.name} began at step {line['step']} although step {saved} had been saved")

    @staticmethod
    def _within_budgets(lines: list[dict[str, Any]], attempt: object) -> int:
        """The first start of an attempt, and the retries of each class that ended one of its starts."""
        ended = {line["failure"] for line in lines if line.get("attempt") == attempt and "failure" in line}
        return 1 + sum(retries for failure, retries in RETRIES.items() if failure.value in ended)

    def _is_void(self, line: dict[str, Any]) -> bool:
        return (line["job"], line["restart"]) in self.site.void

    def _digesting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            self.site.digests()
            return function(*given, **named)

        return call

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Slurm, clock, processes and, before each change of a file, a point."""
        world, token = self.world, iter(range(10**6))

        def attempt(*given: Any) -> Attempt:
            actor = world.current
            assert actor is not None
            return Attempt(*given, host=actor.host, pid=actor.pid, time=world.now)

        def stopping(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*given: Any, **named: Any) -> Any:
                world.point()
                return function(*given, **named)

            return call

        append = stopping(files.append_json_line)

        def noted(path: Path, value: dict[str, Any], durable: bool = True) -> None:
            append(path, {**value, "at": world.now}, durable)  # the clocks of hosts differ

        supersede, take = claim.supersede, claim.take

        def taken(*given: Any) -> Any:
            rival = take(*given)
            self.site.took(given[0].root, rival)
            return rival

        def give_up(*given: Any, **named: Any) -> Any:
            self.site.gives_up()
            return supersede(*given, **named)

        def write(run: Run, plan: Plan, planned: PlannedStage, profile: Profile, token: str, links: int) -> None:
            paths = run.paths.stage(planned.name)
            paths.logs.mkdir(parents=True, exist_ok=True)
            self.store(planned).root.mkdir(parents=True, exist_ok=True)
            at = paths.scripts(token)
            at.root.mkdir(parents=True)
            specs.save(at.spec, scripts.stage_spec(run, plan, planned, profile, token, links))

        should_move = steps._should_move

        def moves(spec: StageSpec, start: Start) -> bool:
            return start.job not in self.site.staying and should_move(spec, start)

        def alive(pid: int) -> bool:
            return any(actor.pid == pid for actor in world.actors)

        def sbatch_alive(one: Attempt) -> bool:
            host = world.current.host if world.current else ""
            root = str(Path(one.stage_dir) / "attempts" / one.token)
            return any(actor.host == host and script == root for actor, script in self.site.submissions.items())

        join, joined = PurePath.__truediv__, dict[tuple[PurePath, Any], PurePath]()

        def remembered(path: PurePath, name: Any) -> PurePath:
            """A fifth of all time went into putting the same few hundred paths together again and again."""
            found = joined.get((path, name))
            if found is None:
                found = joined[path, name] = join(path, name)
            return found

        with ExitStack() as stack:
            stack.enter_context(world.clock())
            stack.enter_context(self.site.files.patched())
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
            replaced: list[tuple[Any, str, Any]] = [
                (PurePath, "__truediv__", remembered),
                (submitter, "carrier", lambda name: Carrier(self.site)),
                (submitter, "Attempt", attempt),
                (submitter, "deferred", contextlib.nullcontext),
                (scripts, "write", write),
                (attempt_state, "process_alive", alive),
                (attempt_state, "_sbatch_alive", sbatch_alive),
                (attempts, "new_token", lambda length=6: f"{next(token):06d}"),
                (claim, "supersede", give_up),
                (claim, "take", taken),
                (steps, "_should_move", moves),
                (nodes, "ask", self.site.asked),
                (concurrent.futures, "ThreadPoolExecutor", _OneByOne),
                (files, "fsync_directory", lambda directory: None),
                (files, "append_json_line", noted),
            ]
            stoppable = (
                (files, "create_exclusive"), (files, "write_atomic"), (files, "read_json"),
                (claim, "of_attempt"), (attempts, "current"), (shutil, "rmtree"), (claim, "check_held"),
            )  # fmt: skip
            replaced.append((hashing, "digest_files", self._digesting(hashing.digest_files)))
            replaced += [(module, name, stopping(getattr(module, name))) for module, name in stoppable]
            for module, name, value in replaced:
                stack.enter_context(mock.patch.object(module, name, value))
            yield


def one(seed: int, tells: bool = False) -> Outcome:
    """Play one chain in a directory of its own; its story is there where it fails, or for one that ``tells``."""
    memory = Path("/dev/shm")
    base = memory if os.access(memory, os.W_OK) else None
    root = Path(tempfile.mkdtemp(prefix="overnight-sim-", dir=base))
    try:
        simulation = Simulation(seed, root)
        try:
            outcome = simulation.play()
        except Exception as error:
            outcome = Outcome(seed, [f"the chain cannot be judged: {error!r}"])
        return replace(outcome, story=simulation.story()) if outcome.violations or tells else outcome
    finally:
        shutil.rmtree(root, ignore_errors=True)


def many(first: int, count: int, processes: int = 1) -> Iterator[Outcome]:
    """Play ``count`` chains, with seeds from ``first`` on."""
    if processes == 1:
        yield from map(one, range(first, first + count))
        return
    with Pool(processes, pin) as pool:
        yield from pool.imap_unordered(one, range(first, first + count), chunksize=8)


class _Told:
    """Reports on the chains that have been played: a line every ten seconds, and what went wrong at once."""

    def __init__(self, first: int, count: int, command: str) -> None:
        self.open = set(range(first, first + count))
        self.count, self.failed = count, list[int]()
        self.injected: Counter[str] = Counter()
        self._command = command
        self._began = self._said = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def rate(self) -> float:
        return (self.count - len(self.open)) / max(self.seconds, 0.001)

    def add(self, outcome: Outcome) -> None:
        self.open.discard(outcome.seed)
        self.injected += outcome.injected
        if outcome.violations:
            self.failed.append(outcome.seed)
            print(f"seed {outcome.seed}: replay: {self._command} --seed {outcome.seed}")
            for text in dict.fromkeys(outcome.violations):
                print(f"  {text}", flush=True)
        if time.monotonic() - self._said >= PROGRESS_SECONDS:
            self._said = time.monotonic()
            played = self.count - len(self.open)
            said = f"{played:,} of {self.count:,} chains, {self.rate:.1f} a second, violations {len(self.failed)}"
            print(said, file=sys.stderr, flush=True)

    def end(self, processes: int) -> None:
        played = self.count - len(self.open)
        rate = f"{self.rate:.1f} a second, {self.rate / processes:.2f} a process"
        print(f"{played:,} chains in {self.seconds:.1f} s ({rate}), violations {len(self.failed)}; faults by kind:")
        for name, number in sorted(self.injected.items()):
            print(f"  {name:28} {number:,}")
        if self.open:
            print(f"not played: {len(self.open):,}; go on with --first {min(self.open)}")


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def pin() -> None:
    """Keep a worker on one core: its threads take turns, and a turn that wakes another core costs three times as much."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.freeze()  # what was imported is not looked at again and again
    mine = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {mine[os.getpid() % len(mine)]})


def fix_hashes(module: str) -> None:
    """Start this program again where the order of sets would differ from run to run: it is part of a replay."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        argv = [sys.executable, "-m", module, *sys.argv[1:]]
        os.execve(sys.executable, argv, {**os.environ, "PYTHONHASHSEED": "0"})


def main() -> int:
    """Play chains and report; the exit code is 1 where an invariant was violated."""
    from tests.faults import mutations

    fix_hashes("tests.faults.simulate")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this chain alone, and print what happened")
    parser.add_argument("--chains", type=int, default=100, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first one")
    parser.add_argument("--processes", type=int, default=cores(), help="default: a process for each core")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end after so long, played or not")
    parser.add_argument("--mutation", choices=sorted(mutations.MUTATIONS), help="an error to put into the code")
    args = parser.parse_args()
    mutated = f" --mutation {args.mutation}" if args.mutation else ""
    with mutations.applied(args.mutation) if args.mutation else contextlib.nullcontext():
        if args.seed is not None:
            outcome = one(args.seed, tells=True)
            print(outcome.story, *dict.fromkeys(outcome.violations), sep="\n")
            return 1 if outcome.violations else 0
        processes = min(args.processes, args.chains)  # a worker is a fork, with the error in its code
        told = _Told(args.first, args.chains, f"python -m tests.faults.simulate{mutated}")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            for outcome in many(args.first, args.chains, processes):
                told.add(outcome)
                if told.seconds > 60 * args.minutes:
                    break
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
    told.end(processes)
    return 1 if told.failed else 0


if __name__ == "__main__":
    sys.exit(main())
