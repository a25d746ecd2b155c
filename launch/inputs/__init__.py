"""What a run reads from outside: downloads, digests of files, the user's code and our own.

Imports: base, jobs.core.
"""
