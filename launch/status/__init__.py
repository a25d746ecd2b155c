"""Reads a run and changes nothing: states, reasons, reports.

Imports: render and all below it; not site.
"""

from jobs.core.public_names import lazily

__getattr__ = lazily(__name__, {"RunStatus": "model", "StageStatus": "model", "look": "assess"})
