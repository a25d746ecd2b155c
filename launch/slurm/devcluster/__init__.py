"""A throw-away multi-node Slurm on this machine, for trying chains before they cost GPU hours."""
