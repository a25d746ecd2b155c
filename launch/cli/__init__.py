"""The ``overnight`` command: one module a sub-command, each with ``configure(parser)`` and ``run(args) -> int``."""
