"""Whether there is room for the checkpoints of a stage: said before the work begins, with numbers.

Two checkpoints have to fit beside what is there: the next save before an old one may go, and the finished output; one
more where the best save is kept beside the newest. The size is that of the stage's own newest save; before the first
one it is estimated from the sealed parent.
"""

from __future__ import annotations

import os
from pathlib import Path

from jobs.core import safetensors, seal_index
from jobs.core.paths import StorePaths, Workspace
from jobs.core.spec import StageSpec

OPTIMIZER_FACTOR = {"F32": 3.0, "BF16": 7.0, "F16": 7.0}
"""Size of a training save over that of its weights, by the type in which the weights lie: Adam keeps two moments in
fp32, and weights of 2 bytes are trained with a master copy in fp32 (2 + 4 + 4 + 4 bytes for 2; Kingma and Ba 2015,
https://arxiv.org/abs/1412.6980, and Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740)."""


def lack(spec: StageSpec) -> str | None:
    """What is missing, in words with numbers; None where there is room or the stage writes no checkpoints."""
    if not spec.trains:
        return None
    size, basis = checkpoint_bytes(spec)
    store = spec.store_paths
    wanted = 3 if spec.settings.get("select") == "best" else 2
    if every := spec.settings.get("keep_every"):
        wanted += (spec.target_step or 0) // int(every)
    count = max(1, wanted - len(store.sealed_steps()))
    free, where = _free(store, spec.quota_bytes)
    if count * size <= free:
        return None
    return (
        f"{count} checkpoint(s) of {_words(size)} ({basis}) do not fit: {where} has {_words(max(0, free))} "
        f"left; make room there, then resume"
    )


def checkpoint_bytes(spec: StageSpec) -> tuple[int, str]:
    """Size of a save of the stage, and what that is known from."""
    for step in spec.store_paths.sealed_steps()[:1]:
        return seal_index.sealed_bytes(spec.store_paths.save_seal(step)), f"as its save at step {step}"
    parent = spec.inputs.get("checkpoint")
    if parent is None:
        return 0, "nothing to go by"
    weights = seal_index.sealed_bytes(parent.paths.seal)
    factor = _factor(parent.output)
    return int(weights * factor), f"{factor:g} times the {_words(weights)} of stage {parent.stage!r}"


def _factor(directory: Path) -> float:
    """By the type of the first tensor of a safetensors file; 1 where there is none (no optimizer that we know of)."""
    for path in sorted(directory.glob("*.safetensors")):
        try:
            dtypes = safetensors.header(path).dtypes
        except (OSError, ValueError):
            return 1.0
        if dtypes:
            return OPTIMIZER_FACTOR.get(dtypes[0], 1.0)
    return 1.0


def _free(store: StorePaths, quota: int | None) -> tuple[int, str]:
    """Bytes that may still be written, and by whose word: the file system's, or the quota's if that is less."""
    status = os.statvfs(store.root)
    free = status.f_bavail * status.f_frsize
    if quota is None:
        return free, f"the file system of {store.root}"
    left = quota - used_bytes(store.root.parent)
    where = f"the quota of {_words(quota)} (profile) for {store.root.parent}"
    return (left, where) if left < free else (free, f"the file system of {store.root}")


def used_bytes(directory: Path) -> int:
    """Bytes of all sealed things in the store, by their seals: walking all files would take minutes on Lustre. Of a
    sealed entry the saves count that stay for a curve."""
    index = seal_index.read(Workspace(directory.parent))
    return index.bytes + sum(seal_index.saved_bytes(StorePaths(directory / name)) for name in index.unsealed)


def _words(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
