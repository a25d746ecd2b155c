"""Back end ``toy``: a character model in the standard library, for trying a cluster within seconds.

It really trains, saves, resumes bit by bit and hands on what it learned, so chains, time limits and broken saves can be
tried without torch and without a GPU. The model gives each pair of neighbouring characters a score; the probability of
the next character is the softmax of its row (a bigram model). All arithmetic is Python floats, in a fixed order.

Kinds: ``cpt`` and ``sft`` descend the mean negative log-likelihood of a text; ``dpo`` descends the DPO loss
(Rafailov et al. 2023, https://arxiv.org/abs/2305.18290, equation 7) against the scores at the start; ``evaluate``
measures the loss on the test split. On several nodes rank 0 works and the others leave at once.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from jobs.backends.toy import evaluation, mishaps
from jobs.backends.toy.model import (
    MODEL_FILE,
    VOCABULARY,
    Gradient,
    Scores,
    encode,
    log_likelihood,
    start_scores,
)
from jobs.core import files
from jobs.core.capabilities import Capabilities
from jobs.core.epochs import steps_of
from jobs.core.settings import DpoKeys, setting
from jobs.core.spec import StageSpec
from jobs.core.validation import LOSS
from jobs.training import examples, interface, validation
from jobs.training.checkpoints import Completeness
from jobs.training.interface import ProcessShape, Rendered, Result, WorkContext
from jobs.training.order import training_order
from jobs.training.settings import TrainingSettings, unknown
from jobs.training.validation import Watch

NAME = "toy"
CAPABILITIES = Capabilities(
    kinds=frozenset({"cpt", "sft", "dpo", "evaluate"}),
    formats_in=frozenset({"toy", "hf", "gguf"}),
    formats_out=frozenset({"toy", "metrics"}),
    distributed=True,
    saves="toy",
)

FORMATS = {"cpt": "corpus", "sft": "instructions", "dpo": "preferences"}


@dataclass(frozen=True, kw_only=True)
class ToySettings(DpoKeys, TrainingSettings):
    """What a stage can be told; settings of other training back ends that mean nothing here are taken, so that a
    pipeline can be tried by changing ``backend`` alone. ``step_seconds`` is slept in every step, so that time limits
    can be tried; ``ballast_mb`` MiB lie beside the model, so that hand-offs of real sizes can be; ``mishap`` goes wrong
    on purpose (``mishaps``)."""

    NO_VALIDATION: ClassVar[str] = ""

    step_seconds: float = setting(0.0, at_least=0)
    ballast_mb: int = setting(0, at_least=0)
    mishap: str | None = setting(None, choices=tuple(mishaps.MISHAPS))
    mishap_step: int = setting(3, at_least=1)
    mishap_rank: int = setting(0, at_least=0)
    mishap_starts: int = setting(1_000_000, at_least=0)


EVALUATION = ("tasks", "gate", "missed", "undecided", "seed", "threads", "curve", "choose")
"""Settings of an evaluation."""


@dataclass
class ToyState:
    """All that changes in training; a save is this as JSON (``repr`` of a float is exact)."""

    scores: Scores
    step: int = 0
    losses: list[float] = field(default_factory=list)


def probe() -> dict[str, str]:
    """The interpreter decides the results, nothing else does."""
    import platform  # nine regular expressions that a run does not need

    return {"python": platform.python_version()}


def behaviour(checkpoint: Path) -> dict[str, Any]:
    """The alphabet's digest: ids are places in the alphabet, so this is all there is to know."""
    return {"alphabet": hashlib.sha256(VOCABULARY.encode()).hexdigest()}


def rendered(spec: StageSpec, shape: ProcessShape) -> Rendered:
    """What a start runs and reads.

    Raises:
        BadSettings: what the stage was told does not fit.
    """
    if spec.kind == "evaluate":
        unknown(spec.settings, EVALUATION)
        evaluation.check(spec)
    else:
        validation.rows_of(spec.inputs["data"], ToySettings.read(spec.settings))
    return interface.in_process(spec, shape, CAPABILITIES.launcher)


def completeness(directory: Path) -> Completeness:
    """Whether ``directory`` holds a whole model of this back end."""
    value = files.read_json_or_none(directory / MODEL_FILE)
    if not isinstance(value, dict) or value.get("vocabulary") != VOCABULARY:
        return Completeness(problem=f"{directory / MODEL_FILE} is missing or no model of characters")
    return Completeness()


def of_save(save: Path, source: Path, target: Path) -> None:
    """Make a model of a save."""
    state = ToyState(**files.read_json(save / "state.json"))
    target.mkdir(parents=True, exist_ok=True)
    files.write_json(target / MODEL_FILE, {"scores": state.scores, "vocabulary": VOCABULARY})


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Train or evaluate on rank 0.

    Raises:
        BadSettings, DataError: before any work.
    """
    if spec.kind == "evaluate":
        unknown(spec.settings, EVALUATION)
        return evaluation.run(spec, ctx) if ctx.rank == 0 else Result("done")
    settings = ToySettings.read(spec.settings)
    return _train(spec, ctx, settings) if ctx.rank == 0 else _follow(spec, ctx, settings)


def _follow(spec: StageSpec, ctx: WorkContext, settings: ToySettings) -> Result:
    """A rank with nothing to do: it leaves, or with a mishap on its way makes the steps with rank 0 up to it."""
    if settings.mishap and settings.mishap_rank:
        for step in range(1, settings.mishap_step + 1):
            _go_wrong(spec, ctx, settings, step)
    return Result("done")


def _go_wrong(spec: StageSpec, ctx: WorkContext, settings: ToySettings, step: int) -> None:
    """The mishap, where it is due; before it the ranks meet at each step."""
    if not settings.mishap or ctx.restart >= settings.mishap_starts or step > settings.mishap_step:
        return
    if step == settings.mishap_step and ctx.rank == settings.mishap_rank:
        mishaps.strike(settings.mishap)
    if settings.mishap_rank:
        mishaps.meet(spec.stage_paths.root / "meet" / f"{spec.attempt}_{ctx.restart}", ctx.rank, ctx.world, step)


def _train(spec: StageSpec, ctx: WorkContext, settings: ToySettings) -> Result:
    held_out = validation.rows_of(spec.inputs["data"], settings)
    reference = start_scores(spec.inputs["checkpoint"])
    rows = examples.read_rows(spec.inputs["data"].output / f"{settings.split}.jsonl", FORMATS[spec.kind])
    settings = replace(settings, batch_size=min(settings.batch_size, len(rows)))  # it has to run on a few rows, too
    if settings.epochs is not None:
        settings = replace(settings, steps=steps_of(len(rows), settings.batch_size, settings.epochs))
    order = training_order(len(rows), settings.batch_size, settings.steps, settings.seed)
    kept = [] if held_out is None else examples.read_rows(held_out, FORMATS[spec.kind])
    state = _resume(ctx) or ToyState([list(row) for row in reference])
    watch = Watch(ctx, settings)
    while state.step < settings.steps:
        began = time.monotonic()
        batch = order[state.step * settings.batch_size : (state.step + 1) * settings.batch_size]
        loss = _step(spec.kind, [rows[index].texts for index in batch], state.scores, reference, settings)
        state.step += 1
        state.losses.append(loss)
        time.sleep(settings.step_seconds)
        told = {"loss": loss, "lr": settings.lr, "seconds": time.monotonic() - began}
        if watch.due(state.step):
            watch.add(state.step, _validate(spec.kind, [row.texts for row in kept], state.scores, reference, settings))
            told[LOSS] = ctx.saves.validations[state.step]
        ctx.progress.report(state.step, settings.steps, "", **told)
        _go_wrong(spec, ctx, settings, state.step)
        ends = watch.ends(state.step)
        stop = not ends and ctx.stop.should_stop()
        due = ctx.stop.save_due(state.step, settings.steps, settings.save_every)
        if stop or watch.saves(state.step, due):
            _save(ctx, state, watch)
        if stop:
            return Result("stopped", state.step, {"loss": loss})
        if ends:
            break
    chosen = watch.chosen(state.step)
    scores = state.scores if chosen is None else ToyState(**files.read_json(chosen[1] / "state.json")).scores
    files.write_json(ctx.output / MODEL_FILE, {"scores": scores, "vocabulary": VOCABULARY})
    _write_ballast(ctx.output / "ballast.bin", settings)
    metrics = watch.metrics(state.step, chosen and chosen[0])
    return Result("done", state.step, {"loss": state.losses[-1], **metrics})


def _validate(kind: str, rows: list[dict[str, str]], scores: Scores, reference: Scores, settings: ToySettings) -> float:
    """Loss over the rows: a mean over all characters that are predicted; of preferences over the pairs."""
    if kind == "dpo":
        return sum(_preference(texts, scores, reference, settings.beta)[0] for texts in rows) / len(rows)
    chains = [encode(texts["text"] if kind == "cpt" else texts["completion"]) for texts in rows]
    likelihood = sum(log_likelihood(chain, scores)[0] for chain in chains)
    return -likelihood / max(1, sum(len(chain) - 1 for chain in chains))


def _write_ballast(path: Path, settings: ToySettings) -> None:
    if settings.ballast_mb > 0:
        block = random.Random(settings.seed).randbytes(1 << 20)
        with open(path, "wb") as stream:
            for _ in range(settings.ballast_mb):
                stream.write(block)


def _resume(ctx: WorkContext) -> ToyState | None:
    found = ctx.saves.resume()
    return None if found is None else ToyState(**files.read_json(found[1] / "state.json"))


def _save(ctx: WorkContext, state: ToyState, watch: Watch) -> None:
    began = time.monotonic()
    directory = ctx.saves.directory / f"checkpoint-{state.step}"
    directory.mkdir(parents=True, exist_ok=True)
    files.write_json(directory / "state.json", vars(state))
    ctx.saves.seal(state.step)
    watch.tidy()
    ctx.stop.saved(time.monotonic() - began)


def _step(kind: str, batch: list[dict[str, str]], scores: Scores, reference: Scores, settings: ToySettings) -> float:
    """One step of plain gradient descent in place; mean loss of the batch before it."""
    total: Gradient = {}
    loss = 0.0
    for texts in batch:
        if kind == "dpo":
            value, weighted = _preference(texts, scores, reference, settings.beta)
        else:
            text = texts["text"] if kind == "cpt" else texts["completion"]
            chain = encode(text)
            likelihood, gradient = log_likelihood(chain, scores)
            links = max(len(chain) - 1, 1)
            value, weighted = -likelihood / links, [(-1.0 / links, gradient)]
        loss += value
        for weight, gradient in weighted:
            for row, slopes in gradient.items():
                into = total.setdefault(row, [0.0] * len(VOCABULARY))
                for column, slope in enumerate(slopes):
                    into[column] += weight * slope
    for row, slopes in total.items():
        for column, slope in enumerate(slopes):
            scores[row][column] -= settings.lr * slope / len(batch)
    return loss / len(batch)


def _preference(
    texts: dict[str, str], scores: Scores, reference: Scores, beta: float
) -> tuple[float, list[tuple[float, Gradient]]]:
    """DPO loss of a pair and its gradient as weighted gradients of the two log-likelihoods."""
    chosen, rejected = encode(texts["chosen"]), encode(texts["rejected"])
    good, good_slopes = log_likelihood(chosen, scores)
    bad, bad_slopes = log_likelihood(rejected, scores)
    good_before, bad_before = (log_likelihood(chain, reference)[0] for chain in (chosen, rejected))
    margin = beta * ((good - good_before) - (bad - bad_before))
    push = beta / (1 + math.exp(margin))
    return math.log1p(math.exp(-margin)), [(-push, good_slopes), (push, bad_slopes)]
