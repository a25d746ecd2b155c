"""Where rows come from: files of all forms (one reader), catalogues of translations, messages.

Imports: common, jobs.core.
"""
