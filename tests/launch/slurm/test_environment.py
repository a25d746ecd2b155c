"""What reaches Slurm's commands, and through sbatch every job."""

import pytest

from launch.slurm.environment import looks_secret, scrubbed


def test_leftovers_of_an_allocation_are_dropped():
    dirty = {
        "SLURM_CPU_BIND": "quiet,mask_cpu:0x1",
        "SLURM_JOB_ID": "7",
        "SLURMD_NODENAME": "node1",
        "SBATCH_PARTITION": "debug",
        "SRUN_DEBUG": "3",
        "SALLOC_ACCOUNT": "a",
        "PMI_RANK": "0",
        "PMI2_X": "0",
        "PMIX_RANK": "0",
        "OMPI_COMM_WORLD_RANK": "0",
        "XDG_RUNTIME_DIR": "/run/user/0",
        "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run",
    }
    assert scrubbed({**dirty, "PATH": "/bin", "HOME": "/root"}) == {
        "PATH": "/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "SLURM_TIME_FORMAT": "%s",
    }


def test_the_cluster_stays_addressable():
    assert scrubbed({"SLURM_CONF": "/etc/slurm.conf"})["SLURM_CONF"] == "/etc/slurm.conf"


def test_ours_win_over_the_users():
    result = scrubbed({"LC_ALL": "de_DE.ISO-8859-1", "SLURM_TIME_FORMAT": "relative"})
    assert (result["LC_ALL"], result["SLURM_TIME_FORMAT"]) == ("C.UTF-8", "%s")


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "PGPASSWORD", "my_token", "GITHUB_PAT"],
)
def test_secrets_by_name(name):
    assert looks_secret(name)
    assert name not in scrubbed({name: "x"})
    assert scrubbed({name: "x"}, keep=[name])[name] == "x"


@pytest.mark.parametrize("name", ["PATH", "KEYBOARD", "TOKENIZERS_PARALLELISM", "MONKEY", "SSH_AUTH_SOCK"])
def test_harmless_names_stay(name):
    assert scrubbed({name: "x"})[name] == "x"


@pytest.mark.failure(24)
def test_what_a_launcher_of_processes_has_set_does_not_reach_the_job():
    """With RANK=1 in the user's shell the work would take itself for the second process and write no result."""
    left = dict.fromkeys(("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"), "1")
    assert not left.keys() & scrubbed({**left, "HOME": "/home/me"}).keys()
    assert scrubbed(left, keep=["MASTER_PORT"])["MASTER_PORT"] == "1"
