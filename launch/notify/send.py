"""Sends one letter by apprise: ``python -m launch.notify.send``, which reads it as JSON from its standard input."""

from __future__ import annotations

import logging
import sys
from typing import Any

from jobs.core import strict


def main(letter: dict[str, Any]) -> int:
    """0: the service took it; what it said instead goes to standard error."""
    try:
        import apprise
    except ImportError:
        print("apprise is not installed: pip install 'overnight[notify]'", file=sys.stderr)
        return 1
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    service = apprise.Apprise()
    if not service.add(letter["url"]):
        print("its value is not a URL that apprise supports", file=sys.stderr)
        return 1
    attached = [letter["page"]] if letter["page"] else None
    sent = service.notify(title=letter["subject"], body=letter["body"], attach=attached)
    if not sent and attached:  # not every service takes a file
        sent = service.notify(title=letter["subject"], body=letter["body"])
    return 0 if sent else 1


if __name__ == "__main__":
    sys.exit(main(strict.parse(sys.stdin.read())))
