"""A start on the batch host: prologue, verdict, nodes, free space.

Imports: jobs.core and the standard library only.
"""

from jobs.core.public_names import lazily

__getattr__ = lazily(
    __name__,
    {
        "Start": "start",
        "prologue": "steps",
        "finish": "steps",
    },
)
