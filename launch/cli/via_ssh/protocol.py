"""What the two sides of ``--via`` say to each other over one session of ssh.

1. The other side: one line, ``GREETING`` and JSON {version, staging, have}. What a login script printed comes before.
2. This side: one line of JSON {argv, bundle}; ``bundle`` None, or {digest, incoming}: a directory of ``staging``.
3. The other side: standard output, standard error and exit code of the command, as they are.
4. This side, at any time: ``INTERRUPT`` for Ctrl-C. The end of its input is the end of the connection.
"""

from __future__ import annotations

GREETING = "overnight-via 1 "
"""The number is raised when an older side would misunderstand a newer one."""

INTERRUPT = b"interrupt\n"

COMMANDS = (
    "fetch",
    "plan",
    "submit",
    "status",
    "why",
    "report",
    "logs",
    "cancel",
    "resume",
    "doctor",
    "gc",
    "rm",
    "list",
)
"""What makes sense on a login node and ends."""

FINISHED = ("submit", "resume", "cancel")
"""Commands that run to their end when the connection is lost: half a chain in the queue is of no use."""

MAX_LINE = 1 << 20
