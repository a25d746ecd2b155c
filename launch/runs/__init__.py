"""Run directories, their journal, the state of attempts, and what may be removed. Imports plan and below."""
