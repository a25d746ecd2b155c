"""How long saves of a state of the shape of a model take, one way after the other; by ``srun``, one task a GPU.

``srun python saves.py OUT DIRECTORY... [--model 3b] [--share 0.4]``: weights and two moments of Adam in fp32, each
spread over the processes, are saved below each DIRECTORY, and removed. ``--share``: of the layers. Rank 0 writes a line
of JSON for each: ``stood`` is what a training would stand for, ``written`` when it is on the disk, ``bytes`` of all.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

from by_hand_trl import meet  # noqa: E402
from inputs import SIZES  # noqa: E402


def state(model: str, share: float) -> tuple[dict[str, Any], int]:
    """Tensors as FSDP2 has them, and their bytes on this process."""
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard

    size, kind = SIZES[model], "cuda" if torch.cuda.is_available() else "cpu"
    mesh, world = init_device_mesh(kind, (dist.get_world_size(),)), dist.get_world_size()
    narrow = size.hidden // size.heads * size.groups
    rows: list[tuple[str, int, int]] = [("embed", size.vocabulary, size.hidden)]
    for layer in range(max(1, int(size.layers * share))):
        wide = {"q": size.hidden, "k": narrow, "v": narrow, "o": size.hidden, "gate": size.ffn, "up": size.ffn}
        rows += [(f"{layer}.{name}", height, size.hidden) for name, height in wide.items()]
        rows += [(f"{layer}.down", size.hidden, size.ffn)]
    found: dict[str, Any] = {}
    for part in ("weight", "exp_avg", "exp_avg_sq"):
        for name, height, width in rows:
            local = torch.rand(height // world, width, device=kind)
            found[f"{part}.{name}"] = DTensor.from_local(local, mesh, [Shard(0)])
    return found, sum(each.to_local().numel() * 4 for each in found.values())


def raw(at: Path, count: int, threads: int) -> None:
    """``count`` bytes by so many threads, with nothing of torch: the most that the directory can take."""
    at.mkdir(parents=True, exist_ok=True)
    block = memoryview(bytearray(64 << 20))

    def write(number: int) -> None:
        with open(at / f"{os.environ['RANK']}-{number}", "wb", buffering=0) as stream:
            for _ in range(count // threads // len(block)):
                stream.write(block)
            os.fsync(stream.fileno())

    team = [threading.Thread(target=write, args=(number,)) for number in range(threads)]
    for one in team:
        one.start()
    for one in team:
        one.join()


def main() -> None:
    """Save by each way, and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("directories", type=Path, nargs="+")
    parser.add_argument("--model", default="3b")
    parser.add_argument("--share", type=float, default=0.4)
    given = parser.parse_args()
    meet()
    import torch
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint._state_dict_stager import StateDictStager

    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(0)
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
    tensors, count = state(given.model, given.share)
    total = torch.tensor(count, dtype=torch.float64)
    dist.all_reduce(total)

    def save(at: Path, crc: bool = True, state: Any = tensors, **more: Any) -> None:
        torch.serialization.set_crc32_options(crc)
        dcp.save({"state": state}, storage_writer=dcp.FileSystemWriter(at, **more))
        torch.serialization.set_crc32_options(True)

    def timed(name: str, at: Path, *steps: Callable[[], None]) -> None:
        """The first of ``steps`` is what a training stands for."""
        shutil.rmtree(at, ignore_errors=True)
        dist.barrier()
        began, took = time.monotonic(), []
        try:
            for step in steps:
                step()
                dist.barrier()
                took.append(round(time.monotonic() - began, 2))
        except Exception as error:
            print(f"{name}: {error}", flush=True)
            raise
        if os.environ["RANK"] == "0":
            found = {"way": name, "where": str(at.parent), "stood": took[0], "written": took[-1], "bytes": int(total)}
            print(json.dumps(found), flush=True)
            with open(given.out, "a") as stream:
                stream.write(json.dumps(found) + "\n")
            shutil.rmtree(at, ignore_errors=True)
        dist.barrier()

    first, *others = given.directories
    for number in range(2):  # the first time the machine may have to be given its memory
        timed(f"nothing of torch, 8 threads, time {number}", first / "save", partial(raw, first / "save", count, 8))
    ways: dict[str, dict[str, Any]] = {
        "8 threads": {"thread_count": 8}, "8 threads, no sums": {"thread_count": 8, "crc": False},
        "16 threads": {"thread_count": 16}, "8 threads, 200 MB ahead":
        {"thread_count": 8, "per_thread_copy_ahead": 200_000_000}, "1 thread": {},
    }  # fmt: skip
    for name, more in ways.items():
        timed(name, first / "save", partial(save, first / "save", **more))
    settled = torch.cuda.synchronize if gpu else dist.barrier
    for pinned in (True, False) if gpu else (False,):
        stager = StateDictStager(pin_memory=pinned)
        copies: dict[str, Any] = {}

        def copy(stager: Any = stager, copies: dict[str, Any] = copies, pinned: bool = pinned) -> None:
            copies["state"] = stager.stage(tensors, non_blocking=pinned)
            settled()

        def write(copies: dict[str, Any] = copies) -> None:
            save(first / "save", state=copies["state"], thread_count=8)

        for number in range(2):
            name = f"copied to {'pinned' if pinned else 'usual'} memory, time {number}"
            timed(name, first / "save", copy, *((write,) if number else ()))
        stager.close()
    for other in others:
        timed("8 threads", other / "save", partial(save, other / "save", thread_count=8))
        timed("8 threads, no fsync", other / "save", partial(save, other / "save", thread_count=8, sync_files=False))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
