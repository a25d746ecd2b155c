"""Pipeline, profile and inputs to jobs: fingerprints, estimates, limits. Imports config, inputs, slurm and base."""
