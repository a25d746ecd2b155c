"""What every executor is asked for, and the rules that hold for every script."""

import shlex

import pytest

from launch.base.errors import InputError
from launch.config.fields import RESOURCE_KEYS, Resources
from launch.render import request as base
from launch.render.executors import carrier
from launch.render.request import JobRequest


def request(tmp_path, **changes):
    resources = Resources(nodes=2, time="5", **{key: changes.pop(key) for key in RESOURCE_KEYS if key in changes})
    return JobRequest(**{"name": "r1-cpt", "stage_dir": tmp_path, "resources": resources, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "a b"}, "only letters"),
        ({"name": "a\n#SBATCH --uid=0"}, "only letters"),
        ({"name": ""}, "only letters"),
        ({"name": "-x"}, "only letters"),
        ({"dependency": "afterok"}, "not a dependency"),
        ({"dependency": "afterok:1 --uid=0"}, "not a dependency"),
        ({"resources": Resources().changed(account="a\nb")}, "account holds a control character"),
        ({"site": {"mail-user": "a\nb"}}, "option mail-user holds a control character"),
        ({"setup": ("export A=1", "x\r")}, "set-up line 2"),
        ({"srun": ("--x=\x07",)}, "srun argument 1"),
        ({"sbatch": {"comment": "a\nrm -rf x"}}, "sbatch option comment"),
        ({"sbatch": {"Comment x": "1"}}, "not an option of sbatch"),
        ({"sbatch": {"--output": "x"}}, "the log is kept"),
        ({"sbatch": {"job_name": "x"}}, "unique name"),
    ],
)
def test_refused(tmp_path, changes, said):
    with pytest.raises(InputError, match=said):
        request(tmp_path, **changes)


def test_relative_directory_is_refused(tmp_path):
    with pytest.raises(InputError, match="not absolute"):
        request(tmp_path, stage_dir=tmp_path.relative_to("/"))


@pytest.mark.parametrize("dependency", ["afterok:1", "afterok:1:22,afterany:3"])
def test_dependencies(tmp_path, dependency):
    assert base.sbatch_extra(request(tmp_path, dependency=dependency)) == [f"--dependency={dependency}"]


def test_header_follows_the_request(tmp_path):
    header = base.header(
        request(
            tmp_path,
            cpus=4,
            account="0123",
            mem="1G",
            requeue=True,
            site={"gpus-per-node": "8"},
            sbatch={"--mail-type": "END", "exclusive": True, "wckey": None, "mem": "0", "chdir": False},
        )
    )
    assert header == {
        "job_name": "r1-cpt",
        "nodes": "2",
        "ntasks_per_node": "1",
        "cpus_per_task": "4",
        "gpus_per_node": "8",
        "time": "5",
        "account": "0123",
        "requeue": True,
        "kill_on_invalid_dep": "yes",
        "output": f"{tmp_path}/logs/%j.batch.log",
        "open_mode": "append",
        "mail_type": "END",
        "exclusive": True,
        "mem": "0",
    }


def test_a_rule_of_the_site_takes_an_option_out(tmp_path):
    assert "mem" in base.header(request(tmp_path, mem="1G"))
    assert "mem" not in base.header(request(tmp_path, mem="1G", site={"mem": False}))


@pytest.mark.failure(28)
def test_percent_in_the_path_is_no_pattern(tmp_path):
    assert base.header(request(tmp_path / "100%j"))["output"] == f"{tmp_path}/100%%j/logs/%j.batch.log"


def test_no_requeue_is_said(tmp_path):
    assert base.header(request(tmp_path, requeue=False))["no_requeue"] is True


@pytest.mark.failure(17)
def test_the_profile_can_drop_both_requeue_flags(tmp_path):
    header = base.header(request(tmp_path, requeue=True, sbatch={"requeue": None}))
    assert not {"requeue", "no_requeue"} & set(header)


def script(request, header=("#SBATCH --nodes=2",), srun="srun --a=1"):
    return "\n".join(["#!/bin/bash", *header, "set -e", request.source_host, f"{srun} {request.start_node}", "exit"])


@pytest.mark.parametrize("remove", ["--wckey", "wckey"])
@pytest.mark.failure(17)
def test_removal(tmp_path, remove):
    asked = request(tmp_path, remove=(remove, "mpi", "ntasks_per_node"), srun=("--mpi=pmix", "--x=$HOME"))
    text = base.finished(
        script(
            asked, ["#SBATCH --nodes=2", "#SBATCH --wckey=s"], "srun --mpi=none --ntasks-per-node=1 --output all -u -K"
        ),
        asked,
        drop_srun=("output",),
    )
    assert "#SBATCH --nodes=2" in text
    assert "--wckey" not in text
    # The profile's own arguments stay although one has the name of a removed one, come last, and are quoted.
    assert f"srun -u -K --mpi=pmix '--x=$HOME' {asked.start_node}\n" in text


def test_the_same_argument_twice_is_said_once(tmp_path):
    asked = request(tmp_path)
    text = base.finished(script(asked, srun="srun --kill-on-bad-exit=1 --a=2 --kill-on-bad-exit=1"), asked)
    assert f"srun --kill-on-bad-exit=1 --a=2 {asked.start_node}\n" in text


def test_lines_that_look_like_a_header_later_on_are_left_alone(tmp_path):
    asked = request(tmp_path, remove=("wckey",), setup=("#SBATCH --wckey=late",))
    text = script(asked).replace(asked.source_host, f"#SBATCH --wckey=late\n{asked.source_host}")
    assert "#SBATCH --wckey=late" in base.finished(text, asked)


@pytest.mark.parametrize(
    "broken",
    [
        lambda text, asked: text.replace("srun ", "mpirun "),
        lambda text, asked: text.replace(asked.start_node, "python -m x"),
        lambda text, asked: text.replace(asked.source_host, ""),
        lambda text, asked: text.replace("#SBATCH --nodes=2", "#SBATCH --nodes=2\n#SBATCH --nodes=3"),
        lambda text, asked: text.replace("#SBATCH --nodes=2", "#SBATCH nodes"),
        lambda text, asked: text.replace("set -e", "set -e \x07"),
    ],
)
def test_a_library_that_renders_something_else_is_noticed(tmp_path, broken):
    asked = request(tmp_path)
    base.finished(script(asked), asked)
    with pytest.raises(RuntimeError):
        base.finished(broken(script(asked), asked), asked)


def test_scripts_lie_where_the_attempt_keeps_them(tmp_path):
    asked = request(tmp_path, scripts_dir=tmp_path / "attempts" / "t1", link=2)
    path = tmp_path / "attempts" / "t1" / "job-2.sh"
    path.parent.mkdir(parents=True)
    assert base.write_script(asked, "#!/bin/bash\n") == path
    assert path.stat().st_mode & 0o777 == 0o700
    assert shlex.split(asked.source_host)[:3] == [".", str(tmp_path / "attempts" / "t1" / "host.sh"), "||"]


def test_unknown_carrier():
    with pytest.raises(InputError, match="no executor 'parsl'"):
        carrier("parsl")
