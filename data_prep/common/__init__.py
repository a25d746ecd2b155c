"""What all steps share: settings, text, splits, units, errors.

Imports: jobs.core.
"""

from jobs.core.public_names import lazily

__getattr__ = lazily(
    __name__,
    {
        "Settings": "settings",
        "DataError": "errors",
        "SettingsError": "errors",
    },
)
