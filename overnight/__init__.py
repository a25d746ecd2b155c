"""Overnight from Python: the commands of ``overnight`` as functions and values (docs/api.md).

Nothing of torch, transformers or NeMo is imported, and no Slurm command is started before it is needed.
"""

from launch import __version__
from launch.api.chain import Chain, ChainPlan, StageOutlook, pipeline
from launch.api.curve import TrainingCurve
from launch.api.handle import Comparison, RunHandle, compare, open_run, runs
from launch.api.measured import Measurement, TaskResults, UnknownName
from launch.api.samples import AnsweredExample, AnsweredExamples
from launch.base.errors import (
    ClusterUnreachable,
    DownloadFailed,
    InputError,
    OvernightError,
    RejectedByCluster,
)
from launch.status.model import RunStatus, StageStatus, State
from launch.status.results import Number

open = open_run  # noqa: A001 - as in ``overnight.open("sdy3f")``

__all__ = [
    "AnsweredExample",
    "AnsweredExamples",
    "Chain",
    "ChainPlan",
    "ClusterUnreachable",
    "Comparison",
    "DownloadFailed",
    "InputError",
    "Measurement",
    "Number",
    "OvernightError",
    "RejectedByCluster",
    "RunHandle",
    "RunStatus",
    "StageOutlook",
    "StageStatus",
    "State",
    "TaskResults",
    "TrainingCurve",
    "UnknownName",
    "__version__",
    "compare",
    "open",
    "pipeline",
    "runs",
]
