"""Lets people judge the answers of two models: a sheet to answer, and what the answers came to.

Imports: status and all below it.
"""

from jobs.core.public_names import lazily

__getattr__ = lazily(__name__, {"Counted": "answers", "Sheet": "sheet"})
