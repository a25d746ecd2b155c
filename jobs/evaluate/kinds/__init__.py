"""The kinds of evaluation tasks: a module for those that are alike, a ``Kind`` for each.

What each can be told and what it measures stands in ``jobs.core.tasks``, by the same names.
"""

from jobs.evaluate.kinds import generated, harness, safety, texts
from jobs.evaluate.kinds.kind import Kind, Loaded, PreparedTask, Task

__all__ = ["KINDS", "Kind", "Loaded", "PreparedTask", "Task"]

KINDS: dict[str, Kind] = {kind.name: kind for kind in (*texts.KINDS, *generated.KINDS, *harness.KINDS, *safety.KINDS)}
