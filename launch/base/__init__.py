"""Errors, text and the lock that all rooms use.

Imports: jobs.core.
"""

from launch.base.errors import ClusterUnreachable, InputError, OvernightError, RejectedByCluster

__all__ = ["ClusterUnreachable", "InputError", "OvernightError", "RejectedByCluster"]
