"""Which documents say the same as others, or as a test set. Needs numpy (extra ``data``)."""
