"""Where rows come from: catalogues of translations, messages, the user's files.

Imports: common, jobs.core.
"""
