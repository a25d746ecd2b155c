"""What the last lines of a training program show: failures that its libraries have no exception type of ours for.

Patterns are the words of torch, NCCL, gloo, Ray, NeMo, CUDA, the kernel and Slurm; each class comes with the change
that helps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jobs.core.verdict import FailureClass

_OWN = (r"overnight: (module load .* failed on|there is no command|no scratch directory|host\.sh has not prepared|"
        r".*: nothing is run$)")  # fmt: skip
"""What our scripts say of a node on which the work cannot begin. Their other words quote what they judge."""

_NO_MOUNT = (r"enroot-mount: failed to mount: \S+ at .*No such file or directory|mount source \S+ doesn't exist|"
             r"bind source path does not exist|statfs \S+: no such file or directory|"
             r"pyxis: couldn't mount .*No such file or directory")  # fmt: skip
"""A directory that a container is to have, and that the node does not."""

_SHARED = (r"/dev/shm/(nccl|torch_|sem\.|psm|plasma)|/dev/shm\W.*(full|too small|No space left)|"
           r"No space left on device.*/dev/shm\b|shared memory \(shm\)|out of shared memory|posix_fallocate failed|"
           r"unable to \w+ .*</torch_")  # fmt: skip
_INTERFACE = (r"no socket interface found|Unable to find (address|interface) for|unsupported gloo device|"
              r"is neither AF_INET")  # fmt: skip
_LOCKED = r"\bibv_\w+ failed\b.*Cannot allocate memory"
_OLD_DRIVER = (r"CUDA driver version is insufficient|NVIDIA driver on your system is too old|unsupported toolchain|"
               r"forward compatibility was attempted")  # fmt: skip
_BROKEN = (r"GPU is lost|fallen off the bus|uncorrectable (ECC|NVLink) error|"
           r"Failed to initialize NVML: (Driver|Unknown)|"
           r"Unable to determine the device handle|[Uu]nsupported display driver|system not yet initialized|"
           r"device\(s\) is/are busy or unavailable|C(UDA|uda) (error|failure)\W+(\d+\W+)?unknown error|"
           r"CUDA unknown error|OS call failed or operation not supported|hardware stack error|"
           r"nvlink or a hardware error|NVML\b.*Driver Not Loaded|nvmlInit failed|"
           r"\bXid \(.*: (46|48|6[1-4]|74|79|9[245]|119|120|140|143),|"
           r"\bXid \(.*: 1(4[4-9]|50),.*\bFatal\b")  # fmt: skip
"""What a GPU, or the driver of its node, says that is out of order; of Xids those that no program brings about
(https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html)."""

_LOST_NODE = re.compile(r"^srun: error: Node failure on (\S+)")

_PATTERNS: tuple[tuple[FailureClass, str], ...] = (
    (FailureClass.ENVIRONMENT, _NO_MOUNT),
    # Of an image's log the line that says why; the others only where there is none (_VAGUE).
    (FailureClass.IMAGE, r"(pyxis|enroot|podman|docker|apptainer)\b.*(\[ERROR\]|[Uu]nauthorized|manifest unknown)|"
     r"returned error code: [45]\d\d|^FATAL: .*(image|container|pull|build|registry|squashfs)|"
     r"^Error: .*(pulling|initializing) (image|source)|toomanyrequests|pyxis: .*failed to import \S+ image\W+\w|"
     r"pyxis: (couldn't|failed to|child)|spank: .*failed|^enroot-\w+: failed|\[ERROR\] .*\.(sqsh|sqfs|sif)\b|"
     r"Error response from daemon: .*(pull|manifest|image)|spank_\w+: .*(image|pull)"),
    (FailureClass.ENVIRONMENT, _OWN + r"|error while loading shared libraries|Exec format error|"
     r"\.so[\w.]*: cannot open shared object file|^Illegal instruction|^qemu-\w+: Could not open|"
     r"^-?(\S*/)?bash: (line \d+: )?(module|srun|/\S+/(srun|python[\d.]*)): |"
     r"^(\S*/)?env: \S+: No such file or directory|"
     r"^((exec: line|(\S*/)?(da)?sh:) \d+: )?/\S+/python[\d.]*: (not found|No such file or directory)|"
     r"can't open file '\S*/overnight_job\.py'|No module named 'encodings'|"
     r"Fatal Python error: (init_fs_encoding|init_import_site)|"
     r"cannot execute binary file|error: execve\(\)|couldn't chdir to|Lmod has detected the following error|"
     r"^\S*(slurm_script|(job\S*|host|node)\.sh): line \d+: .*"
     r"(not found|No such file or directory|cannot execute|Permission denied)|"
     r"Unable to locate a modulefile|error: Unable to find environment|Could not open std(out|err) file|" + _LOCKED
     + "|" + _SHARED),
    (FailureClass.NAMES, r"Name or service not known|unknown host|failed to resolve host|"
     r"[Nn]o such host( is known)?\b|Temporary failure in name resolution|"
     r"No address associated with hostname|nodename nor servname provided|Could not resolve host"),
    (FailureClass.NODE_FAILURE, _LOST_NODE.pattern),
    (FailureClass.GPU_MEMORY, r"CUDA out of memory|torch\.(cuda\.)?OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED|"
     r"CUDA error: out of memory|cudaGetDeviceCount\(\).*: out of memory|cudaErrorMemoryAllocation|"
     r"Cuda failure (\d+ )?'out of memory'"),
    (FailureClass.OUT_OF_MEMORY, r"oom[-_]kill|Cannot allocate memory|ray\.exceptions\.OutOfMemoryError|"
     r"Out [Oo]f [Mm]emory: Killed process|task \d+: Out Of Memory|exceeded (job |step )?memory limit|"
     r"can't allocate memory|^MemoryError\b|std::bad_alloc|"
     r"DataLoader worker \(pid\S* \d+\) is killed by signal: Killed|"
     r"Unable to allocate .* for an array"),
    (FailureClass.STORAGE_FULL, r"No space left on device|Disk quota exceeded|unexpected pos \d+ vs \d+|"
     r"PytorchStreamWriter failed writing file"),
    (FailureClass.MISSING_GPUS, r"ResourceInsufficientError|No CUDA GPUs are available|no CUDA-capable device|"
     r"Found no NVIDIA driver|Not enough GPUs|\binvalid device ordinal|device_id \S+ is out of range|no GPUs found!|"
     r"Your setup doesn't support bf16/gpu|" + _BROKEN),
    (FailureClass.INCOMPLETE_CHECKPOINT, r"CheckpointException|is not a distributed checkpoint|"
     r"No metadata file found in|unfinished checkpoint|PytorchStreamReader failed|"
     r"SafetensorError: .*(header|incomplete)|MetadataIncompleteBuffer"),
    (FailureClass.VERSIONS, r"cannot import name|undefined symbol|requires transformers|"
     r"got an unexpected keyword argument|No module named|PydanticUserError|torch\.ops.*has no attribute|"
     r"version `(GLIBC|GLIBCXX|CXXABI)_\S+' not found|no kernel image is available for execution|"
     r"Torch not compiled with CUDA enabled|Mismatched NCCL version|symbol \S+,? version \S+ not defined|"
     r"numpy\.core\.multiarray failed to import|was removed in the NumPy 2|module 'numpy' has no attribute|"
     r"ValueError: numpy\.\w+ size changed|" + _OLD_DRIVER),
    (FailureClass.TOKENIZER, r"size mismatch for \S*(embed_tokens|word_embeddings|lm_head|output_layer)|"
     r"index out of range in self|Assertion `srcIndex < srcSelectDimSize` failed|Unable to instantiate HuggingFace"),
    (FailureClass.BAD_CONFIGURATION, r"Duplicate GPU detected|NCCL error in: .*, invalid usage|"
     r"ncclInvalid(Usage|Argument)|" + _INTERFACE),
    (FailureClass.COLLECTIVE_TIMEOUT, r"Watchdog caught collective operation timeout|ncclInternalError|"
     r"NCCL error|ncclUnhandledCudaError|ncclSystemError|ncclRemoteError|DistBackendError|"
     r"DistNetworkError|DistStoreError|Rendezvous\w*Error|RendezvousTimeout|Connection (reset|closed) by peer|"
     r"Connection refused|Timed out waiting .*(clients|ranks|recv|send)|failed to connect to .*:\d+|"
     r"Address already in use|monitoredBarrier|Broken pipe.*(store|Store)|No route to host|"
     r"Connection timed out|Connection closed by remote peer|NCCL WARN .*(Call|Connect) to .*failed|"
     r"Got completion (from peer|with error)|there was a network error|NCCL WARN .*exceeded retries|"
     r"NCCL communicator was aborted|Some NCCL operations have failed or timed out|Timeout waiting for key|"
     r"RuntimeError: Socket Timeout|/gloo/transport/|Application timeout caused pair closure"),
    # What srun says before it starts anything; not that nodes are busy or do not answer, which passes.
    (FailureClass.BAD_CONFIGURATION, r"^srun: (unrecognized option|option '--|unknown option|invalid option|"
     r"error: (unrecognized --|Invalid --|Invalid numeric value .* for --|Invalid MPI type)|fatal: Failed to parse --|"
     r"error: Unable to create step for job \d+: (More processors requested|Memory required by task|"
     r"Invalid generic resource|Requested node configuration|Invalid Trackable|Invalid feature))"),
    (FailureClass.WRONG_DATA, r"HelpSteer3|GPT2BPETokenizer|MockDataModule"),
)  # fmt: skip

_VAGUE = (
    r"pyxis: (child|failed to import \S+ image\W*$|couldn't start)|spank: .*failed|Lmod has detected|"
    r"Unable to locate a module|NCCL error in|ncclInvalid"
)
"""Lines of a cause that name it less well than others do."""

CONSEQUENCES = frozenset({
    FailureClass.COLLECTIVE_TIMEOUT, FailureClass.KILLED, FailureClass.CODE_ERROR, FailureClass.WRONG_DATA,
})  # fmt: skip
"""Classes that other failures bring about: a process that has lost its peer knows nothing of why the peer has gone."""

ADVICE = {
    FailureClass.GPU_MEMORY: (
        "it has to need less: a smaller micro_batch_size, recomputation, a model split over GPUs, or more of them"
    ),
    FailureClass.OUT_OF_MEMORY: "ask for more mem in the profile's resources, or for more nodes",
    FailureClass.COLLECTIVE_TIMEOUT: (
        "a process is slow, gone or waits elsewhere: look for the first error of any rank and for slow storage; "
        "for the network set NCCL_DEBUG: INFO and NCCL_SOCKET_IFNAME in env"
    ),
    FailureClass.MISSING_GPUS: (
        "ask for gpus_per_node in the profile's resources; nvidia-smi on the node shows what is there"
    ),
    FailureClass.VERSIONS: (
        "packages of this environment do not fit each other: name one with a set that ran (docs/backends.md) in "
        "environments of the profile"
    ),
    FailureClass.ENVIRONMENT: (
        "what this line names is not on that node: change workspace, modules, setup, environments or env of the profile"
    ),
    FailureClass.IMAGE: (
        "look whether a node can fetch this image (its name, credentials on the nodes), or fetch it to a file and name "
        "that in environments or resources of the profile"
    ),
    FailureClass.NAMES: (
        "a node must know the names of the others: getent hosts NAME there, and tell the site; a name of the internet "
        "cannot be reached from most nodes, so fetch what is needed before"
    ),
    FailureClass.TOKENIZER: (
        "give the stage the environment that made its checkpoint (environments in the profile), or a base model with "
        "its own tokenizer files: ids and embeddings must be of one vocabulary"
    ),
    FailureClass.WRONG_DATA: (
        "the program fell back to a data set of its own, since it does not know the keys it was given: name an "
        "environment with a version that is known (docs/backends.md) in environments of the profile"
    ),
    FailureClass.INCOMPLETE_CHECKPOINT: "resume: the newest save that verifies is taken",
    FailureClass.STORAGE_FULL: "free space on the file system of the workspace; the newest save that verifies is kept",
}
"""What to change, in the words of a pipeline file or a profile."""

_HINTS = (
    ("Duplicate GPU detected", "two processes got the same GPU: leave CUDA_VISIBLE_DEVICES out of env and setup of the "
     "profile, and ask for as many gpus_per_node as processes_per_node"),
    (_INTERFACE, "NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME in env of the profile names no interface of that node; "
     "there, ip -br address lists them"),
    ("No module named", "install it into the environment of this back end, or name one that has it in environments of "
     "the profile"),
    (_OLD_DRIVER, "the driver of that node is older than the CUDA of these packages: name an environment with a torch "
     "for an older CUDA in environments of the profile, or nodes with a newer driver (constraint)"),
    (_LOCKED, "memory that may be locked is limited on that node (ulimit -l), which RDMA needs: tell the site"),
    (_NO_MOUNT, "that node lacks a directory that the container mounts (the workspace, or one of mounts in "
     "the profile): look on the node, and tell the site"),
    (_SHARED, "/dev/shm of that node, or of its container, is too small: options of the container in the profile"),
    (_BROKEN, "a GPU of that node, or its driver, is faulty: tell the site; after two failures there the stage "
     "excludes the node"),
)  # fmt: skip
"""What a line says better than its class; the first that it matches."""

LOG_BYTES = 1 << 20
"""How much of the end of a log is searched."""


@dataclass(frozen=True)
class Symptom:
    """A class and the line that shows it; ``number`` counts lines from 1 in what was searched."""

    failure: FailureClass
    line: str
    number: int


@cache
def _compiled() -> tuple[tuple[FailureClass, re.Pattern[str]], ...]:
    """At the first search: compiling takes longer than most of what imports this module without one."""
    return tuple((failure, re.compile(pattern)) for failure, pattern in _PATTERNS)


def search(lines: Iterable[str]) -> Symptom | None:
    """The cause in ``lines``; None where nothing is known.

    The first line of a cause counts, and only where there is none the first of a consequence: of many ranks the one
    that ran out of memory may speak after those that lost it.
    """
    consequence: Symptom | None = None
    vague: Symptom | None = None
    data: Symptom | None = None  # data sets are named in harmless lines, too: only where nothing else is known
    for number, raw in enumerate(lines, start=1):
        line = raw.strip()
        # NeMo warns at every start of what it cannot import ("cannot import name 'deploy'"), and goes on.
        if line.startswith(("[NeMo W ", "[NeMo I ")) or (line.startswith("overnight: ") and not re.match(_OWN, line)):
            continue
        failure = next((failure for failure, pattern in _compiled() if pattern.search(line)), None)
        if failure is None or (failure is FailureClass.VERSIONS and _goes_on(line)):
            continue
        found = Symptom(failure, line[:600], number)
        if re.search(_VAGUE, line):
            vague = vague or found
            continue
        if failure not in CONSEQUENCES:
            return found
        if failure is FailureClass.WRONG_DATA:
            data = data or found
        else:
            consequence = consequence or found
    return vague or consequence or data


def node_in(line: str) -> str:
    """The node that a line says is lost; empty where it says none."""
    found = _LOST_NODE.match(line)
    return found[1] if found else ""


def search_log(path: Path) -> Symptom | None:
    """``search`` in the end of a log file; the number is that of the whole file."""
    lines, before = _end_of(path)
    found = search(lines)
    return None if found is None else Symptom(found.failure, found.line, found.number + before)


def place_of(path: Path, text: str) -> str:
    """``file:line`` of the last line of a log that holds the first line of ``text``; the file alone where none does,
    and nothing where there is no file."""
    wanted = next((line.strip() for line in text.splitlines() if line.strip()), "")
    lines, before = _end_of(path)
    for number in range(len(lines), 0, -1):
        if wanted and wanted in lines[number - 1] and not lines[number - 1].startswith("overnight: "):
            return f"{path}:{before + number}"
    return str(path) if path.exists() else ""


_GOES_ON = re.compile(r"could not be imported: |\bWARN(ING)?\b|Warning: ")


def _goes_on(line: str) -> bool:
    """Whether a package tells what it cannot import, and works without it (kernels of other machines, optional parts).

    What torch warns of the driver, and NCCL of itself, is what ends a work on GPUs.
    """
    return bool(_GOES_ON.search(line)) and not re.search(rf"{_OLD_DRIVER}|\bNCCL WARN ", line)


_BEGIN = re.compile(r"overnight: \S+ job \S+ restart \d+ on .* at \d{4}-")
"""The first line of a start. Ids of jobs are given again where a controller has lost its state, and the log of the new
job is that of the old one, too."""


def _end_of(path: Path) -> tuple[list[str], int]:
    """Whole lines at the end of a file, of its last start alone, and how many lines stand before them."""
    try:
        with open(path, "rb") as stream:
            size = stream.seek(0, 2)
            start = max(0, size - LOG_BYTES)
            before = 0
            stream.seek(0)
            while start and stream.tell() < start:
                before += stream.read(min(1 << 20, start - stream.tell())).count(b"\n")
            if start:
                stream.readline()  # the rest of a line that was cut
                before += 1
            lines = stream.read().decode(errors="replace").splitlines()
            begun = max((number for number, line in enumerate(lines) if _BEGIN.match(line)), default=0)
            return lines[begun:], before + begun
    except OSError:
        return [], 0


def recognise(text: str) -> tuple[FailureClass, str]:
    """Class of a failure and the line that shows it, with advice; CODE_ERROR and the last line where nothing is
    known."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = search(lines)
    if found is None:
        return FailureClass.CODE_ERROR, lines[-1][:600] if lines else "no output"
    return found.failure, with_advice(found.failure, found.line)


def hint(line: str) -> str:
    """What helps against the failure that ``line`` shows, where it tells more than its class; else empty."""
    return next((text for pattern, text in _HINTS if re.search(pattern, line)), "")


def with_advice(failure: FailureClass, line: str) -> str:
    """The line, and what helps where that is known."""
    advice = hint(line) or ADVICE.get(failure)
    return f"{line[:600]}; {advice}" if advice else line[:600]
