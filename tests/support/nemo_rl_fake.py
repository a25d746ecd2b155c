"""A checkout of NeMo-RL as far as a stage touches it: its programs print its lines and write its checkpoints.

Nothing is trained. What is recorded are the words and the files of 0.3.1 to 0.7.0; ``plan.json`` in the checkout says
what a start does. Time is pretended: a step takes ``seconds_a_step`` of the clock that ``checkpoint_must_save_by`` is
read against.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jobs.backends.nemo_rl import checkout

PROGRAM = """
import json, os, pprint, shutil, sys, time
from pathlib import Path

KIND = Path(__file__).stem.removeprefix("run_")
ROOT = Path(__file__).resolve().parents[1]
plan = json.loads((ROOT / "plan.json").read_text())
config = json.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
stock = json.loads(Path(config["defaults"]).read_text())
data = stock["data"] if plan.get("ignores_our_keys") else config["data"]
print("Final config:")
pprint.pprint({**config, "data": data})
print("\\n▶ Setting up data...")
path = Path(data.get("train", data).get("data_path") or data.get("train_data_path") or "none")
count = len(path.read_text().splitlines()) if path.is_file() else 40476
count = plan.get("rows", count)
if KIND == "dpo" and VERSION >= "0.4" or VERSION >= "0.6":
    print(f"  ✓ Training dataset loaded with {count} samples.")
elif KIND == "sft":
    print(f"  ✓ Training and validation datasets loaded with {count} and {count} samples, respectively.")
for line in plan.get("lines", []):
    print(line)

section, saving = config[KIND], config["checkpointing"]
place = Path(saving["checkpoint_dir"])
place.mkdir(parents=True, exist_ok=True)
there = sorted(entry.name for entry in place.iterdir())
seen = {"there": there, "model": config["policy"]["model_name"], "slurm": [n for n in os.environ if n.startswith("SLURM_")]}
seen["workers"] = sys.modules["nemo_rl.distributed.ray_actor_environment_registry"].ACTOR_ENVIRONMENT_REGISTRY
with open(ROOT / "seen.jsonl", "a") as stream:
    stream.write(json.dumps(seen) + "\\n")
step = max((int(name.removeprefix("step_")) for name in there if name.startswith("step_")), default=0)
limit = saving.get("checkpoint_must_save_by")
if limit is not None:
    days, hours, minutes, seconds = map(int, limit.split(":"))
    limit = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
clock = 0.0


def save(step, loss):
    print(f"Saving checkpoint for step {step}...", flush=True)
    tmp = place / f"tmp_step_{step}"
    for part in ("weights", "optimizer"):
        (tmp / "policy" / part).mkdir(parents=True)
        (tmp / "policy" / part / ".metadata").write_text(f"{part} of {config['policy']['model_name']}")
        (tmp / "policy" / part / "__0_0.distcp").write_text(f"{part} at {step}")
    (tmp / "policy/tokenizer").mkdir()
    (tmp / "policy/tokenizer/tokenizer.json").write_text("{}")
    (tmp / "config.yaml").write_text(json.dumps(config))
    (tmp / "train_dataloader.pt").write_text(str(step))
    info = {"epoch": 0, "step": step, "total_steps": step, "consumed_samples": step}
    (tmp / "training_info.json").write_text(json.dumps(info))
    os.rename(tmp, place / f"step_{step}")
    # Real steps take longer than a look at them: the next one begins when this save has been noticed.
    name = f"checkpoint-{step}/" + plan.get("noticed", "seal.json")
    signs = [place.parent / name, place.parents[1] / "saves" / name]  # being written by this start, then a save of the entry
    end = time.monotonic() + 60
    while not any(sign.exists() for sign in signs) and step <= plan.get("noticed_until", step) and time.monotonic() < end:
        time.sleep(0.005)
    steps = sorted(int(entry.name.removeprefix("step_")) for entry in place.glob("step_*"))
    for old in steps[: -saving["keep_top_k"]]:
        shutil.rmtree(place / f"step_{old}")


print("▶ Preparing batch...")
while step < section["max_num_steps"]:
    print("▶ Taking a training step...", flush=True)
    step += 1
    clock += plan.get("seconds_a_step", 0.0)
    if plan.get("stop_file_at") == step:
        Path(plan["stop_file"]).touch()
    if plan.get("ends_at") == step:
        print(plan["says"], flush=True)
        sys.exit(plan.get("code", 0))
    loss = 1.0 / step
    last = step == section["max_num_steps"]
    late = limit is not None and clock + plan.get("seconds_a_step", 0.0) >= limit
    if last or late or step % saving["save_period"] == 0:
        save(step, loss)
        if plan.get("waits_after") == step:
            sys.stdout.flush()
            time.sleep(300)
    print("\\n📊 Training Results:")
    if KIND == "dpo" and VERSION >= "0.4":
        print(f"  • loss: {loss:.4f}\\n  • preference_loss: {loss:.4f}\\n  • accuracy: 0.5000")
    else:
        print(f"  • Loss: {loss:.4f}")
    print("\\n⏱️  Timing:\\n  • Total step time: 2.50s\\n  • policy_training: 2.00s (80.0%)", flush=True)
    if late:
        print("Timeout has been reached, stopping training early", flush=True)
        break
"""

STOCK = {
    "flat": {"dpo": {"dataset_name": "HelpSteer3"}, "sft": {"dataset_name": "squad"}},
    "by_split": {
        "dpo": {"train": {"dataset_name": "HelpSteer3", "split": "train"}},
        "sft": {"train": {"dataset_name": "squad", "split": "train"}},
    },
}


def tree(root: Path, version: str, **plan: Any) -> checkout.Checkout:
    """A source tree with as much of NeMo-RL as a stage looks at, and programs that do as ``plan`` says."""
    major, minor, patch = version.split(".")
    (root / "nemo_rl/distributed").mkdir(parents=True)
    (root / "examples/configs").mkdir(parents=True)
    (root / "nemo_rl/__init__.py").write_text("")
    (root / "nemo_rl/distributed/__init__.py").write_text("")
    (root / "nemo_rl/package_info.py").write_text(f"MAJOR = {major}\nMINOR = {minor}\nPATCH = {patch}\n")
    registry = 'ACTOR_ENVIRONMENT_REGISTRY = {"nemo_rl.models.policy.DTensorPolicyWorker": "uv run --extra fsdp"}\n'
    (root / "nemo_rl/distributed/ray_actor_environment_registry.py").write_text(registry)
    for kind, data in STOCK["by_split" if version >= "0.6" else "flat"].items():
        (root / f"examples/configs/{kind}.yaml").write_text(json.dumps({"data": data}))
        (root / f"examples/run_{kind}.py").write_text(f"VERSION = {version!r}\n{PROGRAM}")
    do(root, **plan)
    return checkout.at(root)


def do(root: Path, **plan: Any) -> None:
    """What the next start does: see ``PROGRAM``."""
    (root / "plan.json").write_text(json.dumps(plan))


def seen(root: Path) -> list[dict[str, Any]]:
    """What each start found: the directories of its checkpoints, its model, its workers' Python."""
    return [json.loads(line) for line in (root / "seen.jsonl").read_text().splitlines()]
