"""NVIDIA's stacks as jobs of a chain on a real Slurm, each in an environment of its own, on the CPU.

What stands in for the GPU comes by the environment that the profile names, as a site would do it: nothing of ours knows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.core import seal
from launch.config.profile_file import locate
from tests.support import environments, stages
from tests.support.chains import Chain
from tests.support.slurm import Slurm

pytestmark = [pytest.mark.slurm, pytest.mark.train, pytest.mark.nvidia]

TRAINING: dict[str, Any] = {
    "steps": 4, "lr": 1e-3, "batch_size": 4, "micro_batch_size": 2, "sequence_length": 64, "warmup_steps": 1, "save_every": 2,
}  # fmt: skip

SHARED = Path("/tmp/nemo_tokenizer")


def written(directory: Path) -> dict[str, int]:
    """When the files there were last written."""
    return {path.name: path.stat().st_mtime_ns for path in directory.glob("*")}


class TinyChain(Chain):
    """Data and a tiny Llama of tests/backends; corpus, pairs and preferences through ``stages`` of the test."""

    def __init__(
        self, slurm: Slurm, directory: Path, training: dict[str, dict[str, Any]], venvs: dict[str, Path]
    ) -> None:
        self._training, self._venvs = training, venvs
        directory.mkdir()
        stages.make_data(directory / "data")
        stages.make_model(directory / "tiny")
        super().__init__(slurm, directory)

    def _write(self, stages: Any, seed: int, settings: Any, profile: Any) -> None:
        data = {
            "corpus": {"kind": "corpus", "from": "./data/corpus/output/train.jsonl", "document_chars": 400},
            "pairs": {"kind": "instructions", "from": "./data/instructions/output/train.jsonl"},
            "prefs": {"kind": "preferences", "from": "./data/preferences/output/train.jsonl"},
        }
        read = {stage["data"] for stage in self._training.values()}
        chosen = {name: stage for name, stage in data.items() if name in read} | self._training
        value = {"name": "nvidia", "seed": 3, "model": {"base": "./tiny"}, "stages": chosen}
        self.pipeline = self.directory / "pipeline.yaml"
        self.pipeline.write_text(yaml.safe_dump(value, sort_keys=False))
        packaged = yaml.safe_load(locate("devcluster").read_text())
        named = {name: {"venv": str(venv)} for name, venv in self._venvs.items()}
        resources = {"default": {"nodes": 1, "processes_per_node": 1, "cpus": 2, "time": "0:30:00"}}
        self.profile = self.directory / "profile.yaml"
        self.profile.write_text(yaml.safe_dump({**packaged, "environments": named, "resources": resources}))


def sealed(chain: Chain, run: str, stage: str) -> seal.Seal:
    store = chain.store(run, stage)
    assert store.seal.exists(), f"{stage} is not sealed\n{chain.log(run, stage)[-6000:]}"
    return seal.verify(store.output, store.seal)


def compared(chain: Chain, run: str, stage: str) -> None:
    """A conversion's seal says how far the logits are apart, and the tokenizer is the same to the last byte."""
    metrics = sealed(chain, run, stage).metrics
    assert 0 <= metrics["logit_difference"] <= metrics["logit_tolerance"]


def test_import_cpt_sft_export_dpo(slurm: Slurm, tmp_path: Path) -> None:
    """The planner inserts import and export; DPO is done by TRL in the tests' own environment."""
    venv = environments.on_cpu(environments.installed("nemo", "nemo"), tmp_path / "nemo")
    training = {
        "cpt": {"kind": "cpt", "backend": "nemo", "checkpoint": "base", "data": "corpus", **TRAINING},
        "sft": {"kind": "sft", "backend": "nemo", "checkpoint": "cpt", "data": "pairs", **TRAINING},
        "dpo": {"kind": "dpo", "checkpoint": "sft", "data": "prefs", **TRAINING},
    }
    chain = TinyChain(slurm, tmp_path / "chain", training, {"nemo": venv})
    chain.fetch()
    before = written(SHARED)
    run = chain.submit()
    chain.wait(900)
    for name in chain.plan_names(run):
        sealed(chain, run, name)  # the first that failed says why
    for name in ("base-nemo", "sft-hf"):
        compared(chain, run, name)
    formats = {name: sealed(chain, run, name).format for name in chain.plan_names(run) if name in training}
    assert formats == {"cpt": "nemo", "sft": "nemo", "dpo": "hf"}
    for name in training:
        assert sealed(chain, run, name).step == 4
    exported = chain.store(run, "sft-hf").output
    assert (exported / "tokenizer.json").read_bytes() == (chain.directory / "tiny/tokenizer.json").read_bytes()
    chain.assert_done_once(run)
    assert written(SHARED) == before  # NeMo's own place for a tokenizer is another user's, too
