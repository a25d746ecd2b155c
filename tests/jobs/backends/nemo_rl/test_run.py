"""A stage of NeMo-RL from its start to its seal, with a checkout whose programs print its lines and write its files."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from jobs import backends
from jobs.backends.nemo_rl import child, cluster, render, steps, supervise
from jobs.core import seal
from jobs.core.verdict import FailureClass
from jobs.training import interface, rope
from jobs.training.deadline import StopRequest
from jobs.training.interface import Result, Unfinished
from jobs.training.order import training_order
from tests.support import nemo_rl_fake, stages

pytest.importorskip("torch")

SETTINGS: dict[str, Any] = {
    "steps": 6, "lr": 1e-5, "batch_size": 4, "sequence_length": 64, "save_every": 2, "keep_saves": 2,
}  # fmt: skip


@dataclass
class Made:
    """A stage and the checkout that it finds."""

    stage: stages.Stage
    root: Path

    @property
    def deadline(self) -> Path:
        return self.stage.spec.stage_paths.deadline("7", 0)

    def start(self, **plan: Any) -> Result:
        nemo_rl_fake.do(self.root, **plan)
        stop = StopRequest(self.stage.spec.stage_paths, self.deadline, self.stage.spec.lead_seconds)
        return stages.run_spec(self.stage.spec, stop, self.stage.events)

    def config(self) -> dict[str, Any]:
        return dict(json.loads((self.stage.spec.stage_paths.root / "nemo_rl/config.yaml").read_text()))

    def sealed(self) -> list[int]:
        return self.stage.spec.store_paths.sealed_steps()

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.stage.events if event["event"] == name]

    def seen(self) -> list[dict[str, Any]]:
        return nemo_rl_fake.seen(self.root)


@pytest.fixture
def make(tmp_path: Path, base: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Made]:
    """A stage on one GPU with the checkout of a version; what torch says of GPUs is all that is not as in a job."""

    def made(kind: str = "dpo", version: str = "0.6.0", **changes: Any) -> Made:
        root = tmp_path / "checkout"
        nemo_rl_fake.tree(root, version)
        monkeypatch.syspath_prepend(str(root))
        monkeypatch.setenv("PYTHONPATH", str(root))
        monkeypatch.setenv("SLURM_JOB_ID", "7")
        monkeypatch.setenv("SLURM_STEP_NUM_NODES", "1")
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
        monkeypatch.setattr(child, "POLL_SECONDS", 0.02)
        rows = {"dpo": "preferences", "sft": "instructions"}[kind]
        inputs = {"checkpoint": base, "data": data / rows}
        settings = {key: value for key, value in {**SETTINGS, **changes}.items() if value is not None}
        given = stages.stage(tmp_path / "it", kind, "nemo_rl", settings, inputs)
        return Made(given, root)

    return made


@pytest.mark.parametrize("kind", ["dpo", "sft"])
@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "0.7.0"])
def test_saves_are_sealed_as_they_appear_and_the_last_is_handed_on(
    make: Callable[..., Made], base: Path, kind: str, version: str
) -> None:
    made = make(kind, version)
    found = made.start()
    assert (found.outcome, found.step) == ("done", 6)
    assert [event["step"] for event in made.events("saved")][-1] == 6
    assert made.sealed()[0] == 6
    assert len(made.sealed()) <= 2
    assert found.metrics["first_loss"] == 1.0
    assert found.metrics["last_loss"] == 0.1667
    assert [report.step for report in made.stage.reports()] == [1, 2, 3, 4, 5, 6]
    output = made.stage.output
    assert steps.problem(output) is None
    assert steps.total(output) == 6
    assert (output / "policy/weights/__0_0.distcp").read_text() == "weights at 6"
    assert not (output / "policy/optimizer").exists()
    assert (output / "hf/tokenizer.json").read_bytes() == (base / "output/tokenizer.json").read_bytes()
    assert made.seen()[0]["slurm"] == []  # Ray would hand them to all workers
    assert list(made.seen()[0]["workers"].values()) == [sys.executable]


@pytest.mark.parametrize(("kind", "version"), [("sft", "0.7.0"), ("dpo", "0.4.0"), ("dpo", "0.3.1")])
def test_rows_are_given_in_the_order_of_training(
    make: Callable[..., Made], data: Path, kind: str, version: str
) -> None:
    """So that an epoch is a permutation with no row left out; 0.3 shuffles by itself whatever it is told."""
    made = make(kind, version, steps=None, epochs=2, batch_size=5)
    found = made.start()
    assert (found.outcome, found.step) == ("done", 10)  # 2 x 24 rows, 5 a step
    config = made.config()
    files = [
        value for key, value in (config["data"].get("train") or config["data"]).items() if key.endswith("data_path")
    ]
    rows = [json.loads(line)["prompt"] for line in Path(files[0]).read_text().splitlines()]
    source = data / {"sft": "instructions", "dpo": "preferences"}[kind] / "output/train.jsonl"
    every = [json.loads(line)["prompt"] for line in source.read_text().splitlines()]
    assert len(made.events("order")) == 1
    if version == "0.3.1":
        assert rows == every
        assert "shuffle" not in config["data"]
        return
    assert config["data"]["shuffle"] is False
    assert config[kind]["max_num_epochs"] == 1
    assert rows == [every[index] for index in training_order(24, 5, 10, 1)]


def test_an_older_transformers_reads_the_base_of_rotary_positions(
    make: Callable[..., Made], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NeMo-RL up to 0.5 has one that takes 10000 where it finds only what transformers 5 writes."""
    monkeypatch.setattr(rope.metadata, "version", lambda name: "4.53.3")
    made = make("sft", "0.4.0")
    assert made.start().outcome == "done"
    model = Path(made.config()["policy"]["model_name"])
    written = json.loads((base / "output/config.json").read_text())
    read = json.loads((model / "config.json").read_text())
    assert read == {**written, "rope_theta": written["rope_parameters"]["rope_theta"]}
    assert (model / "model.safetensors").samefile(base / "output/model.safetensors")
    # What is handed on has the configuration as it came.
    assert json.loads((made.stage.output / "hf/config.json").read_text()) == written


def test_each_save_is_sealed_before_the_next_is_written(make: Callable[..., Made]) -> None:
    """Killed between two saves, a run goes on from the last one that was written."""
    made = make()
    made.stage.spec.stage_paths.stop.touch()
    assert made.start(waits_after=2).step == 2  # it would stand there for five minutes: it was sealed, then ended
    assert made.sealed() == [2]
    made.stage.spec.stage_paths.stop.unlink()
    assert made.start().outcome == "done"
    assert [start["there"] for start in made.seen()] == [[], ["step_2"]]


@pytest.mark.parametrize("gone", [True, False])
def test_a_checkpoint_that_is_removed_while_it_is_linked_is_not_sealed(
    make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    """NeMo-RL removes it once a newer one is there; half of it would look like a whole one."""
    made = make(keep_saves=1)
    link, linked = steps.link_tree, []

    def late(source: Path, target: Path) -> None:
        linked.append(source.name)
        if source.name == "step_2":
            until(lambda: not source.exists())
            if not gone:  # as if all but the optimizer were still to be removed
                until(source.with_name("step_6").exists)
                link(source.with_name("step_6"), source)
                shutil.rmtree(source / "policy/optimizer")
                (source / "policy/weights/__0_0.distcp").unlink()
        link(source, target)

    monkeypatch.setattr(steps, "link_tree", late)
    monkeypatch.setattr(supervise, "_finish", lambda *given: None)
    found = made.start(noticed="", noticed_until=2)  # it goes on as soon as the link has begun
    assert (found.outcome, found.step) == ("done", 6)
    assert linked[0] == "step_2"
    assert [event["step"] for event in made.events("saved")][-1] == 6
    assert 2 not in [event["step"] for event in made.events("saved")]
    saves = made.stage.spec.store_paths
    assert (saves.save(6) / "step/policy/optimizer/__0_0.distcp").read_text() == "optimizer at 6"


def until(found: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not found() and time.monotonic() < end:
        time.sleep(0.01)


def test_a_stop_by_hand_ends_it_after_its_next_save(make: Callable[..., Made]) -> None:
    made = make(steps=8)
    found = made.start(stop_file_at=3, stop_file=str(made.stage.spec.stage_paths.stop), waits_after=4)
    # The save of step 2 is the next one where it is noticed after the stop, which comes in step 3.
    assert found.outcome == "stopped"
    assert found.step in (2, 4)
    assert made.sealed()[0] == found.step


def test_its_own_clock_stops_it_and_the_next_start_goes_on(make: Callable[..., Made]) -> None:
    """It ends with exit code 0 short of the target; what its checkpoint says counts."""
    made = make(save_every=None)
    stages.write_deadline(made.deadline, time.time() + 100_000)
    found = made.start(seconds_a_step=30_000)
    assert (found.outcome, found.step) == ("stopped", 3)  # three steps are pretended to take all but a step
    assert made.sealed()[0] == 3, (
        "the one at its end, beside those that it makes by itself: an eighth of the steps apart"
    )
    assert not made.stage.output.joinpath("training_info.json").exists()
    again = made.start()
    assert (again.outcome, again.step) == ("done", 6)
    assert [start["there"] for start in made.seen()] == [[], ["step_3"]]
    assert made.events("resumed")[0]["step"] == 3
    assert [report.step for report in made.stage.reports()] == [1, 2, 3, 4, 5, 6]


def test_an_older_version_is_ended_after_a_save_when_the_limit_comes_near(make: Callable[..., Made]) -> None:
    """0.3 has no clock."""
    made = make(version="0.3.1")
    stages.write_deadline(made.deadline, time.time() + made.stage.spec.lead_seconds - 1)
    found = made.start(waits_after=2)
    assert (found.outcome, found.step) == ("stopped", 2)
    assert "checkpoint_must_save_by" not in made.config()["checkpointing"]


def test_how_long_it_may_train_is_reckoned_from_the_end_of_the_allocation(make: Callable[..., Made]) -> None:
    made = make()
    end = time.time() + 5000
    stages.write_deadline(made.deadline, end)
    before = time.time()
    made.start()
    (budget,) = made.events("budget")
    lead = made.stage.spec.lead_seconds
    latest = end - before - supervise.SETUP_SECONDS - lead
    assert latest - (time.time() - before) - 2 <= budget["seconds"] <= latest + 1
    assert budget["setup_seconds"] == supervise.SETUP_SECONDS
    written = made.config()["checkpointing"]["checkpoint_must_save_by"]
    assert written in {render.duration(budget["seconds"] + off) for off in (-1, 0, 1)}


def test_set_up_and_save_times_are_learned(make: Callable[..., Made], tmp_path: Path) -> None:
    made = make()
    made.start()
    learned = json.loads((made.stage.spec.stage_paths.root / "nemo_rl/setup.json").read_text())
    assert 0 < learned["seconds"] < supervise.SETUP_SECONDS
    context = type("Context", (), {})()
    context.stop = type("Stop", (), {"end": lambda self: time.time() + 5000})()
    context.event = lambda name, **facts: None
    for name, taken, left in (("a", 0.0, 5000 - 40 - 120), ("b", 100.0, 5000 - 40 - 300)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "setup.json").write_text(json.dumps({"seconds": 40.0, "save_seconds": taken}))
        spec = replace(made.stage.spec, lead_seconds=120.0)
        assert supervise._budget(spec, context, tmp_path / name) == pytest.approx(left, abs=60)
    context.stop = type("Stop", (), {"end": lambda self: None})()
    assert supervise._budget(made.stage.spec, context, tmp_path / "a") is None


def test_exactly_the_newest_valid_save_is_laid_out(make: Callable[..., Made]) -> None:
    """NeMo-RL takes the highest number in its directory, whatever it is."""
    made = make(steps=4)
    made.start()
    saves = made.stage.spec.store_paths
    assert saves.sealed_steps() == [4, 2]
    weights = saves.save(4) / "step/policy/weights/__0_0.distcp"
    weights.unlink()  # a link: the file of the run is another name of it
    weights.write_text("weights at 5")
    stranger = saves.saves / "nemo_rl/step_9/policy/weights"
    stranger.mkdir(parents=True)
    found = made.start()
    assert (found.outcome, found.step) == ("done", 4)
    assert made.seen()[-1]["there"] == ["step_2"]
    assert [event["step"] for event in made.events("save_skipped")] == [4]
    assert saves.sealed_steps() == [4, 2]  # written anew
    assert seal.verify(saves.save(4), saves.save_seal(4)).step == 4


def test_saves_of_another_input_model_are_not_gone_on_with(make: Callable[..., Made], tmp_path: Path) -> None:
    """NeMo-RL would silently take them. The place of the saves is that of the fingerprint; here somebody put
    those of another there."""
    made = make()
    made.stage.spec.stage_paths.stop.touch()
    made.start(waits_after=2)
    made.stage.spec.stage_paths.stop.unlink()
    other = Made(stages.Stage(replace(made.stage.spec, fingerprint="cd" * 32)), made.root)
    assert other.start().outcome == "done"
    assert other.seen()[-1]["there"] == []
    assert "another configuration" in other.events("save_skipped")[0]["reason"]


def test_an_end_without_any_checkpoint_is_no_end(make: Callable[..., Made]) -> None:
    with pytest.raises(Unfinished, match="left no complete checkpoint"):
        make().start(ends_at=1, says="bye", code=0)


def test_an_error_is_told_with_the_line_that_shows_it(make: Callable[..., Made]) -> None:
    made = make()
    with pytest.raises(child.DriverFailed, match=r"exit code 1: torch\.OutOfMemoryError") as caught:
        made.start(ends_at=3, says="torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", code=1)
    assert caught.value.failure is FailureClass.GPU_MEMORY
    assert made.sealed() == [2]  # what was saved before it stays


@pytest.mark.parametrize(
    ("kind", "version", "plan", "said"),
    [
        ("dpo", "0.5.0", {"ignores_our_keys": True}, "'HelpSteer3', not BinaryPreferenceDataset"),
        ("dpo", "0.7.0", {"ignores_our_keys": True}, "'HelpSteer3', not BinaryPreferenceDataset"),
        ("dpo", "0.3.1", {"ignores_our_keys": True}, "'HelpSteer3', not ours"),
        ("sft", "0.6.0", {"ignores_our_keys": True}, "'squad', not ResponseDataset"),
        ("dpo", "0.6.0", {"rows": 23}, "has loaded 23 rows, .* has 24"),
        ("sft", "0.4.0", {"rows": 23}, "has loaded 23 rows, .* has 24"),
        ("dpo", "0.6.0", {"lines": ["Downloading readme: nvidia/HelpSteer3"]}, "reads another data set"),
    ],
)
def test_a_silent_fall_back_to_other_data_is_an_error_and_its_saves_are_not_kept(
    make: Callable[..., Made], kind: str, version: str, plan: dict[str, Any], said: str
) -> None:
    """Its exit code is 0."""
    made = make(kind, version)
    with pytest.raises(child.DriverFailed, match=said) as caught:
        made.start(**plan)
    assert caught.value.failure is FailureClass.WRONG_DATA
    assert made.sealed() == []


def test_what_its_own_parser_could_not_read_is_told(make: Callable[..., Made]) -> None:
    """This checkout has no parser."""
    made = make()
    assert made.start().metrics["validated"] is False
    assert "No module named" in made.events("not_validated")[0]["reason"]


RAY = '''
"""As much of Ray as is asked: each look finds one more node."""
import os
LOOKS = []
def init(address, **options):
    LOOKS.append(address)
def shutdown():
    pass
def nodes():
    LOOKS.append("look")
    up = min(len(LOOKS) - 1, int(os.environ["FAKE_RAY_NODES"]))
    alive = [node(f"n{i}", Resources={"GPU": 2.0}) for i in range(up)]
    return [*alive, node("gone", Alive=False, Resources={"GPU": 8.0})]
def node(name, **given):  # of containers, which all call their host the same
    return {"Alive": True, "NodeName": name, "NodeManagerHostname": "host", **given}
'''


@pytest.mark.parametrize("come", [2, 1])
def test_all_gpus_of_the_ray_cluster_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, come: int) -> None:
    (tmp_path / "ray.py").write_text(RAY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.setattr(cluster.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("FAKE_RAY_NODES", str(come))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    shape = cluster.ClusterShape(nodes=2, gpus_per_node=2)
    if come == 2:
        cluster.wait(shape, 60.0)
        import ray

        assert ray.LOOKS == ["10.0.0.1:6379", "look", "look"]
    else:
        with pytest.raises(cluster.MissingGpus, match=r"2 of 4 GPUs joined .* \(n0: 2\)"):
            cluster.wait(shape, 0.2)
    monkeypatch.delitem(sys.modules, "ray", raising=False)


def test_a_node_without_a_gpu_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(cluster.MissingGpus, match="no GPU is visible here"):
        cluster.ClusterShape.of_job()


def test_where_its_parser_cannot_be_asked_the_submission_is_told(
    make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interface, "needs_gpu_build", lambda: None)
    made = make("sft")
    found = interface.rendered(backends.load("nemo_rl"), made.stage.spec, interface.ProcessShape(gpus=True))
    assert found.command[-3].endswith("examples/run_sft.py")
    assert "own parser has not read the configuration: ModuleNotFoundError" in found.notes[0]
    own = json.loads(found.files["nemo_rl/config.yaml"])
    made.start()
    ran = made.config()
    for name in ("checkpoint_must_save_by", "checkpoint_dir"):  # of a start, which writes in a directory of its own
        del own["checkpointing"][name], ran["checkpointing"][name]
    del own["data"]["add_bos"], ran["data"]["add_bos"]  # read from the tokenizer, which may not be there at submission
    assert ran == own
