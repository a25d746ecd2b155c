"""What commands do with the chains of a sweep: make them, bring them forward, show them."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from launch.cli import options

if TYPE_CHECKING:
    from launch.plan.sweep import Sweep, Variant
    from launch.runs.family import Family
    from launch.slurm.client import Gateway
    from launch.status.family import FamilyStatus


def named(args: argparse.Namespace) -> Family | None:
    """The family that ``args`` name; None: they name a run. Raises InputError: there is no such family."""
    from launch.runs import family, rundir

    return family.find(args.run, rundir.known_workspaces(args.workspace)) if family.is_id(args.run) else None


def plan(args: argparse.Namespace, found: Sweep) -> list[Variant]:
    """The variants, checked as one sweep. Raises InputError: one is no pipeline, two make the same, an input has not
    been fetched, or the budget is too small."""
    from launch.config import data_settings, ranges
    from launch.plan import sweep
    from launch.submit import prepare

    profile, workspace = options.site(args)
    cost, notes = sweep.SweepCost(), dict[str, None]()
    variants = []
    for variant in sweep.distinct(found, found.variants(profile, workspace, data_settings.checked)):
        prepare.refuse_missing(variant.planned, options.wanted(args))
        cost.add(variant)
        notes |= dict.fromkeys(ranges.notes(variant.planned.pipeline))
        variants.append(variant)
    cost.refuse(found)
    for note in [*notes, *cost.notes(found)]:
        print(f"note: {note}", file=sys.stderr, flush=True)
    return variants


def make(found: Sweep, variants: list[Variant], values: Mapping[str, str]) -> Family:
    """A family with a run for each variant, on disk; nothing is submitted yet. ``values``: of secrets. Raises
    InputError: the workspace cannot be written; then nothing of it is left."""
    from launch.render import provenance
    from launch.runs import family, rundir, secret_files
    from launch.runs.rundir import Run

    workspace = variants[0].planned.workspace
    made = family.begin(workspace)
    runs: list[Run] = []
    try:
        for variant in variants:
            planned = variant.planned
            runs.append(rundir.create(workspace, planned.pipeline, planned.profile, planned.plan, made.id))
            if planned.profile.profile.executor != "local":
                provenance.save(runs[-1], planned.plan, planned.profile, planned.pipeline)
            secret_files.write(runs[-1].paths, values)
        profile = variants[0].planned.profile.profile
        record = family.FamilyRecord(
            schema=family.SCHEMA,
            pipeline=variants[0].plan.pipeline,
            source=str(found.path.absolute()),
            profile=profile.name,
            keys=tuple(axis.key for axis in found.axes),
            members=tuple(family.Member(run.id, one.values) for run, one in zip(runs, variants, strict=True)),
            at_once=None if found.keys is None else found.keys.budget.at_once,
            ranking=found.ranking(),
        )
        family.write(made, record)
    except BaseException:
        for directory in (*(run.paths.root for run in runs), made.paths.root):
            shutil.rmtree(directory, ignore_errors=True)
        raise
    return made


def advance(family: Family, gateway: Gateway, *, as_json: bool, ending: str | None = None) -> int:
    """Bring a family on Slurm forward and print what was done; the exit code of the command. ``ending``: the job at
    whose end this is."""
    from launch.base.errors import OvernightError
    from launch.plan.sweep import said
    from launch.runs import family as families
    from launch.submit.advance import TRY_AGAIN
    from launch.submit.family import FamilySubmitter, MemberStep
    from launch.submit.interrupt import Interrupted

    done: list[MemberStep] = []

    def on_member(step: MemberStep) -> None:
        done.append(step)
        if not as_json:
            values = " ".join(f"{key}={said(value)}" for key, value in step.member.values.items())
            jobs = f"{step.jobs} jobs" if step.state == "submitted" and step.steps else ""
            print(f"  {step.member.run}  {step.state:10} {jobs:8} {values}", flush=True)

    record = family.record
    if not as_json:
        print(f"family {family.id}: {len(record.members)} chains in {family.workspace.runs}", flush=True)
    try:
        with families.locked(family):
            submitter = FamilySubmitter(family, gateway, on_member, ending)
            submitter.advance()
    except Interrupted:
        print(f"\ninterrupted after {len(done)} of {len(record.members)} chains; nothing is lost")
        print(f"go on: overnight resume {family.id}\ncancel: overnight cancel {family.id}")
        return 130
    except OvernightError as error:
        error.message += f"\n  {len(done)} of {len(record.members)} chains of family {family.id} are submitted"
        error.hint = (
            f"{error.hint}; then: overnight resume {family.id}" if error.hint else f"overnight resume {family.id}"
        )
        raise
    later = sum(step.state == "later" for step in done)
    chains = [{"run": one.member.run, "set": one.member.values, "state": one.state, "jobs": one.jobs} for one in done]
    lines = [f"follow it: overnight status {family.id}"]
    if later:
        lines.insert(0, f"{later} chains follow as jobs end (at_once: {record.at_once}); where none does: resume")
    options.print_result({"family": family.id, "chains": chains}, lines, as_json)
    return TRY_AGAIN if submitter.has_to_try_again else 0


def look(family: Family) -> FamilyStatus:
    """How it stands."""
    from launch.status import family as status

    return status.look(family)


def show_status(found: Family, as_json: bool) -> int:
    """Print ``status``; exit codes as of a run."""
    from launch.report import family as report

    status = look(found)
    options.print_result(report.as_json(status), report.status_lines(status), as_json)
    return status.exit_code


def show_report(
    found: Family, *, as_json: bool, markdown: bool = False, html: str | None = None, language: str = "en"
) -> int:
    """Print ``report``, or write its page (``html``: the file, empty: that of the family); exit codes as of a run."""
    from launch.report import family as report

    status = look(found)
    value, lines = report.as_json(status), report.lines(status)
    if html is not None:
        from jobs.core import files
        from launch.report import family_page

        where = Path(html).absolute() if html else found.paths.page
        files.write_atomic(where, family_page.render(status, language))
        value, lines = {**value, "html": str(where)}, [f"page: {where}"]
    elif markdown:
        from launch.report import markdown as shown

        lines = shown.of_family(status)
    options.print_result(value, lines, as_json)
    return status.exit_code
