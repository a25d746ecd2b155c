"""``pipelines/nvidia.yaml`` is planned with the packaged profile of DGX clusters, and the transcript says what is printed."""

from __future__ import annotations

import json
from pathlib import Path

from jobs.core.paths import Workspace
from launch.inputs import fetch
from tests.support.nvidia_example import INSERTED, TRANSCRIPT, overnight, place


def test_the_chain_is_planned_for_a_dgx_cluster(tmp_path: Path) -> None:
    """Without any of the stacks here: the images have them. The model's numbers are in the workspace, as after a fetch."""
    profile = place(tmp_path)
    model = fetch.item("base", str(tmp_path / "llama"), base=tmp_path)
    workspace = Workspace(tmp_path / "overnight")
    entry = model.entry(workspace)
    entry.output.mkdir(parents=True)
    (entry.output / "config.json").write_bytes((tmp_path / "llama" / "config.json").read_bytes())
    common = ("nvidia.yaml", "--cluster", profile.name, "--set", "model.base=./llama")
    found = json.loads(overnight("plan", *common, "--json", cwd=tmp_path).splitlines()[-1])
    stages = {stage["name"]: stage for stage in found["stages"]}
    assert {name: stage["backend"] for name, stage in stages.items() if stage["inserted"]} == INSERTED
    assert [stages[name]["backend"] for name in ("cpt", "sft", "dpo")] == ["nemo", "nemo", "nemo_rl"]
    assert stages["dpo"]["inputs"]["checkpoint"]["stage"] == "sft-hf"
    assert stages["final"]["inputs"]["checkpoint"]["stage"] == "dpo-hf"
    estimates = {each["stage"]: each for each in found["estimates"]}
    assert set(estimates) == {"cpt", "sft", "dpo"}
    for name, each in estimates.items():
        assert each["fits"], name
        assert each["segments"] is not None
    scripts = json.loads(overnight("plan", *common, "--scripts", "--json", cwd=tmp_path))["stages"]
    shown = TRANSCRIPT.read_text()
    for name, image in (("base-nemo", "nemo"), ("cpt", "nemo"), ("dpo", "nemo-rl"), ("dpo-hf", "nemo-rl")):
        assert f"'--container-image=nvcr.io#nvidia/{image}:TAG'" in scripts[name]["job.sh"]
    table = [line.split()[:4] for line in shown.splitlines()]
    for name, stage in stages.items():
        kind = [stage["kind"], "(inserted)"] if stage["inserted"] else [stage["kind"], stage["backend"]]
        assert [name, *kind] in [line[:3] for line in table], "python -m tests.support.nvidia_example writes it anew"
    for name, each in estimates.items():
        line = [name, f"{each['parameters'] / 1e6:,.1f}", "M", f"{each['memory']['total'] / 2**30:.2f}"]
        assert line in table, "python -m tests.support.nvidia_example writes it anew"
