"""Run directories, their journal, the state of attempts, and what may be removed.

Imports: plan and all below it.
"""

from jobs.core.public_names import lazily

__getattr__ = lazily(
    __name__,
    {
        "Run": "rundir",
        "Journal": "journal",
        "AttemptState": "attempt_state",
    },
)
