"""The real cluster: its profile is written, checked and tried; a plan is checked against it.

Imports: render and all below it; not status.
"""

from jobs.core.public_names import lazily

__getattr__ = lazily(__name__, {"Finding": "finding"})
