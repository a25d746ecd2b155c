"""The compute-node side of Overnight: what runs inside a job."""

__version__ = "0.1.0"
