"""The commands of a laptop, done on a login node: ``overnight submit PIPELINE --cluster NAME --via HOST``.

The pipeline, a profile of this machine and the snapshot of the code go over by rsync; ``overnight`` on the other side
does the work. Both through one connection of ssh, which is opened with the user's own configuration (``connection``).
What the other side is to do is told on its standard input, as JSON (``protocol``): no word of it goes through a shell.
"""
