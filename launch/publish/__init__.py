"""What leaves the cluster: the export of a run, on a hub.

Imports: report, status and all below them.
"""
