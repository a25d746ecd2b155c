"""``overnight``, and ``python -m launch.cli``: Ctrl-C is answered before anything else is imported."""

import atexit
import os
import signal
import sys
import threading

_INTERRUPTED = 128 + 2


def main() -> int:
    """The exit code of the command."""
    signal.signal(signal.SIGINT, _leave)
    from jobs.core import utf8

    utf8.ensure()
    from launch.cli.main import main as overnight

    signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on it is an exception that is handled
    return _ended(overnight())


def _ended(code: int) -> int:
    """The exit code. Where no thread is left the process ends here: that Python takes hundreds of modules apart one by
    one at its end is a thirtieth of the CPU of a submission."""
    if threading.active_count() == 1:
        atexit._run_exitfuncs()
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            return code  # Python says what is to be said of it
        os._exit(code)
    return code


def _leave(*_: object) -> None:
    """Nothing was begun that has to be put in order."""
    os.write(2, b"\ninterrupted\n")
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
