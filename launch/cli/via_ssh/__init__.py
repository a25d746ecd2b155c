"""The commands of a laptop, done on a login node: ``overnight submit PIPELINE --cluster NAME --via HOST``.

The pipeline, a profile of this machine and the snapshot of the code go over by rsync; ``overnight`` on the other side
does the work. Both through one connection of ssh, which is opened with the user's own configuration (``connection``).
The other side reads its command from standard input, as JSON (``protocol``): no part of it goes through a shell.
"""
