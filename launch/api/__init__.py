"""The Python API, which the package ``overnight`` hands on: chains, plans, runs and what they measured, as values.

Imports: all below it, inside functions where that takes its time; not cli.
"""

from jobs.core.public_names import lazily

__getattr__ = lazily(__name__, {"Chain": "chain", "RunHandle": "handle"})
