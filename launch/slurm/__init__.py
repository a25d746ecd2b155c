"""The one client of Slurm's commands, its options, states and words, and a throw-away Slurm (``devcluster``).

Imports: base, jobs.core.
"""

from jobs.core.public_names import lazily

__getattr__ = lazily(
    __name__,
    {
        "Gateway": "client",
        "QueueRow": "queue",
    },
)
