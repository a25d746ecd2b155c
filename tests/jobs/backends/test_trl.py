"""Training with a tiny model: that it learns, stops, saves, resumes bit by bit, and refuses bad input."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from jobs import backends  # noqa: E402
from jobs.backends.trl.control import Diverged  # noqa: E402
from jobs.core import seal, speed, symptoms  # noqa: E402
from jobs.core.verdict import FailureClass, classify  # noqa: E402
from jobs.encoding.load import WrongVocabulary  # noqa: E402
from jobs.training import tokenizers  # noqa: E402
from jobs.training.examples import ExamplesError  # noqa: E402
from jobs.training.settings import BadSettings  # noqa: E402
from jobs.training.tokenizers import LoaderDisagrees  # noqa: E402
from jobs.worker.work import behaviour_gate  # noqa: E402
from launch.plan import estimates, memory  # noqa: E402
from tests.support import made_runs, stages  # noqa: E402
from tests.support.stages import Stage  # noqa: E402

pytestmark = pytest.mark.train

SETTINGS: dict[str, Any] = {
    "steps": 8, "lr": 3e-3, "batch_size": 4, "micro_batch_size": 2, "sequence_length": 64, "warmup_steps": 2, "seed": 3,
    "threads": 1,
}  # fmt: skip


def make(root: Path, kind: str, base: Path, data: Path, **changes: Any) -> Stage:
    return stages.stage(
        root, kind, "trl", {**SETTINGS, **changes}, {"checkpoint": base, "data": data / stages.DATA[kind]}
    )


def looked_up(kind: str) -> str:
    """What the plan of such a stage looks for in the seals of others."""
    planned = replace(made_runs.stage(kind), kind=kind, settings=SETTINGS)
    return estimates.step_shape(planned, memory.shape_of(kind, SETTINGS, 1, 1))


def weights(output: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(output / "model.safetensors")


@pytest.mark.parametrize("kind", ["cpt", "sft", "dpo"])
def test_interrupted_run_equals_uninterrupted_run_bitwise(kind: str, tmp_path: Path, base: Path, data: Path) -> None:
    whole = make(tmp_path / "whole", kind, base, data)
    result = whole.start()
    assert (result.outcome, result.step) == ("done", 8)
    assert result.metrics[speed.SHAPE] == looked_up(kind)
    assert result.metrics[speed.BACKEND] == "trl"
    assert result.metrics[speed.SECONDS] > 0

    parts = make(tmp_path / "parts", kind, base, data)
    assert parts.start(stop_after=3).outcome == "stopped"
    assert parts.start(stop_after=2).step == 5
    assert parts.start().outcome == "done"
    resumed = [event["step"] for event in parts.events if event["event"] == "resumed"]
    assert resumed == [3, 5]
    assert [report.step for report in parts.reports()] == list(range(1, 9))  # no step twice
    assert parts.losses() == whole.losses()
    expected = weights(whole.output)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(parts.output).items())


def test_dropout_draws_the_same_numbers_after_a_resume(tmp_path: Path, data: Path) -> None:
    base = tmp_path / "base"
    stages.make_model(base / "output", dropout=0.2)
    whole = make(tmp_path / "whole", "cpt", base, data)
    whole.start()
    parts = make(tmp_path / "parts", "cpt", base, data)
    parts.start(stop_after=3)
    parts.start()
    assert parts.losses() == whole.losses()
    without = make(tmp_path / "without", "cpt", base, data, seed=4)
    without.start()
    assert without.losses() != whole.losses()


def test_learns_and_hands_on_the_tokenizer_unchanged(tmp_path: Path, base: Path, data: Path) -> None:
    stage = make(tmp_path / "sft", "sft", base, data, steps=30)
    result = stage.start()
    losses = stage.losses()
    assert losses[30] < 0.7 * losses[1]
    assert result.metrics["last_loss"] == losses[30]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (stage.output / name).read_bytes() == (base / "output" / name).read_bytes()
    assert tokenizers.behaviour(stage.output) == tokenizers.behaviour(base / "output")
    first = stage.reports()[0]
    assert {"loss", "lr", "grad_norm", "tokens_per_second"} <= first.metrics.keys()
    assert first.total == 30


def test_batch_is_the_same_whatever_the_micro_batch(tmp_path: Path, base: Path, data: Path) -> None:
    losses = []
    for micro in (4, 1):
        stage = make(tmp_path / str(micro), "sft", base, data, micro_batch_size=micro, steps=4)
        stage.start()
        losses.append(list(stage.losses().values()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_periodic_saves_are_sealed_and_the_newest_kept(tmp_path: Path, base: Path, data: Path) -> None:
    stage = make(tmp_path / "cpt", "cpt", base, data, save_every=2, keep_saves=2)
    stage.start()
    saved = [event["step"] for event in stage.events if event["event"] == "saved"]
    assert saved == [2, 4, 6]  # at 8 the finished model is written instead
    assert stage.spec.store_paths.save_steps() == [6, 4]
    found = {path.name for path in stage.spec.store_paths.save(6).iterdir()}
    assert {
        "model.safetensors",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "trainer_state.json",
        "seal.json",
    } <= found


def test_cut_save_is_passed_over(tmp_path: Path, base: Path, data: Path) -> None:
    whole = make(tmp_path / "whole", "cpt", base, data)
    whole.start()
    stage = make(tmp_path / "cpt", "cpt", base, data, save_every=2)
    stage.start(stop_after=5)
    cut = stage.spec.store_paths.save(5) / "optimizer.pt"
    cut.write_bytes(cut.read_bytes()[:-100])
    stage.start()
    assert [event["step"] for event in stage.events if event["event"] == "save_skipped"] == [5]
    assert [event["step"] for event in stage.events if event["event"] == "resumed"] == [4]
    assert stage.losses() == whole.losses()


@pytest.mark.failure(31)
def test_two_processes_agree_and_resume(tmp_path: Path, base: Path, data: Path) -> None:
    """Bitwise for two: gloo's sum of two numbers does not depend on their order. More ranks add in ring order, which
    DDP's buckets change after the first step of every start; there only about 1e-6 relative can be expected."""
    whole = make(tmp_path / "whole", "sft", base, data)
    parts = make(tmp_path / "parts", "sft", base, data)
    stages.start_ranks(2, (whole, None), (parts, 3))
    assert parts.spec.store_paths.save_steps() == [3]
    assert {f"rng_state_{rank}.pth" for rank in (0, 1)} <= {
        path.name for path in parts.spec.store_paths.save(3).iterdir()
    }
    stages.start_ranks(2, (parts, None))
    assert parts.losses() == whole.losses()
    assert [report.step for report in parts.reports()] == list(range(1, 9))

    single = make(tmp_path / "single", "sft", base, data)
    single.start()
    assert list(whole.losses().values()) == pytest.approx(list(single.losses().values()), rel=1e-4)


def test_refuses_settings(tmp_path: Path, base: Path, data: Path) -> None:
    for changes, text in (
        ({"stepz": 3}, "did you mean 'steps'"),
        ({"lr": "1e-3"}, "lr must be a number, not"),
        ({"micro_batch_size": 3}, "micro_batch_size 3 does not divide 4"),
        ({"schedule": "quick"}, "schedule must be one of"),
    ):
        with pytest.raises(BadSettings, match=text):
            make(tmp_path / "bad", "cpt", base, data, **changes).start()
    with pytest.raises(BadSettings, match="does not divide over 3 processes"):
        trl_settings().split_batch(3)


def trl_settings() -> Any:
    from jobs.backends.trl.settings import TrainSettings

    return TrainSettings.read(SETTINGS)


def test_refuses_data_with_file_and_line(tmp_path: Path, base: Path, data: Path) -> None:
    good = {"prompt": "Translate: Home\n", "completion": "Ecrã inicial"}
    cases = {
        "empty": ([], r"train\.jsonl:1: no row"),
        "field": ([good, {"prompt": "a"}], r"train\.jsonl:2: field 'completion' .* is missing"),
        "blank": ([{**good, "completion": "  "}], r"train\.jsonl:1: field 'completion' .* not a text with content"),
        "long": (
            [good, {**good, "completion": "palavra " * 90}],
            r"train\.jsonl:2: \d+ tokens, more than sequence_length 64",
        ),
    }
    for name, (rows, text) in cases.items():
        entry = tmp_path / name
        stages.write_rows(entry / "output" / "train.jsonl", rows)
        stage = stages.stage(tmp_path / f"{name}-stage", "sft", "trl", SETTINGS, {"checkpoint": base, "data": entry})
        with pytest.raises(ExamplesError, match=text):
            stage.start()
    (tmp_path / "long" / "output" / "train.jsonl").touch()
    skipping = stages.stage(
        tmp_path / "skip",
        "sft",
        "trl",
        {**SETTINGS, "too_long": "skip", "steps": 2, "batch_size": 1},
        {"checkpoint": base, "data": tmp_path / "long"},
    )
    assert skipping.start().outcome == "done"


def test_stops_when_the_loss_is_no_number(tmp_path: Path, base: Path, data: Path) -> None:
    stage = make(tmp_path / "cpt", "cpt", base, data, lr=1e30, max_grad_norm=1e30, warmup_steps=0, schedule="constant")
    with pytest.raises(Diverged, match=r"the loss is (nan|inf) at step \d"):
        stage.start()
    assert not (stage.output / "model.safetensors").exists()


def test_behaviour_is_plain_json_and_follows_the_loader(tmp_path: Path, base: Path) -> None:
    found = tokenizers.behaviour(base / "output")
    assert json.loads(json.dumps(found)) == found
    assert found["special_ids"] == {"bos": 1, "eos": 2, "pad": 2}
    stages.make_tokenizer(tmp_path, tokenizer_class="LlamaTokenizerFast")
    # transformers 5 rebuilds the pre-tokenizer of this class, whatever tokenizer.json says.
    assert tokenizers.behaviour(tmp_path)["probe_ids"] != found["probe_ids"]


def test_mixed_precision_trains_and_hands_on_fp32(tmp_path: Path, base: Path, data: Path) -> None:
    stage = make(tmp_path / "sft", "sft", base, data, precision="bf16", steps=20)
    stage.start()
    assert stage.losses()[20] < stage.losses()[1]
    assert {tensor.dtype for tensor in weights(stage.output).values()} == {torch.float32}


def test_a_fetched_checkpoint_whose_loader_gives_other_ids_is_refused(tmp_path: Path) -> None:
    """No stage has sealed what its tokenizer does, but its own file says it: transformers 5 rebuilds a Llama class."""
    for name, tokenizer_class in (("naive", "LlamaTokenizerFast"), ("generic", "PreTrainedTokenizerFast")):
        parent = tmp_path / name
        stages.make_tokenizer(parent / "output", tokenizer_class=tokenizer_class)
        seal.seal_directory(
            parent / "output",
            parent / "seal.json",
            kind=seal.SealKind.DOWNLOAD,
            format="hf",
            fingerprint=stages.FINGERPRINT,
        )
        stage = stages.stage(tmp_path / f"{name}-child", "cpt", "trl", {}, {"checkpoint": parent})
        if name == "naive":
            with pytest.raises(LoaderDisagrees, match=r"other ids than tokenizer\.json"):
                behaviour_gate(stage.spec, backends.load("trl"))
        else:
            behaviour_gate(stage.spec, backends.load("trl"))


def test_a_tokenizer_with_more_ids_than_the_model_embeds_has_its_class(tmp_path: Path, base: Path, data: Path) -> None:
    """Before anything is loaded; torch would say that an index is out of range."""
    from transformers import LlamaForCausalLM

    shutil.copytree(base / "output", tmp_path / "small/output")
    model = LlamaForCausalLM.from_pretrained(base / "output")
    model.resize_token_embeddings(100)
    model.save_pretrained(tmp_path / "small/output")
    with pytest.raises(WrongVocabulary, match="the model embeds the ids below 100") as caught:
        make(tmp_path / "cpt", "cpt", tmp_path / "small", data).start()
    assert classify(caught.value) is FailureClass.TOKENIZER
    failure, shown = symptoms.recognise("IndexError: index out of range in self")
    assert failure is FailureClass.TOKENIZER
    assert "ids and embeddings must be of one vocabulary" in shown
