"""A start on the batch host: prologue, verdict, nodes, room. Standard library and core only."""
