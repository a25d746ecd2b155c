"""Which file system the workspace is put on, and quotas."""

from __future__ import annotations

import pytest

from launch.site import storage
from launch.site.storage import StorageArea
from launch.slurm.ask import Response


def test_the_workspace_is_on_a_file_system_that_nodes_share() -> None:
    home = StorageArea("HOME", "/home/me", True, "nfs4", 10)
    scratch = StorageArea("SCRATCH", "/scratch/me", True, "lustre", 10**15)
    full = StorageArea("WORK", "/work/me", False, "gpfs", 10**15)
    local = StorageArea("DATA", "/data", True, "xfs", 10**15)
    assert storage.best([full, scratch, home]) is scratch
    assert storage.best([full, local, home]) is home
    assert storage.best([full, StorageArea("SCRATCH", "/tmp/me", True, "ext4"), local]) is local
    assert storage.best([full]) is None
    assert list(
        storage.named({"HOME": "/h", "SCRATCH": "/h", "WORK": "not a path", "DATA": "/d$x", "PROJECT": "/p"})
    ) == ["SCRATCH", "PROJECT"]


@pytest.mark.parametrize(
    ("kind", "text", "quota", "used"),
    [
        ("lustre", "/scratch/me 1048576 0 10737418240 - 12 0 0 -\n", 10 << 40, 1 << 30),
        ("lustre", "/scratch/me\n     10737418241* 10737418240 0 - 12 0 0 -\n", 10 << 40, (10 << 40) + 1024),
        ("lustre", "/scratch/me 1048576 0 0 - 12 0 0 -\n", None, 0),
        (
            "nfs4",
            "Disk quotas for user me (uid 7):\n Filesystem blocks quota limit grace files quota limit grace\nserver:/export 2048 0 4096 0 9 0 0 0\n",
            4 << 20,
            2 << 20,
        ),
        ("nfs4", "Disk quotas for user me (uid 7): none\n", None, 0),
    ],
)
def test_quotas(kind: str, text: str, quota: int | None, used: int) -> None:
    place = StorageArea("SCRATCH", "/scratch/me", True, kind, 10**15, source="server:/export")
    assert list(storage.quota_questions([place], "me")) == ["SCRATCH"]
    (found,) = storage.with_quotas([place], {"SCRATCH": Response("quota", text)})
    assert (found.quota, found.used) == (quota, used)
    (same,) = storage.with_quotas([place], {"SCRATCH": Response("quota", None, "there is no quota on this machine")})
    assert same == place
