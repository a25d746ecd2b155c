"""A planned stage to scripts, and where each option came from.

Imports: runs and all below it.
"""

from jobs.core.public_names import lazily

__getattr__ = lazily(__name__, {"JobRequest": "request", "Executor": "request", "JobOption": "provenance"})
