"""Start script of every job, copied to ``code/toolkit/overnight_job.py`` of a run: ``overnight_job.py VERB spec.json [...]``.

It is addressed by path and puts its own directory first, so that neither the working directory nor PYTHONPATH nor the
site-packages of the interpreter can offer another ``jobs``. Every interpreter from Python 3.10 on can run it.
"""

import os
import sys


def main() -> int:
    toolkit = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [toolkit, *(entry for entry in sys.path if entry not in ("", toolkit, os.getcwd()))]
    from jobs import __main__ as commands

    return commands.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
