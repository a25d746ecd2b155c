"""Suites of evaluation tasks that come with Overnight: ``tasks: {suite: NAME}`` in a pipeline."""
