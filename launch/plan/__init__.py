"""Pipeline, profile and inputs to jobs: fingerprints, estimates, limits.

Imports: config, slurm, inputs, base, jobs.core.
"""

from jobs.core.public_names import lazily

__getattr__ = lazily(__name__, {"Plan": "model", "PlannedStage": "model", "Facts": "model", "build": "builder"})
