"""One process of an evaluation: the model, its share of the rows, and where to stop.

Every process keeps what it has measured (``kept``) and says when it has ended; the first one waits for the others and
puts the samples together. So a start goes on where the one before it ended, with as many processes as it has, and they
need not meet while they work.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.core import files, redaction, results, seal
from jobs.core.paths import Workspace
from jobs.core.spec import Input, StageSpec
from jobs.core.tasks import JudgedKeys
from jobs.evaluate.judging import judges
from jobs.evaluate.judging.judges import Judge, Judging, LocalJudge, ServedJudge
from jobs.evaluate.judging.settings import JudgeSettings
from jobs.evaluate.kept import Kept, Sample, SampleKey
from jobs.evaluate.kinds import Loaded, PreparedTask
from jobs.evaluate.server import Answering, OutOfTime, Server
from jobs.evaluate.serving import OwnServer
from jobs.evaluate.settings import EvaluateSettings
from jobs.evaluate.stored import Stored
from jobs.training.interface import WorkContext
from jobs.training.settings import BadSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOOK_SECONDS = 0.2
STOP, ENDED = "evaluation-stops", "evaluation-ended"
"""In the directory of this start: the first process asks the others to stop; one has ended."""


@dataclass
class EvaluationSession:
    """``tasks`` made ready for the model. ``saves``: the steps whose models are measured; None: there is one model."""

    spec: StageSpec
    ctx: WorkContext
    tasks: Sequence[PreparedTask]
    saves: Sequence[int | None] = (None,)

    def __post_init__(self) -> None:
        self._marks = self.ctx.saves.directory
        self._marks.mkdir(parents=True, exist_ok=True)
        self._kept = Kept(self.spec.store_paths.work, f"{self._marks.name}-{self.ctx.rank}.jsonl")
        self._shown = {task.name: task.shown() for task in self.tasks}
        self._total = len(self.saves) * sum(len(task.rows) for task in self.tasks)
        self._known = self._read()
        self._done = len(self._known)
        self._is_alone = not self._known and self.ctx.world == 1 and tuple(self.saves) == (None,)

    def _read(self) -> dict[SampleKey, Sample]:
        """What is kept of the rows as they are shown now."""
        wanted = {key for save in self.saves for task in self.tasks for key in self._keys(save, task)}
        return {key: one for key, one in self._kept.read().items() if key in wanted}

    def _keys(self, save: int | None, task: PreparedTask) -> list[SampleKey]:
        return [(save, task.name, *of_row) for of_row in zip(task.ids, self._shown[task.name], strict=True)]

    def is_measured(self, save: int | None) -> bool:
        """Whether nothing of this process's share is left to measure of a save."""
        return all(self._known_of(save, task).issuperset(self._share(task)) for task in self.tasks)

    def _known_of(self, save: int | None, task: PreparedTask) -> set[int]:
        return {place for place, key in enumerate(self._keys(save, task)) if key in self._known}

    def _share(self, task: PreparedTask) -> list[int]:
        return task.share(self.ctx.rank, self.ctx.world)

    def measure(self, save: int | None = None) -> bool:
        """Measure this process's share of the rows; False: it was asked to stop before it was through."""
        try:
            return self._measure(save)
        except OutOfTime:
            self.ctx.stop.should_stop()
            files.write_atomic(self._marks / STOP, "")
            return False

    def _measure(self, save: int | None) -> bool:
        for task in self.tasks:
            label = task.name if save is None else f"{task.name} at step {save}"
            known = self._known_of(save, task)
            for found in task.samples(self._share(task), self._shown[task.name], known):
                lines = [one if save is None else {**one, "step": save} for _, one in found]
                if lines:
                    self._kept.append(lines)
                    self._done += len(lines) * self.ctx.world
                    self.ctx.progress.report(min(self._done, self._total), self._total, label)
                if self._stops():
                    return False
        return True

    def _stops(self) -> bool:
        if self.ctx.rank:
            return (self._marks / STOP).exists()
        if self.ctx.stop.should_stop():
            files.write_atomic(self._marks / STOP, "")
            return True
        return False

    def end(self, is_through: bool) -> bool:
        """Whether all processes are through; called on each of them, and only the first one waits for the others."""
        if self.ctx.rank:
            files.write_atomic(self._marks / f"{ENDED}-{self.ctx.rank}", "")
            return is_through
        ended = [self._marks / f"{ENDED}-{rank}" for rank in range(1, self.ctx.world)]
        told = 0
        while not all(path.exists() for path in ended):
            time.sleep(LOOK_SECONDS)
            files.ask_again(self._marks)
            if self._stops():
                is_through = False
            if (count := len(self._kept.read())) > told:  # silence is taken for a hang
                told = count
                self.ctx.progress.report(min(count, self._total), self._total, "other processes")
        self._known = self._read()
        return is_through and all(self._found(save, task) is not None for save in self.saves for task in self.tasks)

    @property
    def rows(self) -> int:
        """How many rows are measured."""
        return len(self._known)

    def _found(self, save: int | None, task: PreparedTask) -> list[Sample] | None:
        found = [self._known.get(key) for key in self._keys(save, task)]
        whole = [one for one in found if one is not None]
        return whole if len(whole) == len(found) else None

    def samples(self, save: int | None = None) -> dict[str, list[Sample]]:
        """The samples of each task, in the order of its rows; after ``end``."""
        made = {}
        for task in self.tasks:
            found = self._found(save, task)
            assert found is not None
            made[task.name] = found
            if self._is_alone:  # what a task has kept of its rows is that of all of them
                task.how.update(task.after(found))
        return made


def chosen_rows(spec: StageSpec, settings: EvaluateSettings) -> dict[str, Any]:
    """The rows of each task; without the model, so that what is wrong with them, or missing, is said at once."""
    for task in settings.tasks.values():
        task.kind.check(task.keys)
    return {name: task.kind.choose(task, spec.inputs) for name, task in settings.tasks.items()}


def load(checkpoint: Path, spec: StageSpec, settings: EvaluateSettings) -> Loaded:
    """The model and its tokenizer, on the device of this process."""
    import torch
    import transformers

    from jobs.training import cpu, tokenizers
    from jobs.training.models import load_model

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    cpu.use_threads(settings.threads)
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[settings.precision]

    def model_of(path: Path) -> PreTrainedModel:
        return load_model(path, kind).eval().to(device)

    model = model_of(checkpoint)
    other = spec.inputs.get("compare_to")
    known = None if other is None else results.find(other.output)
    earlier = {} if known is None else results.read(known)
    reference = None
    if "reference" in spec.inputs:
        beside = spec.inputs["reference"].output
        _same_vocabulary(checkpoint, beside)
        reference = model_of(beside)
    family = judges.family_of(checkpoint)
    tokenizer = tokenizers.load(checkpoint)
    return Loaded(model, tokenizer, settings.batch_tokens, settings.batch_prompts, reference, earlier, family=family)


def judges_of(spec: StageSpec, settings: EvaluateSettings, ctx: WorkContext) -> dict[str, Judge]:
    """The judges of the tasks by their names.

    Raises:
        BadSettings: a judge that is not described, or whose model is no input.
        SealBroken: the seal of its model cannot be read.
    """
    found: dict[str, Judge] = {}
    for task in settings.tasks.values():
        if not isinstance(task.keys, JudgedKeys) or task.keys.judge in found:
            continue
        name = task.keys.judge
        known = JudgeSettings.read(name, task.keys.judged_by)
        source: Judging
        family, content = known.model or "", ""
        if known.server is not None:
            source = ServedJudge(_server(known.server, known.model, known.key, settings, ctx), known)
        elif (given := spec.inputs.get(f"judge:{name}")) is None:
            raise BadSettings(f"judge {name!r} has no server, and no model among the inputs of this stage")
        else:
            family, content = judges.family_of(given.output), _content(given)
            source = LocalJudge(given.output, known, lambda path: load(path, replace(spec, inputs={}), settings))
        identity = known.identity(content)
        own = f"{spec.store_paths.root.name}-{ctx.saves.directory.name}-{ctx.rank}"
        workspace = Workspace(spec.store_paths.root.parent.parent)
        found[name] = Judge(known, identity, source, judges.kept_in(workspace.judgements, identity, own), family)
    return found


def _content(given: Input) -> str:
    """What tells a checkpoint from every other one: of one outside of a store, which has no seal, its input says it."""
    return seal.load(given.paths.seal).content if given.paths.seal.exists() else given.fingerprint


def asked(
    settings: EvaluateSettings, rows: Mapping[str, Any], there: Answering, judging: Mapping[str, Judge]
) -> list[PreparedTask]:
    """The tasks made ready for a server, or for stored answers.

    Raises:
        BadSettings: a task needs more than answers.
    """
    found = []
    for name, task in settings.tasks.items():
        if task.kind.ask is None:
            raise BadSettings(f"task {name!r} needs the probabilities of the model: {there.model} only has answers")
        found.append(task.kind.ask(task, rows[name], there, judging))
        if isinstance(there, Stored):
            there.known(found[-1].ids)
    return found


@contextlib.contextmanager
def answering(spec: StageSpec, settings: EvaluateSettings, ctx: WorkContext) -> Iterator[Answering | None]:
    """What answers in place of a model in this process; None: nothing does. A server that is started for it ends here.

    Raises:
        BadSettings: the server is not described.
    """
    there = _answering(spec, settings, ctx)
    try:
        yield there
    finally:
        if there is not None:
            there.close()


def _answering(spec: StageSpec, settings: EvaluateSettings, ctx: WorkContext) -> Answering | None:
    if settings.answers is not None:
        return Stored(Path(settings.answers))
    if settings.server is not None:
        return _server(settings.server, settings.model, settings.key, settings, ctx)
    if settings.command is None:
        return None
    checkpoint = spec.inputs["checkpoint"]
    return OwnServer(
        settings.command,
        checkpoint.output,
        settings.ready,
        spec.stage_paths.server_log(ctx.restart, ctx.rank),
        settings.model or checkpoint.stage,
        _server("http://127.0.0.1", settings.model or checkpoint.stage, None, settings, ctx),
        ctx.stop,
        called=settings.model,
        unseen=redaction.read(spec.stage_paths.secrets),
    )


def _server(url: str, model: str | None, key: str | None, settings: EvaluateSettings, ctx: WorkContext) -> Server:
    if model is None:
        raise BadSettings(f"server {url!r}: setting 'model' is what the model is called there")

    def end() -> float | None:
        found = ctx.stop.end()
        return None if found is None else found - ctx.stop.lead

    return Server(url, model, key, settings.at_once, settings.seed, end)


def prepared(settings: EvaluateSettings, rows: Mapping[str, Any], loaded: Loaded) -> list[PreparedTask]:
    """The tasks made ready for a model."""
    return [task.kind.prepare(task, rows[name], loaded) for name, task in settings.tasks.items()]


def lines_of(samples: Mapping[str, Sequence[Sample]]) -> Iterator[Sample]:
    """All samples, task by task."""
    for found in samples.values():
        yield from found


def _same_vocabulary(checkpoint: Path, reference: Path) -> None:
    """Raises BadSettings: the two models do not say the same tokens, so that their probabilities cannot be compared."""
    from jobs.training import tokenizers

    one, other = tokenizers.behaviour(checkpoint), tokenizers.behaviour(reference)
    if any(one[name] != other[name] for name in ("probe_ids", "vocab_size")):
        raise BadSettings(f"measure kl: {checkpoint} and {reference} have other tokenizers: they cannot be compared")
