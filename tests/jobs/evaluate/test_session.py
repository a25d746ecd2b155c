"""An evaluation that is stopped, killed, or shared out over several processes says what an undisturbed one says."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from jobs.core.spec import load, save  # noqa: E402
from jobs.evaluate import measure  # noqa: E402
from jobs.evaluate.kept import Kept  # noqa: E402
from tests.support import ranks, stages  # noqa: E402

pytestmark = pytest.mark.train

TASKS: dict[str, Any] = {
    "answers": {"data": "instructions"},
    "perplexity": {"data": "corpus"},
    "preferences": {"data": "preferences"},
    "support": {"data": "instructions", "limit": 12, "max_new_tokens": 4, "measure": {"chrf": {}, "length": {}}},
}


def evaluation(root: Path, base: Path, data: Path, **settings: Any) -> stages.Stage:
    inputs = {"checkpoint": base, **{name: data / name for name in ("corpus", "instructions", "preferences")}}
    given = {"tasks": TASKS, "seed": 1, "threads": 1, "batch_tokens": 150, "resamples": 50, **settings}
    return stages.stage(root, "evaluate", "trl", given, inputs)


def samples(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, base: Path, data: Path) -> stages.Stage:
    """An undisturbed evaluation."""
    made = evaluation(tmp_path_factory.mktemp("whole") / "one", base, data)
    made.start()
    return made


def test_two_processes_say_what_one_says(tmp_path: Path, whole: stages.Stage, base: Path, data: Path) -> None:
    shared = evaluation(tmp_path / "two", base, data)
    stages.start_ranks(2, (shared, None))
    counts = [len(path.read_text().splitlines()) for path in (shared.spec.store_paths.work).glob("*.jsonl")]
    assert len(counts) == 2
    assert abs(counts[0] - counts[1]) <= len(TASKS)
    for one, other in zip(samples(whole.output), samples(shared.output), strict=True):
        near = {name: pytest.approx(value, abs=1e-4) for name, value in one.items() if isinstance(value, float)}
        assert {**one, **near} == other
    one, other = (json.loads((it.output / "evaluation.json").read_text())["tasks"] for it in (whole, shared))
    for task in TASKS:
        for name, found in one[task]["metrics"].items():
            assert other[task]["metrics"][name]["value"] == pytest.approx(found["value"], rel=1e-5)


def test_a_start_goes_on_at_the_batch_where_the_one_before_it_was_asked_to_stop(
    tmp_path: Path, whole: stages.Stage, base: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    plain = measure.log_likelihoods

    def counted(model: Any, pairs: Any) -> Any:
        passes.append(len(pairs))
        return plain(model, pairs)

    monkeypatch.setattr(measure, "log_likelihoods", counted)
    undisturbed = evaluation(tmp_path / "one", base, data)
    undisturbed.start()
    expected, passes[:] = list(passes), []
    one = evaluation(tmp_path / "stopped", base, data)
    steps = []
    for boundary in (1, 2, 1, 4):
        result = one.start(stop_after=boundary)
        assert result.outcome == "stopped"
        steps.append(result.step)
    assert one.start().outcome == "done"
    assert steps == sorted(set(steps))
    assert one.reports()[-1].step == one.reports()[-1].total
    assert samples(one.output) == samples(whole.output)  # to the last digit
    assert sum(passes) <= sum(expected) + 2 * max(expected), "a pair whose halves lie in two batches may come again"


def _seen(path: Path) -> None:
    path.write_text(json.dumps({name: value for name, value in os.environ.items() if name in {*ranks.ALONE, "MORE"}}))


def test_a_process_has_nothing_of_those_that_were_started_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the first user of the process that all are forked from was: one of two processes waits for the other."""
    ranks._server.cache_clear()
    for name in (*ranks.ALONE, "MORE"):
        monkeypatch.setenv(name, "2")
    child = ranks.process(_seen, (tmp_path / "seen.json",))
    child.start()
    child.join()
    assert json.loads((tmp_path / "seen.json").read_text()) == {"MORE": "2"}


def _killed(path: Path, after: int) -> None:
    """A start that is killed in the middle of a line, after so many batches."""
    plain, count = Kept.append, 0

    def append(self: Kept, lines: Any) -> None:
        nonlocal count
        plain(self, lines)
        count += 1
        if count == after:
            with open(self._own, "a", encoding="utf-8") as stream:
                stream.write('{"task": "answers", "id": "')
            os.kill(os.getpid(), signal.SIGKILL)

    Kept.append = append  # type: ignore[method-assign]
    stages.Stage(load(path)).start()


def test_what_is_measured_outlives_a_kill_at_any_point(
    tmp_path: Path, whole: stages.Stage, base: Path, data: Path
) -> None:
    one = evaluation(tmp_path / "killed", base, data)
    path = one.spec.stage_paths.root / "spec.json"
    save(path, one.spec)
    before = 0
    for after in (1, 1, 3, 2, 1, 2):
        child = ranks.process(_killed, (path, after))
        child.start()
        child.join(300)
        assert child.exitcode == -signal.SIGKILL
        kept = len(Kept(one.spec.store_paths.work, "x").read())
        assert kept > before
        before = kept
    assert one.start().outcome == "done"
    assert samples(one.output) == samples(whole.output)


def test_rows_that_are_shown_otherwise_now_are_measured_again(
    tmp_path: Path, whole: stages.Stage, base: Path, data: Path
) -> None:
    one = evaluation(tmp_path / "other", base, data)
    work = one.spec.store_paths.work
    wrong = [{**sample, "prompt": "f" * 16, "nll": 1e9} for sample in samples(whole.output)]
    Kept(work, "a.jsonl").append(wrong)
    (work / "b.jsonl").write_text('[1]\n{"task": 3}\n\n{"task": "answers", "id"\nnull\n')
    one.start()
    assert samples(one.output) == samples(whole.output)


def test_bf16_is_near_and_named(tmp_path: Path, whole: stages.Stage, base: Path, data: Path) -> None:
    half = evaluation(tmp_path / "half", base, data, precision="bf16")
    half.start()
    one, other = (json.loads((it.output / "evaluation.json").read_text())["tasks"]["answers"] for it in (whole, half))
    assert (one["precision"], other["precision"]) == ("float32", "bfloat16")
    first, second = (found["metrics"]["answer_loss"]["value"] for found in (one, other))
    assert first != second == pytest.approx(first, rel=0.01)
