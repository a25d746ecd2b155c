"""Options of the trl back end: each beside what it means, in plain torch or of transformers."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from transformers import get_scheduler  # noqa: E402

from jobs import backends  # noqa: E402
from jobs.backends.trl import settings as trl_settings  # noqa: E402
from jobs.backends.trl.arguments import arguments  # noqa: E402
from jobs.backends.trl.settings import TrainSettings  # noqa: E402
from jobs.core.verdict import FailureClass, classify  # noqa: E402
from jobs.training import interface  # noqa: E402
from jobs.training.interface import ProcessShape  # noqa: E402
from jobs.training.settings import BadSettings  # noqa: E402
from tests.support import stages  # noqa: E402
from tests.support.stages import Stage  # noqa: E402

pytestmark = pytest.mark.train


def make(root: Path, kind: str, base: Path, data: Path, **changes: Any) -> Stage:
    return stages.stage(
        root, kind, "trl", {**stages.SIX_STEPS, **changes}, {"checkpoint": base, "data": data / stages.DATA[kind]}
    )


def losses(root: Path, kind: str, base: Path, data: Path, **changes: Any) -> list[float]:
    made = make(root, kind, base, data, **changes)
    made.start()
    return list(made.losses().values())


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_a_learning_rate_is_that_of_transformers(schedule: str, tmp_path: Path, base: Path, data: Path) -> None:
    """Also one that stays and falls at the end (WSD), and one that falls to ``min_lr``."""
    tried: list[dict[str, Any]] = [{}]
    if schedule != "constant":
        tried += [{"decay_steps": 3}, {"min_lr": 1e-3}]
    for at, more in enumerate(tried):
        made = make(tmp_path / str(at), "cpt", base, data, schedule=schedule, warmup_ratio=0.3, **more)
        made.start()
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3e-3)
        own = {"num_decay_steps": more.get("decay_steps", 4), "decay_type": schedule}
        own["min_lr_ratio"] = more.get("min_lr", 0.0) / 3e-3
        name = "constant_with_warmup" if schedule == "constant" else "warmup_stable_decay"
        wanted = get_scheduler(name, optimizer, 2, 6, {} if schedule == "constant" else own)
        rates = []
        for _ in range(6):
            optimizer.step()
            rates.append(wanted.get_last_lr()[0])
            wanted.step()
        if more.get("min_lr"):  # transformers begins with it, too
            rates[:2] = [0.0, 1.5e-3]
        found = [report.metrics["lr"] for report in made.reports()]
        assert found == pytest.approx(rates, rel=1e-9), more


def test_recomputing_and_attention_change_rounding_only(tmp_path: Path, base: Path, data: Path) -> None:
    plain = losses(tmp_path / "plain", "sft", base, data)
    for name, more in {"again": {"recompute": True}, "eager": {"attention": "eager"}}.items():
        assert losses(tmp_path / name, "sft", base, data, **more) == pytest.approx(plain, rel=1e-5), name
    made = make(tmp_path / "shape", "sft", base, data, recompute=True, steps=1)
    assert "recompute full" in made.start().metrics["step_shape"]


def test_rows_behind_each_other_do_not_see_each_other(tmp_path: Path, base: Path, data: Path) -> None:
    """The losses of padded rows, with fewer tokens through the model."""
    found, tokens = [], []
    for free in (False, True):
        made = make(tmp_path / str(free), "sft", base, data, padding_free=free, micro_batch_size=4)
        tokens.append(made.start().metrics["tokens"])
        found.append(list(made.losses().values()))
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert tokens[1] < tokens[0]


@pytest.mark.parametrize("kind", ["cpt", "sft"])
def test_smoothed_labels_whatever_the_size_of_a_pass(kind: str, tmp_path: Path, base: Path, data: Path) -> None:
    """The mean over the tokens of a step: also where rows of unlike lengths are in passes of their own."""
    whole, parts, free = (
        losses(tmp_path / str(at), kind, base, data, label_smoothing=0.1, **more)
        for at, more in enumerate(({"micro_batch_size": 4}, {"micro_batch_size": 1}, {"padding_free": kind == "sft"}))
    )
    assert parts == pytest.approx(whole, rel=1e-5)
    assert free == pytest.approx(whole, rel=1e-5)


def test_smoothed_labels_and_noise(tmp_path: Path, base: Path, data: Path) -> None:
    """Smoothing mixes the loss with that of all tokens alike; noise on the embeddings is drawn, and again the same."""
    plain = losses(tmp_path / "plain", "cpt", base, data, steps=1)
    smooth = losses(tmp_path / "smooth", "cpt", base, data, steps=1, label_smoothing=0.1)
    uniform = math.log(400)  # a model with random weights: about the same for every token
    assert smooth == pytest.approx([0.9 * plain[0] + 0.1 * uniform], rel=0.01)
    assert smooth != plain
    noisy = [losses(tmp_path / f"noise{at}", "sft", base, data, steps=3, neftune_alpha=5.0) for at in range(2)]
    assert noisy[0] == noisy[1] != losses(tmp_path / "none", "sft", base, data, steps=3)


def first_loss(name: str, beta: float, smoothing: float) -> float:
    """Before anything is learned both gains are 0: what each loss is there, by its paper."""
    return {
        "sigmoid": math.log(2), "robust": math.log(2), "hinge": 1.0, "ipo": 1 / (2 * beta) ** 2, "apo_zero": 1.0,
        "apo_down": 1.0, "nca_pair": 2 * math.log(2), "sppo_hard": 2 * (0.5 / beta) ** 2,
        "exo_pair": math.log(0.5) - 0.5 * (math.log(1 - smoothing) + math.log(smoothing or 1)),
    }[name]  # fmt: skip


@pytest.mark.parametrize("name", trl_settings.LOSSES)
def test_a_loss_of_dpo(name: str, tmp_path: Path, base: Path, data: Path) -> None:
    smoothing = 0.01 if name in trl_settings.SMOOTHED else 0.0
    more = {"loss": name, "label_smoothing": smoothing, "beta": 0.2, "lr": 1e-3}
    found = losses(tmp_path / name, "dpo", base, data, **more)
    assert found[0] == pytest.approx(first_loss(name, 0.2, smoothing), rel=1e-4)
    assert found[-1] < found[0]


def test_optimizers_are_those_of_transformers(tmp_path: Path, base: Path, data: Path) -> None:
    pytest.importorskip("bitsandbytes")
    wanted = {"adamw_8bit": "adamw_8bit", "paged_adamw_8bit": "paged_adamw_8bit", "paged_adamw": "paged_adamw_32bit"}
    for ours, theirs in wanted.items():
        _, given = arguments("cpt", TrainSettings.read({**stages.SIX_STEPS, "optimizer": ours}), 1, tmp_path)
        assert given["optim"].replace("_bnb", "") == theirs


@pytest.mark.parametrize(
    ("kind", "changes", "text"),
    [
        ("sft", {"warmup_steps": 2, "warmup_ratio": 0.1}, "warmup_steps and warmup_ratio say the same thing twice"),
        ("sft", {"min_lr": 1.0}, r"min_lr 1 is more than lr 0\.003"),
        ("sft", {"schedule": "constant", "decay_steps": 2}, "of a rate that falls"),
        ("sft", {"warmup_steps": 3, "decay_steps": 4}, "warmup_steps 3 and decay_steps 4 are more than steps 6"),
        ("sft", {"warmup_ratio": 0.5, "decay_steps": 4}, "warmup_steps 3 and decay_steps 4 are more than steps 6"),
        ("sft", {"warmup_steps": 7}, "warmup_steps 7 is more than steps 6"),
        ("sft", {"shard": "full", "optimizer": "adamw_8bit"}, "takes no sharded weights: write adamw, or shard: none"),
        ("sft", {"shard": "full", "lora_rank": 4, "lora_base": "nf4"}, "without adapters: write shard: none"),
        ("cpt", {"padding_free": True}, "padding_free is for kind sft"),
        ("cpt", {"loss": "ipo"}, "loss is for kind dpo"),
        ("sft", {"liger": True}, "liger is for kind cpt"),
        ("cpt", {"liger": True, "label_smoothing": 0.1}, "makes no logits, which label_smoothing needs"),
        ("dpo", {"loss": "ipo", "label_smoothing": 0.1}, "label_smoothing is for loss robust and exo_pair"),
        ("dpo", {"label_smoothing": 0.1}, "TRL does not use it in sigmoid: leave it out, or write loss: robust"),
        ("dpo", {"loss": "exo_pair"}, "needs label_smoothing above 0"),
    ],
)
def test_what_is_refused(kind: str, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(BadSettings, match=text):
        TrainSettings.read({**stages.SIX_STEPS, **changes}, kind)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"warmup_steps": 7}, r"warmup_steps 7 is more than steps 6 \(epochs 0\.5 of 48 examples\)"),
        ({"decay_steps": 7}, "warmup_steps 0 and decay_steps 7 are more than steps 6"),
        ({"decay_steps": 4, "warmup_ratio": 0.5}, "warmup_steps 3 and decay_steps 4 are more than steps 6"),
        (
            {"validate_every": 2, "early_stopping": {"patience": 1, "min_steps": 6}},
            "min_steps 6 must be less than steps 6",
        ),
    ],
)
def test_steps_of_epochs_are_held_against_the_other_settings(changes: dict[str, Any], text: str) -> None:
    """When they are counted, as at the submission where a stage says them."""
    given = TrainSettings.read({**stages.SIX_STEPS, "steps": None, "epochs": 0.5, **changes})
    with pytest.raises(BadSettings, match=text):
        given.counted(48)
    assert given.counted(480).steps == 60


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"attention": "flash_attention_2"}, "pip install flash-attn"),
        ({"optimizer": "adamw_8bit"}, "optimizer: adamw_8bit needs bitsandbytes, .* pip install bitsandbytes"),
        ({"lora_rank": 4, "lora_base": "nf4"}, "pip install (peft|bitsandbytes)"),
        ({"liger": True}, "liger: true needs liger_kernel, .* pip install liger-kernel"),
    ],
)
def test_a_package_that_is_not_there_is_named(
    changes: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As something missing, not as a wrong setting: of an image the login node knows no package."""
    monkeypatch.setattr(interface, "versions", lambda name: {})
    with pytest.raises(interface.Missing, match=text) as caught:
        TrainSettings.read({**stages.SIX_STEPS, **changes}, "cpt")
    assert classify(caught.value) is FailureClass.VERSIONS


def test_liger_is_that_of_transformers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The kernels themselves need a GPU (benchmarks/gpu)."""
    monkeypatch.setattr(interface, "versions", lambda name: {name: "99.0"})
    settings = TrainSettings.read({**stages.SIX_STEPS, "liger": True}, "cpt")
    assert arguments("cpt", settings, 1, tmp_path)[1]["use_liger_kernel"] is True


def test_an_older_transformers_would_smooth_each_pass_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interface, "versions", lambda name: {name: "5.14.2"})
    with pytest.raises(
        interface.Missing, match=r"label_smoothing needs transformers 5\.15, here is 5\.14\.2: pip install"
    ):
        TrainSettings.read({**stages.SIX_STEPS, "label_smoothing": 0.1})
    TrainSettings.read({**stages.SIX_STEPS, "label_smoothing": 0.1, "loss": "robust"}, "dpo")


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("__version__ = '2.11.0+cu130'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n", True),
        ("__version__ = '2.11.0+rocm'\ncuda: Optional[str] = None\nhip: Optional[str] = '7.0'\n", True),
        ("__version__ = '2.11.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n", False),
    ],
)
def test_a_torch_without_gpus_is_refused_for_a_stage_with_gpus(
    text: str, fits: bool, tmp_path: Path, base: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "version.py").write_text(text)
    place = importlib.util.spec_from_file_location("torch", package / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: place)
    backend, spec = backends.load("trl"), make(tmp_path / "stage", "sft", base, data).spec
    interface.rendered(backend, spec, ProcessShape())
    if fits:
        interface.rendered(backend, spec, ProcessShape(gpus=True))
    else:
        with pytest.raises(interface.Missing, match=r"on the CPU alone, .* --force-reinstall torch=="):
            interface.rendered(backend, spec, ProcessShape(gpus=True))
