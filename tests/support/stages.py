"""Stages made by hand, and a model so small that a training step takes milliseconds.

Also imported by interpreters that have no package ``tests`` of ours (in_nemo): it imports nothing of it but in functions.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jobs import backends
from jobs.core import files, progress
from jobs.core.progress import ProgressWriter, Report
from jobs.core.shares import Node
from jobs.core.spec import Input, StageSpec, save
from jobs.encoding.rows import RowEncoder
from jobs.encoding.settings import Encoding
from jobs.encoding.tokens import Tokens
from jobs.training.deadline import StopRequest
from jobs.training.interface import Result, WorkContext
from jobs.training.saves import Saves

ROOT = Path(__file__).resolve().parents[2]
FINGERPRINT = "ab" * 32

DATA = {"cpt": "corpus", "sft": "instructions", "dpo": "preferences"}
"""Kind of training -> the data of ``make_data`` that it takes."""

ENGLISH = ("Save page", "Delete user", "New file", "Open the list", "Change language", "Log in", "Search", "Home")
EUROPEAN = (
    "Guardar página", "Apagar utilizador", "Novo ficheiro", "Abrir a lista", "Mudar idioma", "Iniciar sessão", "Procurar",
    "Ecrã inicial",
)  # fmt: skip
BRAZILIAN = (
    "Salvar página", "Excluir usuário", "Novo arquivo", "Abrir a listagem", "Trocar idioma", "Entrar", "Pesquisar",
    "Tela inicial",
)  # fmt: skip


def encode_pair(tokenizer: Any, prompt: str, completion: str) -> Tokens:
    """Ids of a prompt and its completion, both plain texts, in which control tokens count."""
    encoder = RowEncoder(tokenizer, Encoding(special_tokens="allow"))
    return encoder.encode({"prompt": prompt, "completion": completion})["completion"]


SIX_STEPS: dict[str, Any] = {
    "steps": 6, "lr": 3e-3, "batch_size": 4, "micro_batch_size": 2, "sequence_length": 64, "seed": 3, "threads": 1,
}  # fmt: skip
"""Settings of a training that takes a second."""


@dataclass
class StopAfter(StopRequest):
    """Says stop at the ``step``-th boundary that it is asked about; never if None."""

    step: int | None = None
    asked: int = 0
    saves: list[float] = field(default_factory=list)

    def reason(self, now: float | None = None) -> str | None:
        self.asked += 1
        return "asked to stop" if self.asked == self.step else None

    def end(self) -> float | None:
        return None

    def saved(self, seconds: float) -> None:
        self.saves.append(seconds)

    def save_period(self, steps: int, every: int | None) -> int:
        return every or steps


@dataclass
class Stage:
    """One stage that can be started again and again, as a requeued job is."""

    spec: StageSpec
    events: list[dict[str, Any]] = field(default_factory=list)

    def start(self, stop_after: int | None = None) -> Result:
        """One start in this process."""
        return run_spec(self.spec, StopAfter(step=stop_after), self.events)

    def reports(self) -> list[Report]:
        return list(progress.read(self.spec.stage_paths.progress))

    def losses(self) -> dict[int, float]:
        """Step -> loss, the newest report of a step winning."""
        return {report.step: report.metrics["loss"] for report in self.reports()}

    @property
    def output(self) -> Path:
        return self.spec.store_paths.partial


def run_spec(spec: StageSpec, stop: StopRequest, events: list[dict[str, Any]]) -> Result:
    """What ``jobs.worker.work`` does around a back end, without gate and verdict."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if rank == 0:
        shutil.rmtree(spec.store_paths.partial, ignore_errors=True)
        spec.store_paths.partial.mkdir(parents=True)

    def event(name: str, **facts: Any) -> None:
        events.append({"event": name, **facts})

    context = WorkContext(
        output=spec.store_paths.partial,
        progress=ProgressWriter(spec.stage_paths.progress, enabled=rank == 0),
        stop=stop,
        saves=Saves(
            spec.store_paths,
            spec.fingerprint,
            None,
            event,
            node=Node.of(rank, world),
            keep_every=spec.settings.get("keep_every"),
        ),
        event=event,
        rank=rank,
        world=world,
    )
    result = backends.load(spec.backend).run(spec, context)
    context.saves.wait()
    return result


def quiet_context(root: Path, rank: int = 0, world: int = 1) -> Any:
    """As much of a context as making ready of data looks at; ``events`` are those that it was told."""
    events: list[dict[str, Any]] = []

    def event(name: str, **facts: Any) -> None:
        events.append({"event": name, **facts})

    progress = ProgressWriter(root / "progress.jsonl", enabled=False)
    return SimpleNamespace(rank=rank, world=world, event=event, events=events, progress=progress)


def start_ranks(world: int, *starts: tuple[Stage, int | None]) -> None:
    """Start stages, one after the other, on the same processes; each with the boundary to stop at."""
    from tests.support import ranks

    given = []
    for one, stop_after in starts:
        path = one.spec.stage_paths.root / "spec.json"
        save(path, one.spec)
        given.append((path, stop_after))
    ranks.run(world, given, given[0][0].with_name("ranks.log"))


def write_deadline(deadline: Path, epoch: float) -> None:
    """Replace the deadline, as the watcher on the batch host does."""
    files.write_atomic(deadline, f"{epoch:.0f}\n")


def spec_of(root: Path, **more: Any) -> StageSpec:
    """That of a training by ``toy`` whose directories are below ``root``; ``more``: what is otherwise."""
    usual: dict[str, Any] = {
        "run": "abcde",
        "pipeline": "p",
        "stage": "cpt",
        "kind": "cpt",
        "backend": "toy",
        "attempt": "aaaaaa",
        "fingerprint": "0" * 64,
        "stage_dir": str(root / "stage"),
        "store_dir": str(root / "store" / "checkpoint-0"),
        "produces": {"kind": "checkpoint", "format": "toy"},
        "settings": {},
    }
    return StageSpec(**{**usual, **more})


def stage(
    root: Path,
    kind: str,
    backend: str,
    settings: dict[str, Any],
    inputs: dict[str, Path],
    formats: dict[str, str] | None = None,
) -> Stage:
    """A stage below ``root`` that reads the store entries ``inputs`` (role -> root of the entry)."""
    for part in ("stage", "store/saves"):
        (root / part).mkdir(parents=True, exist_ok=True)
    given = {
        role: Input(role, str(path), "checkpoint", (formats or {}).get(role, "hf"), FINGERPRINT)
        for role, path in inputs.items()
    }
    return Stage(
        spec_of(
            root,
            stage=root.name,
            kind=kind,
            backend=backend,
            fingerprint=FINGERPRINT,
            store_dir=str(root / "store"),
            produces={"kind": "checkpoint", "format": "hf"},
            settings=settings,
            inputs=given,
        )
    )


def with_settings(given: Stage, root: Path, **changes: Any) -> Stage:
    """The same stage elsewhere with other settings."""
    settings = {**given.spec.settings, **changes}
    made = stage(root, given.spec.kind, given.spec.backend, settings, {})
    return Stage(replace(made.spec, inputs=given.spec.inputs))


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def make_data(root: Path) -> None:
    """Entries ``corpus``, ``instructions`` and ``preferences`` below ``root``."""
    rows: dict[str, list[dict[str, str]]] = {"corpus": [], "instructions": [], "preferences": []}
    for index in range(24):
        english, european, brazilian = (texts[index % 8] for texts in (ENGLISH, EUROPEAN, BRAZILIAN))
        prompt = f"Translate: {english} {index}\n"
        more = " ".join(EUROPEAN[(index * step) % 8] for step in (3, 5, 7, 1, 2))
        rows["corpus"].append({"id": str(index), "text": f"{european} {index}. {more}"})
        rows["instructions"].append({"id": str(index), "prompt": prompt, "completion": european})
        rows["preferences"].append({"id": str(index), "prompt": prompt, "chosen": european, "rejected": brazilian})
    for name, found in rows.items():
        for split in ("train", "test"):
            write_rows(root / name / "output" / f"{split}.jsonl", found)


def make_tokenizer(output: Path, vocabulary: int = 400, tokenizer_class: str = "PreTrainedTokenizerFast") -> None:
    """A byte-level BPE tokenizer of our few words, as a directory of Hugging Face's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<unk>", "<s>", "</s>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([*ENGLISH, *EUROPEAN, *BRAZILIAN] * 4, trainer)
    output.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(output / "tokenizer.json"))
    config = {
        "tokenizer_class": tokenizer_class, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "pad_token": "</s>", "model_max_length": 256, "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    (output / "tokenizer_config.json").write_text(json.dumps(config))


def make_model(output: Path, dropout: float = 0.0, seed: int = 0) -> None:
    """A Llama of 2 layers, 64 wide, with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    make_tokenizer(output)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        attention_dropout=dropout,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(output)
