"""The rows of a data file as the back end trl feeds them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from jobs.training import pairs
from tests.support import stages


def learned(path: Path, kind: str, tokenizer: Any, settings: Any) -> tuple[Any, Any]:
    """The rows and their lengths."""
    root = Path(tempfile.mkdtemp(dir=path.parent))
    fit = pairs.Fit(settings.sequence_length, settings.too_long)
    return pairs.dataset(path, kind, "ab" * 32, tokenizer, fit, root, stages.quiet_context(root))
