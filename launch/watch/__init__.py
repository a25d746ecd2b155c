"""A view of a run that lives: what its stages do, followed from files and one shared question to the queue.

Imports: status and all below it.
"""

from jobs.core.public_names import lazily

__getattr__ = lazily(__name__, {"Feed": "feed", "Screen": "screen"})
