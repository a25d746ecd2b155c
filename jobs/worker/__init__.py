"""What runs in the environment of a stage: the work, the monitor beside it, Ray.

Imports: all of jobs below it.
"""
