"""What back ends say of their stages before anything is submitted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.core import seal
from tests.support.toy_chain import STAGES, Chain


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("{ballast_mbb: 2}", "unknown setting 'ballast_mbb'; did you mean 'ballast_mb'?"),
        ("{ballast_mb: much}", "ballast_mb must be a whole number below 2^63, not 'much'"),
    ],
)
def test_a_setting_that_the_back_end_refuses_ends_the_submission(tmp_path: Path, options: str, said: str) -> None:
    """No job is made and no cluster is asked: there is none here."""
    stages = STAGES.replace("checkpoint: cpt, data: pairs,", f"checkpoint: cpt, data: pairs, options: {options},")
    chain = Chain.make(tmp_path / "chain", stages, cluster="devcluster")
    chain.fetch()
    done = chain.start(check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"stage 'sft': back end 'toy': {said}" in done.stderr
    assert f"{chain.pipeline}:9" in done.stderr
    assert not chain.workspace.runs.exists() or not list(chain.workspace.runs.iterdir())


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_plan_and_a_run_here_refuse_it_too(tmp_path: Path, command: str) -> None:
    """With the line of the setting, before anything is fetched or run."""
    options = "{ballast_mbb: 2}"
    stages = STAGES.replace("checkpoint: cpt, data: pairs,", f"checkpoint: cpt, data: pairs, options: {options},")
    chain = Chain.make(tmp_path / "chain", stages, cluster="local")
    if command == "run":
        chain.fetch()
    done = chain.overnight(command, str(chain.pipeline), "--cluster", "local", check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"{chain.pipeline}:9:" in done.stderr
    assert "stages.sft.options.ballast_mbb: stage 'sft': back end 'toy': unknown setting 'ballast_mbb'" in done.stderr
    assert not chain.workspace.runs.exists() or not list(chain.workspace.runs.iterdir())


def test_a_stage_that_is_done_is_not_asked_again(tmp_path: Path) -> None:
    """A later version may refuse what made it, and it does not run."""
    stages = STAGES.replace("checkpoint: cpt, data: pairs,", "checkpoint: cpt, data: pairs, options: {ballast_mbb: 2},")
    chain = Chain.make(tmp_path / "chain", stages, cluster="devcluster")
    chain.fetch()
    planned = chain.overnight("plan", str(chain.pipeline), "--cluster", chain.cluster, "--json", check=False)
    (fingerprint,) = (stage["fingerprint"] for stage in json.loads(planned.stdout)["stages"] if stage["name"] == "sft")
    store = chain.workspace.entry("checkpoint", fingerprint)
    store.output.mkdir(parents=True)
    (store.output / "weights").write_text("w")
    kind = seal.SealKind.CHECKPOINT
    seal.seal_directory(store.output, store.seal, kind=kind, format="toy", fingerprint=fingerprint)
    done = chain.start(check=False)
    assert "ballast_mbb" not in done.stderr


def test_a_back_end_in_an_image_is_planned_where_it_is_not_installed(tmp_path: Path) -> None:
    """NVIDIA's stacks are in containers on most sites: a login node knows what they can do, and no version of theirs."""
    profile = tmp_path / "site.yaml"
    image = "nvcr.io#nvidia/nemo:25.09"
    profile.write_text(
        f"extends: dgx-pyxis\nname: site\naccount: research\nworkspace: {tmp_path}/ws\nenvironments: {{nemo: {{image: '{image}'}}}}\n"
    )
    stages = """\
  corpus: {kind: corpus, from: ./raw, document_chars: 400}
  cpt: {kind: cpt, backend: nemo, checkpoint: base, data: corpus, steps: 12, lr: 1e-4, batch_size: 8}
  again: {kind: cpt, checkpoint: cpt, data: corpus, steps: 12, lr: 1e-4, batch_size: 8}
"""
    chain = Chain.make(tmp_path / "chain", stages, cluster=str(profile))
    assert list(chain.plan()) == ["corpus", "base-nemo", "cpt", "cpt-hf", "again"]
    scripts = chain.overnight("plan", str(chain.pipeline), "--cluster", str(profile), "--scripts").stdout
    assert f"--container-image={image}" in scripts
    chain.write(stages.replace("backend: nemo,", "backend: nemo, options: {tensor_paralel: 2},"))
    chain.fetch()
    refused = chain.start(check=False)
    assert "did you mean 'tensor_parallel'?" in refused.stderr, refused.stdout + refused.stderr


NOTES = """
from jobs.backends import Capabilities
from jobs.training.interface import Rendered

NAME = "noting"
CAPABILITIES = Capabilities(frozenset({"cpt"}), frozenset({"hf"}), frozenset({"hf"}), distributed=True)


def probe():
    return {}


def behaviour(checkpoint):
    return None


def rendered(spec, shape):
    return Rendered(("true",), {}, ("its parser was not asked",))


def run(spec, ctx):
    raise NotImplementedError
"""


def test_what_could_not_be_checked_is_told_at_submission(tmp_path: Path) -> None:
    stages = """\
  corpus: {kind: corpus, from: ./raw, document_chars: 400}
  cpt: {kind: cpt, backend: noting, checkpoint: base, data: corpus, steps: 1, lr: 0.5, batch_size: 8}
"""
    chain = Chain.make(tmp_path / "chain", stages, cluster="devcluster")
    (tmp_path / "chain/code").mkdir()
    (tmp_path / "chain/code/noting.py").write_text(NOTES)
    chain.pipeline.write_text(chain.pipeline.read_text() + "code: ./code\n")
    chain.fetch()
    told = chain.start(check=False)
    assert "note: stage 'cpt': back end 'noting': its parser was not asked" in told.stderr, told.stdout + told.stderr


def test_a_back_end_in_an_image_is_not_asked_of_its_versions_and_that_is_told(tmp_path: Path) -> None:
    profile = tmp_path / "site.yaml"
    profile.write_text(
        f"extends: dgx-pyxis\nname: site\naccount: research\nworkspace: {tmp_path}/ws\n"
        "environments: {nemo_rl: {image: 'nvcr.io#nvidia/nemo-rl:v0.6.0'}}\n"
    )
    stages = """\
  pairs: {kind: preferences, from: ./raw}
  dpo: {kind: dpo, backend: nemo_rl, checkpoint: base, data: pairs, steps: 1, lr: 0.5, batch_size: 8}
"""
    chain = Chain.make(tmp_path / "chain", stages, cluster=str(profile))
    chain.fetch()
    told = chain.start(check=False)
    assert "stage 'dpo': back end 'nemo_rl': not checked: its program is on the nodes only" in told.stderr, told.stderr
