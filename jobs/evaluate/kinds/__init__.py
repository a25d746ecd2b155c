"""The kinds of evaluation tasks: a module for those that are alike, a ``Kind`` for each.

What each can be told and what it measures stands in ``jobs.core.tasks``, by the same names.
"""

from jobs.evaluate.kinds import generated, harness, judged, safety, texts, transfer
from jobs.evaluate.kinds.kind import Kind, Loaded, PreparedTask, Task

__all__ = ["KINDS", "Kind", "Loaded", "PreparedTask", "Task"]

_ROOMS = (texts, generated, harness, judged, safety, transfer)

KINDS: dict[str, Kind] = {kind.name: kind for room in _ROOMS for kind in room.KINDS}
