"""The card of a data set: counts, examples, the page.

Imports: sources, common, jobs.core.
"""
