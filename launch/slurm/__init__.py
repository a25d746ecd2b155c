"""Slurm: the one gateway to its commands, and the words for what it answers."""
