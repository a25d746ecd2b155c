"""Pending reasons in plain words."""

import pytest

from launch.slurm import reasons

# Limits that libslurm 22.05 knows (strings of the library), all of those put together by rule.
LIMITS = """\
AssocGrpBB AssocGrpBBMinutes AssocGrpBBRunMinutes AssocGrpBilling AssocGrpCPUMinutesLimit AssocGrpCPURunMinutesLimit
AssocGrpCpuLimit AssocGrpEnergy AssocGrpGRES AssocGrpGRESMinutes AssocGrpGRESRunMinutes AssocGrpJobsLimit
AssocGrpLicense AssocGrpMemLimit AssocGrpMemMinutes AssocGrpMemRunMinutes AssocGrpNodeLimit AssocGrpNodeMinutes
AssocGrpNodeRunMinutes AssocGrpSubmitJobsLimit AssocGrpUnknown AssocGrpWallLimit AssocMaxBBPerNode
AssocMaxCpuMinutesPerJobLimit AssocMaxCpuPerJobLimit AssocMaxCpuPerNode AssocMaxGRESPerJob AssocMaxGRESPerNode
AssocMaxJobsLimit AssocMaxMemPerJob AssocMaxNodePerJobLimit AssocMaxSubmitJobLimit AssocMaxWallDurationPerJobLimit
MaxCpuPerAccount MaxGRESPerAccount MaxJobsPerAccount MaxMemoryPerAccount MaxNodePerAccount MaxSubmitJobsPerAccount
QOSGrpCPUMinutesLimit QOSGrpCpuLimit QOSGrpGRES QOSGrpJobsLimit QOSGrpMemLimit QOSGrpMemoryMinutes QOSGrpNodeLimit
QOSGrpSubmitJobsLimit QOSGrpWallLimit QOSMaxCpuMinutesPerJobLimit QOSMaxCpuPerJobLimit QOSMaxCpuPerNode
QOSMaxCpuPerUserLimit QOSMaxGRESMinutesPerJob QOSMaxGRESPerUser QOSMaxJobsPerUserLimit QOSMaxMemoryPerUser
QOSMaxNodePerJobLimit QOSMaxNodePerUserLimit QOSMaxSubmitJobPerUserLimit QOSMaxWallDurationPerJobLimit
QOSMinCpuNotSatisfied QOSMinGRES QOSMinMemory QOSMinNode
"""


@pytest.mark.parametrize("name", LIMITS.split())
def test_every_limit_is_read_whole(name):
    words = reasons.describe(name)
    assert words.startswith("waits: ")
    assert words.endswith(f": {name}")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("QOSMaxJobsPerUserLimit", "waits: the QOS limits running jobs (per user): QOSMaxJobsPerUserLimit"),
        (
            "AssocGrpGRESRunMinutes",
            "waits: your account limits GPU-minutes of running jobs (all its jobs together): AssocGrpGRESRunMinutes",
        ),
        ("QOSMinGRES", "waits: the QOS requires more GPUs or other generic resources (at least, per job): QOSMinGRES"),
        ("Dependency", "waits for an earlier stage"),
        ("(Priority)", "jobs of higher priority are ahead of it"),
        (
            "ReqNodeNotAvail, UnavailableNodes:node[3-4],node9",
            "a node that it needs is down, drained or reserved (UnavailableNodes:node[3-4],node9)",
        ),
        (
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
            "nodes that it needs are down, drained or reserved for partitions of higher priority",
        ),
        ("SomethingOf2030, with detail", "SomethingOf2030, with detail"),
        ("", ""),
    ],
)
def test_in_words(reason, words):
    assert reasons.describe(reason) == words


def test_text_without_a_limit():
    assert reasons.limit_in_words("sbatch: error: MaxNodeCount reached at NodeMaxTime") is None
