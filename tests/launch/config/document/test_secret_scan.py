"""Secrets written into a file are refused with the line to write instead, and never shown."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from launch.base.errors import InputError
from launch.config.pipeline_file import read_pipeline
from launch.config.profile_file import read_profile

LETTERS = "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789"
TOKEN = f"hf_{LETTERS}"


def refused(tmp_path: Path, text: str) -> InputError:
    path = tmp_path / "site.yaml"
    path.write_text(f"executor: slurm\n{text}\n")
    with pytest.raises(InputError) as caught:
        read_profile(path)
    return caught.value


@pytest.mark.failure(25)
@pytest.mark.parametrize(
    ("text", "secret", "name"),
    [
        ("env: {HF_TOKEN: canary-value}", "canary-value", "HF_TOKEN"),
        ("env: {WANDB_API_KEY: canary-value}", "canary-value", "WANDB_API_KEY"),
        ("env: {db_password: canary-value}", "canary-value", "db_password"),
        ("setup: ['ulimit -c 0; export HF_TOKEN=canary-value']", "canary-value", "HF_TOKEN"),
        ("srun: ['--export=ALL,WANDB_API_KEY=canary-value']", "canary-value", "WANDB_API_KEY"),
        ("containers: {options: ['--env', 'HF_TOKEN=canary-value']}", "canary-value", "HF_TOKEN"),
        (f"env: {{HUB: {TOKEN}}}", TOKEN, "HUB"),
        (f"setup: ['huggingface-cli login --token {TOKEN}']", TOKEN, None),
        (f"sbatch: {{comment: ghp_{LETTERS}}}", LETTERS, None),
        ("env: {http_proxy: 'http://me:canary-value@proxy:3128'}", "canary-value", "http_proxy"),
        ("env: {CLOUD: AKIAABCDEFGHIJKLMNOP}", "AKIAABCDEFGHIJKLMNOP", "CLOUD"),
    ],
)
def test_a_secret_in_a_profile(tmp_path: Path, text: str, secret: str, name: str | None) -> None:
    error = refused(tmp_path, text)
    assert error.where is not None
    assert error.where.startswith(f"{tmp_path}/site.yaml:2:")
    assert "looks like a secret" in error.message
    assert (f"secrets: [{name}]" if name else "under secrets:") in (error.hint or "")
    assert secret not in f"{error} {error.hint} {error.as_json()}"


@pytest.mark.failure(25)
def test_a_secret_in_a_pipeline_and_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    stage = "{kind: cpt, backend: toy, checkpoint: base, data: c, steps: 1, lr: 0.1, options: {hub: HERE}}"
    text = f"name: p\nmodel: {{base: ./base}}\nstages:\n  c: {{kind: corpus, from: ./raw}}\n  cpt: {stage}\n"
    path.write_text(text.replace("HERE", TOKEN))
    with pytest.raises(InputError, match=r"p.yaml:5:\d+: stages.cpt.options.hub: this looks like a secret"):
        read_pipeline(path)
    path.write_text(text.replace("HERE", "x"))
    with pytest.raises(InputError, match="looks like a secret") as caught:
        read_pipeline(path, [f"stages.cpt.options.hub={TOKEN}"])
    assert TOKEN not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    "text",
    [
        "env: {SSH_KEY: ~/.ssh/id, TOKENIZERS_PARALLELISM: 'false', MAX_TOKEN: '512', PATIENCE: x}",
        "secrets: [HF_TOKEN, WANDB_API_KEY]",
        "setup: ['export MASTER_KEY=$HOME/key', 'test \"$HF_TOKEN\" = \"\"', 'export NCCL_DEBUG=INFO']",
        "env: {REVISION: 0a1b2c3d4e5f60718293a4b5c6d7e8f901234567}",
    ],
)
def test_what_only_looks_like_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(f"executor: slurm\n{text}\n")
    read_profile(path)


def test_no_packaged_profile_is_taken_for_one() -> None:
    found = [Path(str(each)) for each in resources.files("cluster_profiles").iterdir() if each.name.endswith(".yaml")]
    assert len(found) > 3
    for path in found:
        read_profile(path)
