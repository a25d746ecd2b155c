"""What a library would load without need at the start of a stage."""

from __future__ import annotations


def leave_out_sklearn() -> None:
    """Have transformers not load scikit-learn: before anything of it but ``utils`` is imported.

    Its generation loads it for assisted decoding, which no stage uses, where it is installed (lm-eval brings it), and
    with it scipy and pandas: 1 to 2 s of each start.
    """
    from transformers import utils

    utils.is_sklearn_available = lambda: False
