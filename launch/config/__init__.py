"""Files in, typed values out: the pipeline and the profile.

Imports: slurm, inputs, base, jobs.core; ``data_settings`` asks data_prep.
"""

from jobs.core.public_names import lazily

__getattr__ = lazily(
    __name__,
    {
        "Pipeline": "pipeline",
        "PipelineFile": "pipeline_file",
        "read_pipeline": "pipeline_file",
        "Profile": "profile",
        "ProfileFile": "profile_file",
        "read_profile": "profile_file",
        "locate": "profile_file",
    },
)
