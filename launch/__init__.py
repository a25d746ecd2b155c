"""The login-node side of Overnight: load, plan, render, submit, watch."""

__version__ = "0.1.0"
