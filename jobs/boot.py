"""Start script of every job: ``overnight_job.py VERB spec.json [...]``, beside the packages in a snapshot of them.

It is addressed by path and puts the directory that holds our packages first, so that neither the working directory nor
PYTHONPATH nor the site-packages of the interpreter can offer another ``jobs``. Any Python from 3.10 on can run it.
"""

import os
import sys


def main() -> int:
    """Put our packages first and run the verb."""
    here = os.path.dirname(os.path.abspath(__file__))
    if os.path.basename(here) == "jobs":  # run from the installed package, not from a run's snapshot
        here = os.path.dirname(here)
    unwanted = ("", here, os.path.join(here, "jobs"), os.getcwd())
    sys.path[:] = [here, *(entry for entry in sys.path if entry not in unwanted)]
    # Last: a module of the user's tree may not stand before one of the environment.
    user = os.path.join(os.path.dirname(here), "user")
    if os.path.isdir(user):
        sys.path.append(user)
    from jobs.core import utf8

    utf8.ensure()
    from jobs import __main__

    return __main__.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
