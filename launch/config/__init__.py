"""Files in, typed values out: pipeline and profile. Imports slurm and base."""
