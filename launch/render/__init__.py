"""A planned stage to scripts, and where each option came from. Imports runs and below."""
