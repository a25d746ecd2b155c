"""The page of a run or of a sweep, and the letter about its end, written and sent."""

from __future__ import annotations

from jobs.core import files, redaction
from launch.base.errors import InputError
from launch.config.profile import Profile
from launch.notify import letter, of_family, outbox
from launch.notify.letter import Letter
from launch.notify.outbox import Delivery, LettersOf
from launch.report import family_page, page
from launch.runs import family as families
from launch.runs.family import Family
from launch.runs.rundir import Run
from launch.status import ask
from launch.status import family as family_status


def tell(run: Run, again: bool = False) -> list[Delivery]:
    """What became of each letter that had not arrived; ``again``: as of ``outbox.deliver``. A chain of a sweep has no
    letter of its own: those are of its family.

    Raises:
        InputError: the run or the addresses cannot be read.
    """
    plan, profile = run.plan(), run.profile()
    status = ask.look(run, plan, profile)
    page.write(run, plan, profile, status)
    if (family := families.of_run(run)) is not None:
        return tell_family(family, again)
    return _send(run.paths, letter.of_run(run, plan, profile, status), profile, run, again)


def tell_family(family: Family, again: bool = False) -> list[Delivery]:
    """The same of a sweep. Raises InputError: as of ``tell``."""
    status = family_status.look(family)
    files.write_atomic(family.paths.page, family_page.render(status))
    first = family.runs[0]
    return _send(family.paths, of_family.of_family(family, status), first.profile(), first, again)


def _send(owner: LettersOf, made: Letter | None, profile: Profile, run: Run, again: bool) -> list[Delivery]:
    """``run``: whose secrets hold the addresses."""
    if made is not None and profile.notify.to:
        outbox.post(owner, made)
    try:
        values = redaction.read(run.paths.secrets)
    except (OSError, ValueError) as error:
        raise InputError(f"addresses of letters cannot be read: {error}") from error
    return outbox.deliver(owner, {name: values[name] for name in profile.notify.to if name in values}, again)
