"""The rendered batch script in every case in which something that it needs is not there."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from jobs.core.verdict import FailureClass
from tests.support.batch import PYTHON, Batch

EXECUTORS = ("submitit", "nemo_run")


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_job_whose_files_are_there_works_and_is_judged_once(tmp_path: Path, executor: str) -> None:
    ran = Batch(tmp_path, executor=executor).run()
    assert ran.code == 0, ran.log + ran.early
    assert [ran.count(f"interpreter boot.py {verb}") for verb in ("prologue", "work", "finish")] == [1, 1, 1]
    assert ran.count("scontrol requeue") == 0


# Nothing runs without what makes it safe


@pytest.mark.failure(1)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_no_work_where_the_host_script_cannot_be_read(tmp_path: Path, executor: str) -> None:
    """Neither claim nor gate nor verdict would be there; the job goes to another node, and this one is excluded."""
    batch = Batch(tmp_path, executor=executor)
    batch.request.scripts.host.unlink()
    ran = batch.run()
    assert ran.code == 74
    assert ran.count("srun") == 0
    assert ran.count("scontrol requeue 7") == 1
    assert "scontrol update jobid=7 excnodelist=node1" in ran.calls
    assert "host.sh cannot be read on node1" in ran.early


@pytest.mark.failure(1)
@pytest.mark.parametrize(
    ("executor", "apart"),
    [("submitit", 5), ("nemo_run", 7), pytest.param("submitit", 1, marks=pytest.mark.full)],
)
def test_no_work_where_half_of_the_host_script_was_read(tmp_path: Path, executor: str, apart: int) -> None:
    """Cut after lines that are so far apart: whatever bash makes of it, the work is never started."""
    batch = Batch(tmp_path, executor=executor)
    whole = batch.request.scripts.host.read_text().splitlines(keepends=True)
    lasts = [number for number, line in enumerate(whole) if number > 150 or line.startswith(("}", "export", "trap"))]
    for last in lasts[::apart]:
        batch.request.scripts.host.write_text("".join(whole[:last]))
        ran = batch.run(OVERNIGHT_ENTERED="6.0", OVERNIGHT_MASTER_ADDR="of.another.job")
        assert ran.count("interpreter boot.py work") == 0, last
        assert ran.code != 0, last


@pytest.mark.failure(1)
def test_no_work_where_no_log_can_be_written(tmp_path: Path) -> None:
    batch = Batch(tmp_path)
    (batch.stage / "logs").rmdir()
    ran = batch.run()
    assert ran.code == 74
    assert not [call for call in ran.calls if call.startswith(("srun", "interpreter"))]
    assert "no log can be written in" in ran.early


@pytest.mark.failure(1)
@pytest.mark.parametrize("how", ["missing", "not executable", "of another machine"])
def test_no_work_without_an_interpreter(tmp_path: Path, how: str) -> None:
    batch = Batch(tmp_path)
    if how == "missing":
        batch.python.unlink()
    elif how == "not executable":
        batch.python.chmod(0o644)
    else:
        batch.python.write_bytes(b"\x7fELF\x02\x01\x01" + b"\0" * 64)
    ran = batch.run()
    assert ran.code == 74, ran.log
    assert ran.count("srun") == 0
    assert ran.count("scontrol requeue 7") == 1
    assert f"{batch.python} cannot be started on node1" in ran.log


@pytest.mark.failure(8)
@pytest.mark.parametrize(
    ("sinfo", "restarts"), [("echo node1", "0"), ("exit 1", "0"), ("printf 'node1\\nnode2\\n'", "3")]
)
def test_a_job_stays_where_no_other_node_is_left_or_after_three_moves(
    tmp_path: Path, sinfo: str, restarts: str
) -> None:
    batch = Batch(tmp_path)
    batch.command("sinfo", sinfo)
    batch.request.scripts.host.unlink()
    ran = batch.run(SLURM_RESTART_COUNT=restarts)
    assert ran.code == 74
    assert ran.count("scontrol requeue") == 0


# Requeue


REFUSED = ("slurm_requeue_job error: this site wants no requeue", "x", "")


@pytest.mark.failure(33)
@pytest.mark.parametrize("words", REFUSED)
def test_a_refused_requeue_is_told_and_not_asked_for_again_and_again(tmp_path: Path, words: str) -> None:
    batch = Batch(tmp_path)
    batch.command("scontrol", f'[ "$1" != requeue ] || {{ echo "{words}" >&2; exit 1; }}; echo node1')
    ran = batch.run(DECISION="requeue", WORK="3")
    assert ran.code == 75
    assert ran.count("scontrol requeue 7") == 3
    told = [call for call in ran.calls if call.startswith("interpreter boot.py not-requeued")]
    assert len(told) == 1
    assert words.strip() in told[0]
    assert told[0].rstrip() != "interpreter boot.py not-requeued spec.json"


@pytest.mark.failure(33)
@pytest.mark.parametrize("words", ["Requested operation is presently disabled", "error: Access/permission denied"])
def test_words_that_are_known_are_asked_for_once(tmp_path: Path, words: str) -> None:
    ran = Batch(tmp_path).run(DECISION="requeue", WORK="3", REQUEUE=words)
    assert ran.count("scontrol requeue 7") == 1
    assert ran.count("interpreter boot.py not-requeued") == 1


@pytest.mark.failure(33)
def test_a_silent_controller_is_asked_until_it_answers(tmp_path: Path) -> None:
    batch = Batch(tmp_path)
    answers = tmp_path / "answers"
    silent = "slurm_load error: Unable to contact slurm controller (connect failure)"
    batch.command(
        "scontrol",
        f'[ "$1" = requeue ] || {{ echo node1; exit; }}; echo >>{answers}; [ "$(wc -l <{answers})" -eq 5 ] && exit 0\n'
        f'echo "{silent}" >&2; exit 1',
    )
    ran = batch.run(DECISION="requeue", WORK="3")
    assert ran.count("scontrol requeue 7") == 5
    assert ran.count("interpreter boot.py not-requeued") == 0
    assert ran.log.count(silent) == 1


# Traps


@pytest.mark.failure(9)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_trap_of_the_set_up_lines_runs_too_and_last(tmp_path: Path, executor: str) -> None:
    told = tmp_path / "told"
    batch = Batch(tmp_path, executor=executor, setup=(f"trap 'echo \"ended with $?\" >>{told}' EXIT",))
    assert batch.run(WORK="3").code == 3
    assert told.read_text() == "ended with 3\n"
    told.unlink()
    assert batch.run(PROLOGUE="20").code == 0
    assert told.read_text() == "ended with 0\n"


@pytest.mark.failure(9)
def test_no_trap_of_the_batch_shell_does_anything_in_a_child(tmp_path: Path) -> None:
    """For a moment after its fork a child has its parent's traps: here it has them for ever."""
    batch = Batch(tmp_path)
    armed = "trap overnight_exit EXIT; trap 'overnight_signal end' TERM; trap 'overnight_signal stop' USR1"
    host = batch.request.scripts.host
    host.write_text(host.read_text().replace("overnight_watch &", f"{{ {armed}; overnight_watch; }} &"))
    batch.command("srun", 'sleep 0.5; for last; do :; done; "$last"')
    ran = batch.run()
    assert ran.code == 0
    assert ran.count("interpreter boot.py finish") == 1
    assert "batch shell got a signal" not in ran.log
    asked = len(ran.calls)
    time.sleep(2.5)
    assert len((tmp_path / "calls").read_text().splitlines()) == asked, "the watcher has ended"


@pytest.mark.failure(9, 33)
@pytest.mark.parametrize(
    ("signal", "at", "step"),
    [pytest.param("TERM", 1, 1, marks=pytest.mark.full), ("TERM", 1, 8), ("USR1", 3, 12), ("HUP", 5, 20)],
)
def test_a_signal_at_any_line_neither_loses_nor_doubles_the_end(
    tmp_path: Path, signal: str, at: int, step: int
) -> None:
    """Before the n-th command of the batch shell, for every n (else every eighth or so)."""
    longest = Batch(tmp_path / "whole").commands()
    assert longest > 40
    ends = set()
    for number in range(at, longest + 1, step):
        ran = Batch(tmp_path / str(number)).run_with_signal(signal, number)
        worked, finished = (ran.count(f"interpreter boot.py {verb}") for verb in ("work", "finish"))
        where = f"{signal} before command {number}: {ran.calls} {ran.log} {ran.early}"
        assert finished <= 1, where
        assert worked <= finished, where
        assert ran.count("interpreter boot.py prologue") == finished, where
        assert (ran.code == 0) == bool(finished), where
        ends.add((worked, finished))
    assert ends == {(0, 0), (1, 1)}


# What a node lacks: the class, and the line of the log that shows it

MODULES = {"modules": ("cuda/12",)}
PULL = "echo 'slurmstepd: error: pyxis: failed to import docker image: 401 Unauthorized' >&2; exit 1"
LACKS: tuple[tuple[str, dict[str, Any], dict[str, str], FailureClass, str], ...] = (
    ("no srun", {"setup": ("PATH=/usr/bin:/bin; srun() { not-there-srun; }",)}, {}, FailureClass.ENVIRONMENT,
     "not-there-srun: command not found"),
    ("a module that is not there", MODULES, {"BASH_FUNC_module%%": "() { return 1; }"}, FailureClass.ENVIRONMENT,
     "overnight: module load cuda/12 failed on"),
    ("no scratch", {"scratch": "/nowhere"}, {}, FailureClass.ENVIRONMENT, "overnight: no scratch directory"),
    ("an image that cannot be pulled", {}, {"SRUN": PULL}, FailureClass.IMAGE, "401 Unauthorized"),
    ("no stage interpreter", {"stage_python": "/nowhere/python"}, {}, FailureClass.ENVIRONMENT, "/nowhere/python"),
    ("an interpreter of another machine", {"stage_python": "elf"}, {}, FailureClass.ENVIRONMENT, "elf"),
    ("a library", {}, {"SAYS": "python3: error while loading shared libraries: libx.so.1: cannot open"},
     FailureClass.ENVIRONMENT, "libx.so.1"),
    ("a name", {}, {"SAYS": "socket.gaierror: [Errno -2] Name or service not known"}, FailureClass.NAMES,
     "Name or service not known"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "given", "failure", "words"), [one[1:] for one in LACKS], ids=[one[0] for one in LACKS]
)
def test_what_a_node_lacks_is_told_with_its_line(
    tmp_path: Path, asked: dict[str, Any], given: dict[str, str], failure: FailureClass, words: str
) -> None:
    if asked.get("stage_python") == "elf":
        elf = tmp_path / "elf"
        elf.write_bytes(b"\x7fELF\x02\x01\x01" + b"\0" * 64)
        elf.chmod(0o755)
        asked = {"stage_python": str(elf)}
    batch = Batch(tmp_path, **asked)
    if "SAYS" in given:
        batch.command("interpreter", f'[ "$2" != work ] || {{ echo "{given["SAYS"]}" >&2; exit 1; }}\n' + PYTHON)
    if "SRUN" in given:
        batch.command("srun", given["SRUN"])
    ran = batch.run(**given)
    assert ran.code != 0
    assert ran.count("interpreter boot.py finish") == 1
    assert ran.symptom is not None, ran.log
    assert ran.symptom.failure is failure, ran.symptom
    assert words in ran.symptom.line


@pytest.mark.failure(14)
def test_jobs_ask_no_more_often_than_the_site_allows(tmp_path: Path) -> None:
    """The time of the last question is shared; till then the end that Slurm gave the job counts."""
    asked = tmp_path / "asked"
    asked.touch()
    batch = Batch(tmp_path / "early", host={"floor": 600, "asked": asked})
    batch.command("srun", f"cp {batch.stage}/deadline-7_0 {tmp_path}/seen")
    given = {"SLURM_JOB_START_TIME": "1893456000", "SLURM_JOB_END_TIME": "1893463200"}  # by the controller's clock
    began = time.time()
    ran = batch.run(**given)
    assert ran.count("squeue -h -j 7 -o %L") == 0
    assert int(began) + 7199 <= int((tmp_path / "seen").read_text()) <= time.time() + 7200
    os.utime(asked, (1, 1))
    batch = Batch(tmp_path / "late", host={"floor": 600, "asked": asked})
    batch.command("srun", "sleep 3")
    assert batch.run(**given).count("squeue -h -j 7 -o %L") == 1


@pytest.mark.failure(22, 29)
def test_a_start_that_is_taken_for_dead_neither_moves_nor_shortens_the_time_of_the_next(tmp_path: Path) -> None:
    """Each has a file of its own, also for being asked to stop."""
    batch = Batch(tmp_path)
    following = batch.stage / "deadline-7_1"
    following.write_text("4102444800")
    batch.command("interpreter", f'[ "$2" != prologue ] || kill -USR1 $PPID\n{PYTHON}')
    batch.command("srun", f"sleep 2.5; cp {batch.stage}/deadline-7_0 {tmp_path}/seen")
    batch.run()
    assert following.read_text() == "4102444800"
    assert (tmp_path / "seen").read_text() == "0\n", "to stop at once, and the watcher does not take that back"
    assert not (batch.stage / "stop").exists()


@pytest.mark.failure(33)
@pytest.mark.parametrize("clock", [-600, 0, 600])
@pytest.mark.parametrize(
    ("left", "seconds"),
    [("0:09", 9), ("29:58", 1798), ("9:08:07", 32887), ("10-00:00:30", 864030), ("UNLIMITED", None), ("INVALID", None)],
)
def test_the_end_is_the_time_that_is_left_by_the_clock_of_the_node(
    tmp_path: Path, clock: int, left: str, seconds: int | None
) -> None:
    """A node's clock may be ten minutes ahead of the controller's, or behind it."""
    batch = Batch(tmp_path)
    batch.command("date", f"case $1 in +%s) echo {1_900_000_000 + clock} ;; *) echo then ;; esac")
    assert batch.run(LEFT=left, SLURM_JOB_END_TIME="1900000009").code == 0
    written = batch.stage / "deadline-7_0"
    assert (int(written.read_text()) if written.exists() else None) == (
        None if seconds is None else 1_900_000_000 + clock + seconds
    )


@pytest.mark.failure(33)
def test_the_words_by_which_a_site_refuses_a_requeue(tmp_path: Path) -> None:
    ran = Batch(tmp_path, host={"requeue_refused": ["Not Here"]}).run(
        DECISION="requeue", WORK="3", REQUEUE="sorry, not here (Connection refused)"
    )
    assert ran.count("scontrol requeue 7") == 1


@pytest.mark.failure(9)
def test_a_scontrol_that_names_no_nodes(tmp_path: Path) -> None:
    """One node is named by the list itself; of several nothing is run without their names."""
    batch = Batch(tmp_path / "one")
    batch.command("scontrol", "echo no >&2; exit 1")
    batch.command("srun", f"printenv OVERNIGHT_MASTER_ADDR >{tmp_path}/address")
    assert batch.run().code == 0
    assert (tmp_path / "address").read_text() == "node1\n"
    batch = Batch(tmp_path / "several")
    batch.command("scontrol", "echo no >&2; exit 1")
    ran = batch.run(SLURM_JOB_NODELIST="node[1-2]")
    assert ran.code != 0
    assert ran.count("srun") == 0
    assert ran.count("interpreter boot.py finish") == 1
    assert ran.symptom is not None
    assert ran.symptom.failure is FailureClass.ENVIRONMENT


@pytest.mark.parametrize("executor", EXECUTORS)
def test_another_launcher_than_srun(tmp_path: Path, executor: str) -> None:
    batch = Batch(tmp_path, executor=executor, starts=("ibrun", "-v"))
    batch.command("ibrun", 'for last; do :; done; "$last"')
    ran = batch.run()
    assert (ran.code, ran.count("srun"), ran.count("ibrun -v /")) == (0, 0, 1)
    assert ran.count("interpreter boot.py work") == 1
