"""What all back ends share: their interface, settings, examples, tokenizers, saves, checkpoints.

Imports: data_prep, jobs.core.
"""

from jobs.core.public_names import lazily

__getattr__ = lazily(
    __name__,
    {
        "TrainingSettings": "settings",
        "BadSettings": "settings",
        "Saves": "saves",
        "BackEnd": "interface",
    },
)
