"""Evaluation of a checkpoint on held-out examples, with intervals, and against an earlier evaluation.

``metrics`` holds the formulas, ``intervals`` what chance explains, ``measure`` runs the model, ``kinds`` joins the two
(a module for those tasks that are alike), ``session`` is one process of an evaluation, ``compare`` finds the change and
``gates`` judges it.
"""

from __future__ import annotations

from dataclasses import replace

from jobs.core import results
from jobs.core.spec import StageSpec
from jobs.evaluate.gates import GateFailed, GateUndecided
from jobs.training.interface import Result, WorkContext
from jobs.training.points import Load

__all__ = ["GateFailed", "GateUndecided", "run"]


def run(spec: StageSpec, ctx: WorkContext, load: Load) -> Result:
    """Evaluate the input ``checkpoint``, or its saves (a curve, or the choice of one); called on every rank, and
    rank 0 puts together what all have measured.

    Writes ``samples.jsonl`` (one line an example) and ``evaluation.json`` (see ``compare.as_json``). ``load`` finds the
    back end whose saves are measured.

    Raises:
        BadSettings, DataError: before the model runs, but for examples that cannot be compared.
        GateFailed, GateUndecided: after both files were written.
    """
    from jobs.evaluate import choose, compare, curve, session
    from jobs.evaluate.kept import SAMPLES, read_samples, write_samples
    from jobs.evaluate.settings import EvaluateSettings

    if "choose" in spec.settings:
        return choose.run(spec, ctx, load)
    if "curve" in spec.settings:
        return curve.run(spec, ctx, load)
    settings = EvaluateSettings.read(spec.settings)
    other = spec.inputs.get("compare_to")
    earlier = read_samples(other.output / SAMPLES) if other else None
    compare.check_gate(settings, earlier)

    rows = session.chosen_rows(spec, settings)
    judges = session.judges_of(spec, settings, ctx)
    with session.answering(spec, settings, ctx) as there:
        if there is not None:
            tasks = session.asked(settings, rows, there, judges)
        else:
            loaded = replace(session.load(spec.inputs["checkpoint"].output, spec, settings), judges=judges)
            tasks = session.prepared(settings, rows, loaded)
        work = session.EvaluationSession(spec, ctx, tasks)
        is_through = work.measure()
    if not work.end(is_through):
        return Result("stopped", work.rows)
    if ctx.rank:
        return Result("done")
    samples = work.samples()
    write_samples(ctx.output / SAMPLES, session.lines_of(samples))
    came_of_it = compare.evaluate(samples, earlier, settings)
    how = {task.name: task.how for task in work.tasks}
    where = results.write(ctx.output, compare.as_json(came_of_it, how, settings))
    compare.apply_gates(came_of_it, settings, where)
    return Result("done", metrics=compare.values(came_of_it))
