"""Which line shows which failure, and where in the log it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.core import budget, symptoms
from jobs.core.symptoms import search, search_log
from jobs.core.verdict import FailureClass

LINES: tuple[tuple[FailureClass | None, str], ...] = (
    (FailureClass.COLLECTIVE_TIMEOUT, "[Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=12) ran for 600001 ms"),
    (FailureClass.COLLECTIVE_TIMEOUT, "RuntimeError: NCCL error in: ProcessGroupNCCL.cpp:2251, unhandled system error"),
    (FailureClass.COLLECTIVE_TIMEOUT, "RuntimeError: [pair.cc:534] Connection closed by peer [10.0.0.2]:41952"),
    (FailureClass.COLLECTIVE_TIMEOUT, "torch.distributed.elastic.rendezvous.api.RendezvousTimeoutError"),
    (FailureClass.COLLECTIVE_TIMEOUT, "torch.distributed.DistStoreError: Timed out after 61 seconds waiting for clients. 1/2"),
    (FailureClass.COLLECTIVE_TIMEOUT, "torch.distributed.DistNetworkError: server socket has failed to listen: Address already in use"),
    (FailureClass.NODE_FAILURE, "srun: error: Node failure on node3"),
    (FailureClass.GPU_MEMORY, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."),
    (FailureClass.GPU_MEMORY, "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
    (FailureClass.OUT_OF_MEMORY, "slurmstepd: error: Detected 1 oom_kill event in StepId=12.0. Some of the step tasks have been OOM Killed."),
    (FailureClass.OUT_OF_MEMORY, "slurmstepd: error: Detected 1 oom-kill event(s) in step 12.batch cgroup."),
    (FailureClass.OUT_OF_MEMORY, "srun: error: node1: task 0: Out Of Memory"),
    (FailureClass.OUT_OF_MEMORY, "slurmstepd: error: Step 12.0 exceeded memory limit (2097152 > 1048576), being killed"),
    (FailureClass.OUT_OF_MEMORY, "RuntimeError: DataLoader worker (pid 4242) is killed by signal: Killed."),
    (FailureClass.OUT_OF_MEMORY, "RuntimeError: [enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory"),
    (FailureClass.STORAGE_FULL, "OSError: [Errno 28] No space left on device: '/scratch/x'"),
    (FailureClass.STORAGE_FULL, "OSError: [Errno 122] Disk quota exceeded"),
    (FailureClass.STORAGE_FULL, "RuntimeError: [enforce fail at inline_container.cc:603] . unexpected pos 64 vs 0"),
    (FailureClass.MISSING_GPUS, "RuntimeError: No CUDA GPUs are available"),
    (FailureClass.MISSING_GPUS, "RuntimeError: CUDA error: invalid device ordinal"),
    (FailureClass.MISSING_GPUS, "Unable to determine the device handle for GPU 0000:3B:00.0: GPU is lost."),
    (FailureClass.VERSIONS, "ImportError: cannot import name 'Cache' from 'transformers.cache_utils'"),
    (FailureClass.VERSIONS, "OSError: /lib/libc.so.6: version `GLIBC_2.34' not found"),
    (FailureClass.VERSIONS, "RuntimeError: CUDA error: no kernel image is available for execution on the device"),
    (FailureClass.VERSIONS, "AssertionError: Torch not compiled with CUDA enabled"),
    (FailureClass.ENVIRONMENT, "overnight: module load cuda/12 failed on node1"),
    (FailureClass.ENVIRONMENT, 'overnight: there is no command "module" on node1, which should load cuda/12'),
    (FailureClass.ENVIRONMENT, "overnight: no scratch directory on node1 (file_systems of the profile): mktemp: failed"),
    (FailureClass.ENVIRONMENT, "/var/spool/slurmd/job00007/slurm_script: line 31: srun: command not found"),
    (FailureClass.ENVIRONMENT, "/w/runs/a/stages/cpt/attempts/t/job.sh: line 31: ibrun: command not found"),
    (FailureClass.ENVIRONMENT, "/w/attempts/t/node.sh: line 40: /venv/bin/python: No such file or directory"),
    (FailureClass.ENVIRONMENT, "slurmstepd: error: execve(): /w/attempts/t/node.sh: Exec format error"),
    (FailureClass.ENVIRONMENT, "slurmstepd: error: couldn't chdir to `/w/runs/a': No such file or directory: going to /tmp instead"),
    (FailureClass.ENVIRONMENT, "python3: error while loading shared libraries: libpython3.11.so.1.0: cannot open shared object file"),
    (FailureClass.ENVIRONMENT, "overnight: host.sh cannot be read on node1: nothing is run"),
    (FailureClass.IMAGE, "slurmstepd: error: pyxis: failed to import docker image: 401 Unauthorized"),
    (FailureClass.IMAGE, "slurmstepd: error: pyxis:     [ERROR] URL https://registry/v2/x returned error code: 401 Unauthorized"),
    (FailureClass.IMAGE, "FATAL:   Unable to pull docker://x: conveyor failed to get: unauthorized"),
    (FailureClass.IMAGE, "FATAL:   could not open image /images/x.sif: failed to retrieve path"),
    (FailureClass.NAMES, "socket.gaierror: [Errno -2] Name or service not known"),
    (FailureClass.NAMES, "[E] The client socket has failed to connect to [node2]:1 (gai error: -3 - Temporary failure in name resolution)."),
    (None, "overnight: verdict evidence=/w/job.sh: line 31: srun: command not found"),
    (None, "data.py: line 3: word not found in the vocabulary"),
    (FailureClass.TOKENIZER, "size mismatch for model.embed_tokens.weight: copying a param of shape (32000, 64)"),
    (FailureClass.INCOMPLETE_CHECKPOINT, "RuntimeError: PytorchStreamReader failed reading zip archive: failed finding central directory"),
    (FailureClass.BAD_CONFIGURATION, "srun: unrecognized option '--nvlink=all'"),
    (FailureClass.BAD_CONFIGURATION, 'srun: error: unrecognized --cpu-bind argument "nonsense"'),
    (FailureClass.BAD_CONFIGURATION, "srun: error: Invalid MPI type 'nope', --mpi=list for acceptable types"),
    (FailureClass.BAD_CONFIGURATION, "srun: error: Unable to create step for job 7: More processors requested than permitted"),
    (None, "srun: error: Unable to create step for job 7: Job/step already completing or completed"),
    (None, "srun: Job 7 step creation temporarily disabled, retrying (Requested nodes are busy)"),
    (FailureClass.BAD_CONFIGURATION, "[rank0]: Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 60"),
    (FailureClass.BAD_CONFIGURATION, "gpu3:29880:30398 [0] init.cc:497 NCCL WARN Duplicate GPU detected : rank 2 and rank 0 both on CUDA device 1000"),
    (FailureClass.BAD_CONFIGURATION, "Bootstrap : no socket interface found"),
    (FailureClass.BAD_CONFIGURATION, "RuntimeError: [enforce fail at gloo/transport/tcp/device.cc:84] ifa != nullptr. Unable to find address for: nope0"),
    (FailureClass.MISSING_GPUS, "ValueError: device_id cuda:0 is out of range. Please use a device index less than the number of accelerators available: 0."),
    (FailureClass.MISSING_GPUS, "RuntimeError: CUDA error: uncorrectable ECC error encountered"),
    (FailureClass.MISSING_GPUS, "RuntimeError: CUDA error: uncorrectable NVLink error detected during the execution"),
    (FailureClass.MISSING_GPUS, "Cuda failure 'uncorrectable ECC error encountered'"),
    (FailureClass.MISSING_GPUS, "Cuda failure 999 'unknown error'"),
    (FailureClass.MISSING_GPUS, "[4123.1] NVRM: Xid (PCI:0000:3b:00): 79, pid=4242, name=python, GPU has fallen off the bus."),
    (FailureClass.MISSING_GPUS, "NVRM: Xid (PCI:0000:89:00): 94, pid=4242, name=python, Contained ECC error"),
    (FailureClass.MISSING_GPUS, "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 803: system has unsupported display driver / cuda driver combination"),
    (FailureClass.MISSING_GPUS, "RuntimeError: CUDA error: all CUDA-capable device(s) is/are busy or unavailable"),
    (None, "NVRM: Xid (PCI:0000:3b:00): 31, pid=4242, name=python, MMU Fault"),
    (FailureClass.VERSIONS, "RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver"),
    (FailureClass.VERSIONS, "RuntimeError: CUDA error: the provided PTX was compiled with an unsupported toolchain."),
    (FailureClass.VERSIONS, "/v/bin/python: Error while finding module specification for 'torch.distributed.run' (ModuleNotFoundError: No module named 'torch')"),
    (FailureClass.ENVIRONMENT, "slurmstepd: error: Could not open stdout file /w/runs/a/logs/7_0.log: No such file or directory"),
    (FailureClass.ENVIRONMENT, "/w/attempts/t/node.sh: line 9: cd: /w/runs/a/stages/cpt: No such file or directory"),
    (FailureClass.ENVIRONMENT, "/w/attempts/t/node.sh: line 40: /v/bin/python: cannot execute binary file: Exec format error"),
    (FailureClass.ENVIRONMENT, "RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of shared memory."),
    (FailureClass.ENVIRONMENT, "misc/shmutils.cc:72 NCCL WARN Error: failed to extend /dev/shm/nccl-x to 9637892 bytes, error: No space left on device (28)"),
    (FailureClass.COLLECTIVE_TIMEOUT, "torch.distributed.DistNetworkError: The client socket has timed out after 5000ms while trying to connect to (127.0.0.1, 29713)."),
    (FailureClass.COLLECTIVE_TIMEOUT, "misc/socket.cc:483 NCCL WARN socketStartConnect: Connect to 10.0.0.2<45763> failed : Connection refused"),
    (FailureClass.COLLECTIVE_TIMEOUT, "misc/socket.cc:49 NCCL WARN socketProgress: Connection closed by remote peer node1<57557>"),
    (FailureClass.COLLECTIVE_TIMEOUT, "misc/socket.cc:518 NCCL WARN Net : Call to recv from 10.2.4.7<58355> failed : Broken pipe"),
    (FailureClass.COLLECTIVE_TIMEOUT, "NCCL WARN NET/IB : Got completion from peer 10.0.35.1<49189> with error 4, opcode 5327, len 5327, vendor err 81 (Send)"),
    (None, "INFO: 3 of 8 GPUs are busy, memory use 71 %"),
    (None, "[NeMo W 2026-11-24 14:12:42 __init__:442] The deploy module could not be imported: cannot import name 'deploy' from x"),
    (None, "loss 2.31, no timeout, no error"),
    (FailureClass.IMAGE, "enroot-mount: failed to mount: /scratch/x.sqsh at /x: Invalid argument"),
    (FailureClass.IMAGE, "[ERROR] No such file or directory: /scratch/x.sqsh"),
    (FailureClass.IMAGE, "docker: Error response from daemon: pull access denied for x, repository does not exist"),
    (FailureClass.IMAGE, "slurmstepd: error: spank_container_engine: failed to pull image"),
    (FailureClass.NAMES, "ping: unknown host node7"),
    (FailureClass.NAMES, "[c10d] The client socket has failed to resolve host node7"),
    (FailureClass.NAMES, "lookup node7 on 10.0.0.1:53: no such host"),
    (FailureClass.ENVIRONMENT, "OSError: libcudart.so.12: cannot open shared object file: No such file or directory"),
    (FailureClass.ENVIRONMENT, "bash: module: command not found"),
    (FailureClass.ENVIRONMENT, "bash: line 7: /apps/bin/srun: No such file or directory"),
    (FailureClass.ENVIRONMENT, "/usr/bin/env: 'python3': No such file or directory"),
    (FailureClass.ENVIRONMENT, "exec: line 3: /shared/venv/bin/python: not found"),
    (FailureClass.ENVIRONMENT, "/shared/venv/bin/python3.11: No such file or directory"),
    (FailureClass.ENVIRONMENT, "ModuleNotFoundError: No module named 'encodings'"),
    (FailureClass.ENVIRONMENT, "Fatal Python error: init_fs_encoding: failed to get the Python codec"),
    (FailureClass.ENVIRONMENT, "Illegal instruction (core dumped)"),
    (FailureClass.ENVIRONMENT, "qemu-aarch64: Could not open '/lib/ld-linux-aarch64.so.1': No such file or directory"),
    (None, "sh: 1: nvcc: not found"),
    (None, "WARNING: [ERROR] is what this log calls a warning"),
    (None, '  File "/dev/shm/w/runs/abcde/code/toolkit/jobs/worker/work.py", line 157, in main'),
    (FailureClass.ENVIRONMENT, "OSError: [Errno 28] No space left on device: '/dev/shm/torch_4242_1'"),
    (FailureClass.VERSIONS, "/v/torch/cuda/__init__.py:174: UserWarning: CUDA initialization: The NVIDIA driver on your system is too old (found version 11040)."),
    (FailureClass.VERSIONS, "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 804: forward compatibility was attempted on non supported HW"),
    (FailureClass.VERSIONS, "node1:77:90 [0] init.cc:910 NCCL WARN Mismatched NCCL version detected : rank 0 version 22005 rank 1 version 21805"),
    (FailureClass.VERSIONS, "ImportError: numpy.core.multiarray failed to import"),
    (FailureClass.VERSIONS, "AttributeError: `np.product` was removed in the NumPy 2.0 release. Use `np.prod` instead."),
    (FailureClass.VERSIONS, "/v/bin/python3: No module named torch"),
    (FailureClass.VERSIONS, "OSError: libcublas.so.12: symbol free_gpu_resources version libcublasLt.so.12 not defined in file"),
    (FailureClass.MISSING_GPUS, "RuntimeError: CUDA unknown error - this may be due to an incorrectly set up environment, e.g. changing env variable CUDA_VISIBLE_DEVICES"),
    (FailureClass.MISSING_GPUS, "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized"),
    (FailureClass.MISSING_GPUS, "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 101: invalid device ordinal"),
    (FailureClass.MISSING_GPUS, "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 304: OS call failed or operation not supported on this OS"),
    (FailureClass.MISSING_GPUS, "Cuda failure 'invalid device ordinal'"),
    (FailureClass.MISSING_GPUS, "Failed to initialize NVML: Unknown Error"),
    (FailureClass.MISSING_GPUS, "ValueError: ProcessGroupNCCL is only supported with GPUs, no GPUs found!"),
    (FailureClass.MISSING_GPUS, "ValueError: Your setup doesn't support bf16/gpu."),
    (FailureClass.MISSING_GPUS, "torch.AcceleratorError: CUDA error: Invalid access of peer GPU memory over nvlink or a hardware error"),
    (FailureClass.MISSING_GPUS, "[1843.30] NVRM: fallen off the bus and is not responding to commands."),
    (FailureClass.MISSING_GPUS, "NVRM: Xid (0000:03:00): 48, An uncorrectable double bit error (DBE) has been detected on GPU (00 00 00)."),
    (FailureClass.MISSING_GPUS, "NVRM: Xid (PCI:0000:01:00): 149, NETIR_LINK_EVT Fatal XC0 i0 Link 00 (0x026001c6 0x00000000)"),
    (None, "NVRM: Xid (PCI:0000:01:00): 144, SAW_MVB Nonfatal XC0 i0 Link 0 (0x00000001 0x00000008)"),
    (None, "torch.AcceleratorError: CUDA error: an illegal memory access was encountered"),
    (FailureClass.GPU_MEMORY, "node1:77:90 [0] NCCL WARN Cuda failure 'out of memory'"),
    (FailureClass.GPU_MEMORY, "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 2: out of memory"),
    (FailureClass.COLLECTIVE_TIMEOUT, "transport/net_ib.cc:1295 NCCL WARN NET/IB : Got completion with error 12, opcode 32600, len 0, vendor err 129"),
    (FailureClass.COLLECTIVE_TIMEOUT, "misc/socket.cc:484 NCCL WARN socketStartConnect: exceeded retries (20000)"),
    (FailureClass.COLLECTIVE_TIMEOUT, "RuntimeError: Timeout waiting for key: default_pg/0/0 after 1800000 ms"),
    (FailureClass.COLLECTIVE_TIMEOUT, "RuntimeError: Socket Timeout"),
    (FailureClass.COLLECTIVE_TIMEOUT, "RuntimeError: NCCL communicator was aborted on rank 3."),
    (FailureClass.COLLECTIVE_TIMEOUT, "RuntimeError: Gloo connectFullMesh failed with [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:144] no error"),
    (FailureClass.ENVIRONMENT, "misc/ibvwrap.cc:252 NCCL WARN Call to ibv_reg_mr failed with error Cannot allocate memory"),
    (FailureClass.ENVIRONMENT, "/bin/sh: 1: /shared/venv/bin/python: not found"),
    (FailureClass.ENVIRONMENT, "-bash: /shared/venv/bin/python: /usr/bin/python3.11: bad interpreter: No such file or directory"),
    (FailureClass.ENVIRONMENT, "/v/bin/python: can't open file '/w/runs/a/code/toolkit/overnight_job.py': [Errno 2] No such file or directory"),
    (FailureClass.ENVIRONMENT, "FATAL:   container creation failed: mount /w->/w error: while mounting /w: mount source /w doesn't exist"),
    (FailureClass.ENVIRONMENT, "Error: statfs /w: no such file or directory"),
    (FailureClass.ENVIRONMENT, 'docker: Error response from daemon: invalid mount config for type "bind": bind source path does not exist: /w.'),
)  # fmt: skip


@pytest.mark.parametrize(("failure", "line"), LINES)
def test_a_line_shows_its_failure(failure: FailureClass | None, line: str) -> None:
    found = search(["step 1", line, "step 2"])
    assert (None if found is None else found.failure) is failure
    assert found is None or (found.line, found.number) == (line, 2)


def test_the_cause_counts_and_not_what_followed_from_it(tmp_path: Path) -> None:
    """Rank 0 says first that its peer has gone; the peer's node says later why."""
    log = tmp_path / "12_0.log"
    lines = [*["padding"] * 50_000, LINES[2][1], "overnight: verdict CUDA out of memory", LINES[9][1], LINES[0][1]]
    log.write_text("\n".join(lines) + "\n" + "x" * 30)
    found = search_log(log)
    assert found is not None
    assert (found.failure, found.number) == (FailureClass.OUT_OF_MEMORY, 50_003)
    assert log.read_text().splitlines()[found.number - 1] == found.line


def test_line_numbers_are_those_of_the_whole_file(tmp_path: Path) -> None:
    log = tmp_path / "12_0.log"
    log.write_text("a line of twenty bytes\n" * 200_000 + LINES[7][1] + "\n")
    assert log.stat().st_size > symptoms.LOG_BYTES
    found = search_log(log)
    assert found is not None
    assert found.number == 200_001
    assert symptoms.place_of(log, LINES[7][1]) == f"{log}:200001"
    assert symptoms.place_of(tmp_path / "none", "x") == ""


def test_of_an_image_the_line_with_the_reason_counts() -> None:
    lines = [
        "slurmstepd: error: pyxis: child 12 failed with error code: 1",
        "slurmstepd: error: pyxis: failed to import docker image",
        "slurmstepd: error: pyxis: printing enroot log file:",
        "slurmstepd: error: pyxis:     [ERROR] URL https://registry/v2/x returned error code: 401 Unauthorized",
        "slurmstepd: error: spank: required plugin spank_pyxis.so: task_init() failed with rc=-1",
        "srun: error: node1: task 0: Exited with exit code 1",
    ]
    found, without = search(lines), search(lines[:2])
    assert found is not None
    assert without is not None
    assert (found.failure, found.number) == (FailureClass.IMAGE, 4)
    assert (without.failure, without.number) == (FailureClass.IMAGE, 1)


DUPLICATE = (
    "[rank0]: torch.distributed.DistBackendError: NCCL error in: NCCLUtils.cpp:93, invalid usage (run with NCCL_DEBUG=WARN "
    "for details), NCCL version 2.28.9",
    "[rank0]: ncclInvalidUsage: This usually reflects invalid usage of NCCL library.",
    "[rank0]: Last error:",
    "[rank0]: Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 60",
)  # fmt: skip
"""What two processes on one H200 really said."""


@pytest.mark.parametrize(("lines", "number"), [(DUPLICATE, 4), (DUPLICATE[:3], 1)])
def test_of_a_wrong_use_of_nccl_its_own_reason_counts(lines: tuple[str, ...], number: int) -> None:
    found = search(["RuntimeError: Connection closed by peer [10.0.0.2]:41952", *lines])
    assert found is not None
    assert (found.failure, found.number) == (FailureClass.BAD_CONFIGURATION, 1 + number)
    assert budget.allowed(found.failure, {}) == 0


@pytest.mark.failure(19)
def test_of_a_log_that_two_jobs_of_one_id_have_written_the_last_start_counts(tmp_path: Path) -> None:
    """A controller that lost its state gives ids again, and a log is written behind what is there."""
    log = tmp_path / "7_0.log"
    begin = "overnight: cpt job 7 restart 0 on node1 at 2026-11-{day}T03:00:00Z\n"
    log.write_text(
        f"{begin.format(day=1)}torch.OutOfMemoryError: CUDA out of memory\n{begin.format(day=2)}all is well\n"
    )
    assert symptoms.search_log(log) is None
    assert symptoms.place_of(log, "torch.OutOfMemoryError: CUDA out of memory") == str(log)
    with open(log, "a") as stream:
        stream.write("ModuleNotFoundError: No module named 'trl'\n")
    found = symptoms.search_log(log)
    assert found is not None
    assert (found.failure, found.number) == (FailureClass.VERSIONS, 5)


@pytest.mark.parametrize(
    "line",
    [
        "Backend impl 'liger_kernel.ops.backends._ascend.rope' for op 'rope' could not be imported: ImportError: cannot import "
        "name 'tanh' from 'triton.language.math' (/opt/site-packages/triton/language/math.py)",
        "/opt/x.py:3: UserWarning: No module named 'apex'; falling back",
        "2026-11-30 WARNING transformers: cannot import name 'x'",
    ],
)
def test_what_a_package_does_without_is_no_symptom(line: str) -> None:
    assert symptoms.search([line]) is None
    real = "ImportError: cannot import name 'GemmaConfig' from 'transformers'"
    found = symptoms.search([line, real])
    assert found is not None
    assert (found.failure, found.number) == (FailureClass.VERSIONS, 2)


def test_a_command_that_searches_no_log_compiles_no_pattern() -> None:
    code = "import launch.status.assess; from jobs.core import symptoms as s; print(s._compiled.cache_info().currsize)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "0\n"
