"""DPO by NeMo-RL in a plan: where its checkpoints lie, and that what it started from stays until they are converted."""

from __future__ import annotations

import shutil
from pathlib import Path

from jobs.core.paths import Workspace
from launch.config.pipeline_file import read_pipeline
from launch.config.profile_file import read_profile
from launch.plan import builder, gather
from launch.plan.model import Plan, PlannedStage
from launch.runs import gc, rundir
from tests.support.toy_chain import Chain

STAGES = """\
  corpus: {kind: corpus, from: ./raw, document_chars: 400}
  pairs: {kind: preferences, from: ./raw}
  cpt: {kind: cpt, backend: trl, checkpoint: base, data: corpus, steps: 12, lr: 1e-4, batch_size: 8}
  dpo: {kind: dpo, backend: nemo_rl, checkpoint: cpt, data: pairs, steps: 4, lr: 1e-5, batch_size: 8}
  last: {kind: cpt, backend: trl, checkpoint: dpo, data: corpus, steps: 12, lr: 1e-4, batch_size: 8}
"""


def made(tmp_path: Path, stages: str = STAGES) -> tuple[Chain, Plan]:
    """A chain on a site where NeMo-RL and TRL are in images, so that neither has to be installed here."""
    profile = tmp_path / "site.yaml"
    profile.write_text(
        f"extends: dgx-pyxis\nname: site\naccount: research\nworkspace: {tmp_path}/ws\nenvironments:\n"
        "  nemo_rl: {image: 'nvcr.io#nvidia/nemo-rl:v0.6.0'}\n  trl: {image: 'site#trl:1'}\n"
    )
    chain = Chain.make(tmp_path / "chain", stages, cluster=str(profile))
    return chain, plan_of(chain, tmp_path)


def plan_of(chain: Chain, tmp_path: Path) -> Plan:
    pipeline, profile = read_pipeline(chain.pipeline), read_profile(Path(chain.cluster))
    gathered = gather.gather(pipeline, profile.profile, Workspace(tmp_path / "ws"))
    return builder.build(pipeline.pipeline, profile.profile, gathered)


def stage(plan: Plan, name: str) -> PlannedStage:
    return next(each for each in plan.stages if each.name == name)


def name_of(workspace: Workspace, given: PlannedStage) -> str:
    return given.store(workspace).root.name


def test_another_input_model_is_another_directory_of_checkpoints(tmp_path: Path) -> None:
    """NeMo-RL goes on from whatever lies in its directory, without asking of which model it is."""
    chain, before = made(tmp_path)
    chain.write(
        STAGES.replace("checkpoint: base, data: corpus, steps: 12", "checkpoint: base, data: corpus, steps: 13")
    )
    after = plan_of(chain, tmp_path)
    workspace = Workspace(tmp_path / "ws")
    assert stage(before, "dpo").settings == stage(after, "dpo").settings
    assert name_of(workspace, stage(before, "dpo")) != name_of(workspace, stage(after, "dpo"))
    chain.write(STAGES)
    assert plan_of(chain, tmp_path) == before


def test_the_reference_model_is_kept_until_the_conversion_is_sealed(tmp_path: Path) -> None:
    """It is read again at every start, and its tokenizer is what the converted one is compared with."""
    chain, plan = made(tmp_path)
    workspace = Workspace(tmp_path / "ws")
    assert [each.name for each in plan.stages if each.kind == "convert"] == ["dpo-hf"]
    run = rundir.create(workspace, read_pipeline(chain.pipeline), read_profile(Path(chain.cluster)), plan)
    for name in ("cpt", "dpo", "dpo-hf"):
        entry = workspace.store / name_of(workspace, stage(plan, name))
        (entry / "output").mkdir(parents=True)
        (entry / "output/weights").write_text(name)
    stranger = workspace.store / "checkpoint-stranger"
    (stranger / "output").mkdir(parents=True)
    removed, needed = gc.collect(workspace, keep_days=-1, dry_run=False)
    assert {name_of(workspace, stage(plan, name)) for name in ("cpt", "dpo", "dpo-hf")} <= needed.store
    reference = workspace.store / name_of(workspace, stage(plan, "cpt"))
    assert (reference / "output/weights").read_text() == "cpt"
    assert not stranger.exists()
    assert [item.path for item in removed] == [stranger]
    shutil.rmtree(run.paths.root)
    gc.collect(workspace, keep_days=-1, dry_run=False)
    assert not reference.exists()
