"""Everything that changes the queue. Imports status, site and below."""
