"""Standard-library core shared by the login node and the jobs (Python >= 3.10, imports nothing of ours)."""
