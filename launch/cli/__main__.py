"""``overnight``, and ``python -m launch.cli``: Ctrl-C is answered before anything else is imported."""

import os
import signal
import sys

_INTERRUPTED = 128 + 2


def main() -> int:
    """The exit code of the command."""
    signal.signal(signal.SIGINT, _leave)
    from jobs.core import utf8

    utf8.ensure()
    from launch.cli.main import main as overnight

    signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on it is an exception that is handled
    return overnight()


def _leave(*_: object) -> None:
    """Nothing was begun that has to be put in order."""
    os.write(2, b"\ninterrupted\n")
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
