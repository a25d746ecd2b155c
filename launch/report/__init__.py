"""The page of a run for the morning: what came of it, what changed, what the night was spent on.

Imports: status and all below it.
"""

from jobs.core.public_names import lazily

__getattr__ = lazily(__name__, {"Night": "night"})
