"""Small jobs that try a profile on the real cluster, and what they found."""
