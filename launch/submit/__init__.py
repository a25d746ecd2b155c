"""Everything that changes the queue: submission, reuse, cancel, repair.

Imports: status, site and all below them.
"""

from jobs.core.public_names import lazily

__getattr__ = lazily(
    __name__,
    {
        "Submitter": "submitter",
        "LocalRunner": "local",
        "Leftover": "repair",
    },
)
