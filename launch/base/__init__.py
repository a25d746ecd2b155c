"""Errors, text and the lock that all rooms use.

Imports: jobs.core.
"""

from jobs.core.public_names import lazily

__getattr__ = lazily(
    __name__,
    {
        "InputError": "errors",
        "OvernightError": "errors",
        "RejectedByCluster": "errors",
        "ClusterUnreachable": "errors",
        "SharedLock": "lock",
    },
)
