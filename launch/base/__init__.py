"""The ground floor: errors, text and the lock. Imports nothing of ours but jobs.core."""
