"""What the last lines of a training program show: failures that its libraries have no exception type of ours for.

Patterns are the words of torch, NCCL, Ray and NeMo; each class comes with the change that helps.
"""

from __future__ import annotations

import re

from jobs.core.verdict import FailureClass

_PATTERNS: tuple[tuple[FailureClass, str], ...] = (
    (FailureClass.GPU_MEMORY, r"CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED"),
    (FailureClass.COLLECTIVE_TIMEOUT, r"Watchdog caught collective operation timeout|ncclInternalError|"
     r"NCCL error|ncclUnhandledCudaError|ncclSystemError|ncclRemoteError|DistBackendError"),
    (FailureClass.MISSING_GPUS, r"ResourceInsufficientError|No CUDA GPUs are available|no CUDA-capable device|"
     r"Found no NVIDIA driver|Not enough GPUs"),
    (FailureClass.INCOMPLETE_CHECKPOINT, r"CheckpointException|is not a distributed checkpoint|"
     r"No metadata file found in|unfinished checkpoint|PytorchStreamReader failed"),
    (FailureClass.VERSIONS, r"cannot import name|undefined symbol|requires transformers|"
     r"got an unexpected keyword argument|No module named|PydanticUserError|torch\.ops.*has no attribute"),
    (FailureClass.TOKENIZER, r"size mismatch for \S*(embed_tokens|word_embeddings|lm_head|output_layer)|"
     r"index out of range in self|Assertion `srcIndex < srcSelectDimSize` failed|Unable to instantiate HuggingFace"),
    (FailureClass.WRONG_DATA, r"HelpSteer3|GPT2BPETokenizer|MockDataModule"),
    (FailureClass.STORAGE_FULL, r"No space left on device|Disk quota exceeded"),
    (FailureClass.OUT_OF_MEMORY, r"oom-kill|Cannot allocate memory|ray\.exceptions\.OutOfMemoryError"),
)  # fmt: skip

ADVICE = {
    FailureClass.GPU_MEMORY: (
        "halve micro_batch_size; if it is 1, options.recompute: full, then tensor_parallel: 2 (or more GPUs)"
    ),
    FailureClass.COLLECTIVE_TIMEOUT: (
        "a process is slow, gone or waits elsewhere: look for the first error of any rank and for slow storage; "
        "for the network set NCCL_DEBUG: INFO and NCCL_SOCKET_IFNAME in env"
    ),
    FailureClass.MISSING_GPUS: (
        "ask for gpus_per_node in the profile's resources; nvidia-smi on the node shows what is there"
    ),
    FailureClass.VERSIONS: "packages of this environment do not fit each other: docs/backends.md lists sets that ran",
    FailureClass.WRONG_DATA: "the program fell back to a data set of its own: its data keys are of another version",
    FailureClass.INCOMPLETE_CHECKPOINT: "resume: the newest save that verifies is taken",
}
"""What to change, in the words of a pipeline file or a profile."""


def recognise(text: str) -> tuple[FailureClass, str]:
    """Class of a failure and the line that shows it; CODE_ERROR and the last line where nothing is known.

    The first line that matches counts: what follows an out-of-memory error is other ranks that lost their peer.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines:
        for failure, pattern in _PATTERNS:
            if failure is not FailureClass.WRONG_DATA and re.search(pattern, line):
                return failure, _with_advice(failure, line)
    for line in lines:  # data sets are named in harmless lines, too: only where nothing else is known
        if re.search(dict(_PATTERNS)[FailureClass.WRONG_DATA], line):
            return FailureClass.WRONG_DATA, _with_advice(FailureClass.WRONG_DATA, line)
    return FailureClass.CODE_ERROR, lines[-1][:600] if lines else "no output"


def _with_advice(failure: FailureClass, line: str) -> str:
    advice = ADVICE.get(failure)
    return f"{line[:600]}; {advice}" if advice else line[:600]
