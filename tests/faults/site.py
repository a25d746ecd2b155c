"""The simulated site: a controller and its nodes, ``sbatch`` and its friends on login nodes, and what goes wrong there.

``Gateway`` and ``Carrier`` take the place of those of the same name in ``launch``; ``run_job`` is what ``host.sh`` does,
around the real prologue and finish.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from jobs.core import attempts, files
from jobs.core import spec as specs
from jobs.core.claim import ClaimLost
from jobs.core.patience import Patience
from jobs.core.seal import SealBroken
from jobs.core.shares import Node
from jobs.core.slurm_states import JobState
from jobs.core.spec import StageSpec
from jobs.core.verdict import FailureClass, classify
from jobs.lifecycle import judge, publish, steps
from jobs.lifecycle.start import EndedBy, Start, claim_of, event, output_of, write_result
from jobs.lifecycle.steps import Entry
from jobs.training.saves import Saves
from jobs.worker import work
from launch.base.errors import ClusterUnreachable, RejectedByCluster
from launch.render.request import JobRequest
from launch.slurm.queue import QueueRow
from tests.faults.controller import ACTIVE, FINAL, Controller, Job, Refused
from tests.faults.shared_files import FEW, SharedFiles
from tests.faults.world import EPOCH, Actor, World

KILL_WAIT = 30.0
SBATCH_SECONDS = 120.0
"""sbatch asks for an answer for so long."""

SBATCH_TIMEOUT = 180.0
STEP_SECONDS = 10.0
SAVE_EVERY = 2
LEAD = 25.0


def silent(command: str) -> ClusterUnreachable:
    return ClusterUnreachable(f"{command} did not answer", command=(command,), since=9.0)


class Site:
    """One cluster and what has happened on it."""

    def __init__(self, world: World, root: Path) -> None:
        self.world = world
        self.files = SharedFiles(self, root)
        self.controller = Controller(nodes=world.dice.choice((1, 2, 4, 8)))
        self.controller.refuse_unknown = world.dice.random() < 0.5
        self.silent_until = 0.0
        self.chaos = True
        self.injected: Counter[str] = Counter()
        self.violations: list[str] = []
        self.processes: dict[str, Actor] = {}
        self.presumed_dead: set[Actor] = set()
        self.writers: dict[Path, set[Actor]] = {}
        self.staying: set[str] = set()  # jobs on a bad node that Slurm would not let go
        self.on_ending: Callable[[], None] = lambda: None
        self.saved: dict[Path, int] = {}  # store entry -> step of its newest save
        self.owners: dict[str, Actor] = {}  # store entry -> the start that was let in last
        self.finished: set[Path] = set()  # store entries whose output is whole
        self.doomed: set[Actor] = set()  # taken for dead while they seal
        self.let_in: set[Actor] = set()  # starts that began to work
        self.claims = 0
        self.void: set[tuple[str, int]] = set()  # starts that began although they had been replaced
        self.latest: dict[str, Actor] = {}  # store entry -> the start that took a claim last
        self.claimed: dict[Actor, int] = {}  # which claim a start took last, counted over all
        self.late: list[JobRequest] = []  # whose sbatch is still on its way though nobody listens any more
        self.submissions: dict[Actor, str] = {}  # sbatch that is on its way -> its script
        self.has_accounting = world.dice.random() < 0.5
        self.records: dict[str, list[tuple[str, float, float]]] = {}  # job -> state, start and end of its runs
        self.booted: dict[str, float] = {}  # node -> when it came back
        self.bad_nodes: set[str] = set()  # whose GPUs are not there
        self.without_files: set[str] = set()  # nodes that do not see the shared file system
        self.files_away_until = 0.0
        self.trouble = world.dice.choice((1, 1, 1, 5))  # how much more often sbatch fails than usual

    def strikes(self, fault: str, rate: float) -> bool:
        """Whether a fault happens here; counted."""
        if self.chaos and self.world.dice.random() < rate:
            self.injected[fault] += 1
            return True
        return False

    # The controller

    def kick(self) -> None:
        """Let the scheduler look at the queue in a moment, and when a requeued job may start again."""
        for seconds in (0.5, 7.0):
            self.world.after(seconds, self._schedule)

    def _schedule(self) -> None:
        before = {job.id for job in self.controller.jobs.values() if not job.is_final}
        for job in self.controller.schedule(self.world.now):
            self._launch(job)
        if any(self.controller.jobs[one].is_final for one in before):
            self.kick()

    def _launch(self, job: Job) -> None:
        code = [137]

        def work() -> None:
            code[0] = run_job(self, actor, job)

        def gone() -> None:
            if actor in self.presumed_dead:
                self.presumed_dead.discard(actor)
            elif self.processes.get(job.id) is actor:
                del self.processes[job.id]
                state = "REQUEUED" if job.ending == "REQUEUE" else job.ending
                self.controller.ended(job.id, code[0], self.world.now)
                self.records.setdefault(job.id, []).append((state or job.state, began, self.world.now))
                self.kick()
            for writers in self.writers.values():
                writers.discard(actor)
            if actor.error is not None:
                self.violations.append(f"job {job.id} {job.name} broke: {actor.error!r}")

        began = self.world.now
        actor = self.world.spawn(f"job {job.id}.{job.restarts}", job.node, work)
        actor.on_end = gone
        self.processes[job.id] = actor
        self.world.after(
            job.limit, lambda: self.terminate(job.id, self.controller.time_out) if self._is(job, actor) else None
        )

    def _is(self, job: Job, actor: Actor) -> bool:
        return self.processes.get(job.id) is actor

    def terminate(self, job_id: str, how: Callable[[str], bool]) -> None:
        """TERM now, KILL after KillWait, if ``how`` says so."""
        if not how(job_id):
            self.kick()
            return
        if self.strikes("resume while a job ends", 0.05):
            self.on_ending()
        actor = self.processes[job_id]
        actor.signal = True
        actor.wake = min(actor.wake, self.world.now)
        self.world.after(
            KILL_WAIT, lambda: None if actor.is_done or actor in self.presumed_dead else self.world.kill(actor)
        )

    def preempt(self, job_id: str) -> None:
        """Somebody of higher priority needs the nodes."""
        if job_id in self.processes:
            with contextlib.suppress(Refused):
                self.terminate(job_id, self.controller.requeue)

    def power_cut(self, job_id: str, is_only_presumed: bool) -> None:
        """A job's node is gone; or only the network to it, and its processes live on."""
        actor = self.processes.get(job_id)
        if actor is None or not self.controller.node_fail(job_id, self.world.now):
            return
        del self.processes[job_id]
        self.records.setdefault(job_id, []).append(("NODE_FAIL", EPOCH, self.world.now))
        if is_only_presumed:
            self.presumed_dead.add(actor)
        else:
            self.booted[actor.host] = self.world.now + self.world.skew(actor.host)
            self.world.kill(actor)
        self.kick()

    def submit(self, request: JobRequest) -> Job:
        job = Job(
            "",
            request.name,
            str(request.scripts.spec),
            self.world.now,
            request.dependency or "",
            request.requeue,
            request.kill_on_invalid_dep,
            limit=self.world.dice.choice((70.0, 200.0, 4000.0)),
            link=request.link,
        )
        found = self.controller.submit(job)
        self.kick()
        if request.link == 1:
            self._first_link_goes(found.name.rpartition("-")[0])
        return found

    def _first_link_goes(self, name: str) -> None:
        """Somebody cancels the first link of a chain of jobs before it starts, which releases the second; and Slurm has
        accepted the first one twice."""
        waiting = [
            job
            for job in self.controller.jobs.values()
            if job.name == name and job.state == "PENDING" and not job.dependency
        ]
        if waiting and self.strikes("first link cancelled", 0.03 * self.trouble):
            self.controller.cancel(waiting[0].id, self.world.now)
            self.world.after(self.world.dice.uniform(1.0, 60.0), lambda: self.copy(waiting[0]))

    def copy(self, first: Job) -> None:
        """Slurm has accepted a submission twice."""
        with contextlib.suppress(Refused):
            self.controller.submit(
                Job(
                    "",
                    first.name,
                    first.script,
                    self.world.now,
                    first.dependency,
                    first.requeue,
                    first.kill_on_invalid,
                    limit=self.world.dice.choice((70.0, 200.0, 4000.0)),
                    link=first.link,
                )
            )
            self.kick()

    def arrives(self, request: JobRequest) -> None:
        """A submission that was on its way reaches the controller; what it says to it nobody hears."""
        if request in self.late:
            self.late.remove(request)
            with contextlib.suppress(Refused):
                self.submit(request)

    def gives_up(self) -> None:
        """Somebody is about to give a submission up: the worst moment for it to get through."""
        if self.late and self.chaos:
            for request in list(self.late):
                self.arrives(request)
            # Until its job is in its prologue, or at work.
            self.world.sleep(self.world.dice.choice((self.world.dice.uniform(0.55, 0.65), 1.0)))

    def asked(self, *argv: str) -> str | None:
        """What a job is told that asks Slurm: of nodes, of itself, of how it ended before. None: no answer."""
        self.world.point()
        if self.world.now < self.silent_until or (argv[0] == "sacct" and not self.has_accounting):
            return None
        if argv[0] == "sacct":
            rows = self.records.get(argv[argv.index("-j") + 1], [])
            return "\n".join(f"{state}|{int(start)}|{int(end + 1)}" for state, start, end in rows)
        if argv[:3] == ("scontrol", "show", "node"):
            names = argv[3].split(",")
            return "\n".join(
                f"NodeName={name} State=IDLE SlurmdStartTime={int(self.booted.get(name, 0))}" for name in names
            )
        if argv[:3] == ("scontrol", "show", "job"):
            job = self.controller.jobs.get(argv[3])
            return None if job is None else f"JobId={job.id} Partition=batch ExcNodeList={job.excluded or '(null)'}"
        if argv[0] == "squeue":
            return "\n".join(f"{job.id} {job.state}" for job in self.controller.jobs.values())
        if argv[0] == "sinfo":
            return "\n".join(f"{name} idle" for name in self.controller.node_names)
        raise AssertionError(f"a job asks what nobody answers: {argv}")

    # Jobs

    def writes(self, store: Path, actor: Actor) -> None:
        """A job is at work on a store entry: nobody else may be, but for one that is presumed dead."""
        writers = self.writers.setdefault(store, set())
        writers.add(actor)
        alive = {one for one in writers if one not in self.presumed_dead and not one.killed}
        if len(alive) > 1:
            names = sorted(one.name for one in alive)
            self.violations.append(f"two writers on {store.name}: {names}")

    @contextlib.contextmanager
    def acting(self, start: Start, what: str) -> Iterator[None]:
        """A start begins, saves or seals: the power may be cut, or it is taken for dead and the next one begins."""
        if self.strikes(f"power cut while it {what}", 0.03):
            self.world.after(self.world.dice.uniform(0.0, 0.03), lambda: self.power_cut(start.job, False))
        elif self.strikes(f"replaced while it {what}", 0.05) and self.world.current is not None:
            self.doomed.add(self.world.current)
            self.world.after(self.world.dice.uniform(0.0, 0.03), lambda: self.power_cut(start.job, True))
        with self.files.exposed():
            yield

    def took(self, store: Path, rival: object) -> None:
        """A claim was asked for; ``rival`` is None where it was taken."""
        if rival is None and self.world.current is not None:
            self.claims += 1
            self.claimed[self.world.current] = self.claims
            self.latest[str(store)] = self.world.current

    def begins(self, store: Path, actor: Actor, start: Start) -> None:
        """A start is let in. One that was replaced after its last look may be, too: it changes nothing."""
        owner = self.owners.get(str(store))
        if owner is not None and self.claimed.get(owner, 0) > self.claimed.get(actor, 0):
            self.void.add((start.job, start.restart))
            return
        if store in self.finished:
            self.violations.append(f"{actor.name} makes {store.name} again although it had been finished")
        self.owners[str(store)] = actor
        self.let_in.add(actor)

    def is_passing(self, spec: StageSpec, start: Start, actor: Actor) -> None:
        """A few calls that fail once are waited for: they end no start."""
        said = judge.said_of(spec, start.job, start.restart)
        if said is not None and said.failure is FailureClass.FILE_SYSTEM and actor not in self.files.cut_off:
            failed = self.files.failed[actor]
            if failed < FEW:
                self.violations.append(
                    f"{actor.name} ended as {said.failure.value} after {failed} calls that failed once"
                )

    def is_own(self, spec: StageSpec, start: Start, actor: Actor) -> None:
        """Nobody judges a start that Slurm has on its node: it judges itself."""
        said = judge.said_of(spec, start.job, start.restart)
        if said is not None and said.judged_by not in ("", judge.PROLOGUE) and self.processes.get(start.job) is actor:
            self.violations.append(f"{actor.name} was judged by {said.judged_by} while it was at work")

    def waits(self, spec: StageSpec, start: Start, actor: Actor) -> None:
        """A link waits in its allocation only for a job that nobody knew of when it was submitted: for the others it
        waits in the queue."""
        attempt = next((one for one in attempts.all_of(spec.store_paths) if one.token == spec.attempt), None)
        for link, job in attempts.job_ids(spec.store_paths, attempt).items() if attempt is not None else ():
            found = self.controller.jobs.get(job)
            if link < start.link and found is not None and found.name in attempt.job_names and found.state in ACTIVE:
                self.violations.append(f"{actor.name} waits on its node for job {job}, and not in the queue")

    def finishes(self, store: Path) -> None:
        """The result that says "done" has been written: from now on the work is never done again."""
        if self.is_at_work(store):
            self.finished.add(store)

    def is_at_work(self, store: Path) -> bool:
        """Whether the process that runs is the start that the entry belongs to: it has not been replaced."""
        return self.owners.get(str(store)) is self.world.current and self.latest.get(str(store)) is self.world.current

    def digests(self) -> None:
        """A digest takes its time: of what is large so long that another start may have begun meanwhile."""
        if self.world.current is not None and self.strikes("slow digest", 0.03):
            self.world.sleep(self.world.dice.uniform(1.0, 200.0))

    def stands_still(self) -> None:
        """A process may be stopped right before any change of names, between its check and its act."""
        actor = self.world.current
        if actor is not None and self.strikes("stands still", 0.3 if actor in self.doomed else 0.002):
            self.world.sleep(self.world.dice.uniform(10.0, 100.0))

    def changes(self, *places: tuple[str, str]) -> None:
        """Called at the very act that makes an output, a seal or a save appear or go: it must be of the start that was
        let in last, or come before the next one was."""
        actor = self.world.current
        for directory, name in places:
            in_saves = directory.endswith("/saves")
            owner = self.owners.get(directory.removesuffix("/saves"))
            if owner is None or actor is None:
                continue
            is_public = name.startswith("checkpoint-") if in_saves else name in ("output", "seal.json", "saves")
            is_late = actor in self.let_in or self.claimed.get(owner, 0) > self.claimed.get(actor, self.claims)
            if is_public and owner is not actor and is_late:
                entry = Path(directory.removesuffix("/saves")).name
                self.violations.append(f"{actor.name} changed {name} of {entry} after it had been replaced")


def run_job(site: Site, actor: Actor, job: Job) -> int:
    """One start of a job, as ``host.sh`` has it; its exit code."""
    restart = job.restarts
    site.world.sleep(0.1)
    start = Start(job.id, restart, job.link, actor.host, (job.node,))
    try:
        with site.files.exposed():
            spec = Patience().call(lambda: specs.load(Path(job.script)))
    except OSError as error:
        return 75 if steps.may_go_elsewhere(error, restart) and _requeue(site, start) else 1
    while (entry := _prologue(site, spec, start)) is Entry.WAIT:
        site.waits(spec, start, actor)
        site.world.sleep(5.0)
    site.is_passing(spec, start, actor)
    if entry is Entry.MOVE:
        if _requeue(site, start):
            _avoid(site, spec, start)
            return 75
        site.staying.add(start.job)
        entry = _prologue(site, spec, start)
    if entry is Entry.SEALED:
        return 0
    if entry is Entry.BEHIND:
        return _wait_behind(site, spec, start)
    if entry is not Entry.WORK:
        return 1
    site.begins(spec.store_paths.root, actor, start)
    code = _work(site, actor, spec, start, job)
    ended_by = _ended_by(site, start)
    with site.acting(start, "seals"):
        decision = steps.finish(spec, start, code, ended_by)
    site.is_passing(spec, start, actor)
    site.is_own(spec, start, actor)
    if decision == "done":
        return 0
    if decision == "requeue":
        if ended_by is not EndedBy.REQUEUED and _requeue(site, start):
            _avoid(site, spec, start)
        return 75
    return 75 if decision == "next-link" else code or 1


def _prologue(site: Site, spec: StageSpec, start: Start, over: str = "") -> Entry:
    with site.acting(start, "begins"):
        return steps.prologue(spec, start, over)


def _ended_by(site: Site, start: Start) -> EndedBy:
    site.world.point()
    job = site.controller.jobs.get(start.job)
    if job is None or site.world.now < site.silent_until or job.state not in ("COMPLETING", "CANCELLED"):
        return EndedBy.ITSELF
    if job.restarts > start.restart:
        return EndedBy.REQUEUED
    return EndedBy.LIMIT if job.reason == "TimeLimit" else EndedBy.CANCELLED


def _requeue(site: Site, start: Start) -> bool:
    for _ in range(600):
        site.world.point()
        if site.world.now >= site.silent_until:
            try:
                site.controller.requeue(start.job)
            except Refused:
                return False
            return True
        site.world.sleep(max(1.0, site.silent_until - site.world.now))
    return False


def _avoid(site: Site, spec: StageSpec, start: Start) -> None:
    path = spec.stage_paths.avoid(start.job)
    for _ in range(10 if path.exists() else 0):
        if site.world.now >= site.silent_until:
            with contextlib.suppress(Refused):
                site.controller.exclude_nodes(start.job, path.read_text().strip())
                return
        site.world.sleep(0.5)


def _is_over(site: Site, job_id: str) -> bool:
    site.world.point()
    if site.world.now < site.silent_until:
        return False
    job = site.controller.jobs.get(job_id)
    return job is None or job.state in FINAL


def _wait_behind(site: Site, spec: StageSpec, start: Start) -> int:
    rival = (spec.stage_paths.root / f"behind-{start.job}").read_text().strip()
    if not _is_over(site, rival):
        if _requeue(site, start):
            for _ in range(60):
                if site.world.now >= site.silent_until:
                    site.controller.update_dependency(start.job, f"afterany:{rival}")
                    break
                site.world.sleep(1.0)
            return 1
        while not _is_over(site, rival):
            site.world.sleep(5.0)
    return 0 if _prologue(site, spec, start, rival) is Entry.SEALED else 1


def _work(site: Site, actor: Actor, spec: StageSpec, start: Start, job: Job) -> int:
    """A trainer: steps, saves, stops in time, dies of a TERM; what it writes it writes as the real ones do."""
    store = spec.store_paths
    saves = Saves(
        store,
        spec.fingerprint,
        claim_of(spec, start),
        lambda name, **facts: event(spec.stage_paths, start, name, **facts),
    )
    target = spec.target_step or 1
    step = 0
    try:
        with site.files.exposed():
            found = saves.newest_valid()
        step = found[0] if found else 0
        is_sighted = site.files_away_until < site.world.now - 600.0 and (start.job, start.restart) not in site.void
        # Of a start that has been replaced since its prologue the saves may be gone: the entry is sealed.
        if step < site.saved.get(store.root, 0) and is_sighted and site.is_at_work(store.root):
            site.violations.append(
                f"{spec.stage} goes on at step {step} although step {site.saved[store.root]} had been saved"
            )
        while step < target:
            site.writes(store.root, actor)
            site.world.sleep(STEP_SECONDS)
            if actor.signal:
                return 143
            site.writes(store.root, actor)
            if job.node in site.bad_nodes:
                failed = {"outcome": "failed", "failure": "missing_gpus", "evidence": "No CUDA GPUs", "node": job.node}
                _say(site, spec, start, failed)
                return 1
            step += 1
            is_late = job.end is not None and job.end - site.world.now < LEAD and step < target
            if spec.target_step is not None and (step % SAVE_EVERY == 0 or is_late):
                directory = saves.directory / f"checkpoint-{step}"
                directory.mkdir(parents=True, exist_ok=True)
                site.world.point()
                (directory / "state").write_text(f"{spec.stage} {step}")
                with site.acting(start, "saves"):
                    saves.seal(step)
                    site.saved[store.root] = max(step, site.saved.get(store.root, 0))
                    saves.keep_last(2)
            if is_late and spec.target_step is not None and spec.continuation != "none":
                _say(site, spec, start, {"outcome": "stopped", "step": step})
                return 0
        site.world.point()
        (output_of(spec, start) / "text").write_text(f"{spec.stage} {step}")
        with site.files.exposed():
            work._flush(spec, start, Node(), 1)
        _say(site, spec, start, {"outcome": "done", "step": step, "writers": 1})
        said = publish.result_of(spec)
        if (said.get("job"), said.get("restart")) == (start.job, start.restart):  # else a newer attempt has its place
            site.finishes(store.root)
    except (ClaimLost, SealBroken, OSError) as error:
        failed = {"outcome": "failed", "failure": classify(error).value, "evidence": str(error), "step": step}
        with contextlib.suppress(OSError):  # else it ends with an exit code alone
            _say(site, spec, start, failed)
        return 1
    return 0


def _say(site: Site, spec: StageSpec, start: Start, result: dict[str, object]) -> None:
    """As the work itself writes it."""
    with site.files.exposed():
        write_result(spec, start, result)


class Gateway:
    """Slurm's commands on a login node, asked by whichever process runs."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def _ask(self, command: str) -> None:
        self._site.world.point()
        if self._site.world.now < self._site.silent_until or self._site.strikes(f"{command} silent", 0.01):
            self._site.world.sleep(9.0)
            raise silent(command)

    def squeue(self) -> list[QueueRow]:
        self._ask("squeue")
        rows = [row_of(job) for job in self._site.controller.jobs.values()]
        self._site.world.point()
        return rows

    def scancel(self, ids: Sequence[str]) -> None:
        if not ids:
            return
        self._ask("scancel")
        for one in ids:
            self._site.terminate(one, lambda job: self._site.controller.cancel(job, self._site.world.now))
        self._site.world.point()
        if self._site.strikes("scancel answer lost", 0.02):
            raise silent("scancel")

    def update_dependency(self, job_id: str, dependency: str) -> None:
        self._ask("scontrol")
        try:
            self._site.controller.update_dependency(job_id, dependency)
        except Refused as error:
            raise RejectedByCluster(str(error), command=("scontrol",), exit_code=1, stderr=str(error)) from error
        self._site.kick()


def row_of(job: Job) -> QueueRow:
    return QueueRow(
        job.id,
        job.name,
        JobState(job.state),
        job.reason,
        job.submitted,
        job.start,
        job.end,
        1,
        job.node,
        "batch",
        job.dependency,
    )


class Carrier:
    """Submits by an sbatch that is a process of its own and outlives whoever started it."""

    name = "simulated"

    def __init__(self, site: Site) -> None:
        self._site = site

    def submit(self, request: JobRequest, gateway: Gateway) -> str:
        world, said = self._site.world, list[tuple[str, str]]()
        host = world.current.host if world.current else "login1"
        sbatch = world.spawn("sbatch", host, lambda: said.append(self._sbatch(request)))
        self._site.submissions[sbatch] = str(request.scripts.root)
        sbatch.on_end = lambda: self._site.submissions.pop(sbatch, None)
        if not world.wait_for(sbatch, SBATCH_TIMEOUT):
            world.kill(sbatch)
            raise silent("sbatch")
        if not said:
            raise sbatch.error or silent("sbatch")
        kind, text = said[0]
        if kind == "refused":
            raise RejectedByCluster(text, command=("sbatch",), exit_code=1, stderr=text)
        if kind == "silent":
            raise silent("sbatch")
        if self._site.strikes("killed after sbatch", 0.03 * self._site.trouble) and world.current is not None:
            world.kill(world.current)
        return text

    def _sbatch(self, request: JobRequest) -> tuple[str, str]:
        site, world = self._site, self._site.world
        world.sleep(0.02)
        if site.strikes("submit limit", 0.02 * site.trouble):
            return "refused", "AssocMaxSubmitJobLimit"
        if site.strikes("never arrived", 0.02 * site.trouble):
            world.sleep(SBATCH_SECONDS)
            return "silent", ""
        if site.strikes("arrives late", 0.02 * site.trouble):  # when nobody listens any more
            site.late.append(request)
            world.after(world.dice.uniform(0, 1000), lambda: site.arrives(request))
            return "silent", ""
        if site.strikes("slow sbatch", 0.03 * site.trouble):
            world.sleep(world.dice.uniform(1, SBATCH_SECONDS))
        end = world.now + SBATCH_SECONDS
        while world.now < site.silent_until:
            if world.now >= end:
                return "silent", ""
            world.sleep(min(end, site.silent_until) - world.now)
        try:
            job = site.submit(request)
            if site.strikes("accepted twice", 0.02 * site.trouble):
                with contextlib.suppress(Refused):
                    job = site.submit(request)
        except Refused as error:
            return "refused", str(error)
        if site.strikes("answer lost", 0.04 * site.trouble):
            world.sleep(world.dice.uniform(1, SBATCH_SECONDS))
            return "silent", ""
        if site.strikes("sbatch hangs", 0.01 * site.trouble):
            world.sleep(1000.0)
        return "id", job.id


def record(path: Path) -> list[dict[str, object]]:
    """Lines of a JSON-lines file, without those that were cut short."""
    return list(files.read_json_lines(path))
