"""One letter a run: what became of it, to where its user reads it.

Imports: report and all below it.
"""

from jobs.core.public_names import lazily

__getattr__ = lazily(__name__, {"Letter": "letter", "Delivery": "outbox"})
