"""What a finished model keeps of its base: rotary positions for every version of transformers, its settings, its files."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

transformers = pytest.importorskip("transformers")

from jobs.training import finished, models, rope  # noqa: E402
from tests.support import environments, stages  # noqa: E402

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
BASES: dict[str, dict[str, Any]] = {
    "llama": {"rope_theta": 500000.0, "rope_scaling": LLAMA3},
    "qwen3": {"rope_theta": 1e6},
    "mistral": {
        "rope_theta": 2e4,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    },
    "gemma3_text": {
        "rope_theta": 1e6,
        "rope_local_base_freq": 2e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
    "phi": {"rope_theta": 2e4, "partial_rotary_factor": 0.25},
    "stablelm": {"rope_theta": 2e4, "partial_rotary_factor": 0.75},
    "gpt_neox": {"rotary_emb_base": 30000, "rotary_pct": 0.5},
    "olmo3": {"rope_theta": 5e5},
}
"""Architecture -> how transformers 4 wrote a base of rotary positions that is not the default."""

READ = """
import json, sys
from transformers import AutoConfig
names = ("rope_theta", "rope_scaling", "rope_local_base_freq", "partial_rotary_factor", "rotary_emb_base", "rotary_pct",
         "use_cache", "eos_token_id")
found = {}
for path in sys.argv[1:]:
    config = AutoConfig.from_pretrained(path)
    found[path] = {name: getattr(config, name, None) for name in names}
print(json.dumps(found))
"""


def base_of(directory: Path, kind: str) -> Path:
    """A directory as transformers 4 has written it."""
    directory.mkdir(parents=True)
    more = {"use_cache": True, "eos_token_id": [2, 5], "torch_dtype": "bfloat16"}
    (directory / "config.json").write_text(json.dumps({"model_type": kind, **BASES[kind], **more}))
    return directory


def saved_of(directory: Path, base: Path) -> Path:
    """What this transformers makes of it, with what a trainer leaves behind."""
    config = transformers.AutoConfig.from_pretrained(base)
    config.use_cache, config.eos_token_id, config.dtype = False, 2, "float32"
    config.save_pretrained(directory)
    return directory


@pytest.mark.parametrize("kind", BASES)
def test_this_transformers_reads_what_it_read_before(kind: str, tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", kind)
    output = saved_of(tmp_path / "output", base)
    finished.finish(base, output)
    before, after = (transformers.AutoConfig.from_pretrained(path) for path in (base, output))
    assert after.rope_parameters == before.rope_parameters
    assert (after.use_cache, after.eos_token_id) == (True, [2, 5])
    assert str(after.dtype).endswith("float32")


@pytest.mark.nvidia
@pytest.mark.parametrize("kept", [True, False], ids=["with its base", "without one"])
def test_an_older_transformers_reads_the_base_of_rotary_positions(kept: bool, tmp_path: Path) -> None:
    """Without what was kept of the base, too: of a model that was written by transformers 5 in the first place."""
    venv = environments.installed("nemo", "transformers")
    bases, outputs = {}, {}
    for kind in BASES:
        bases[kind] = base_of(tmp_path / kind / "base", kind)
        outputs[kind] = saved_of(tmp_path / kind / "output", bases[kind])
        (finished.finish if kept else lambda _, output: finished.add_old_names(output))(bases[kind], outputs[kind])
    paths = [str(path) for path in (*bases.values(), *outputs.values())]
    done = subprocess.run(
        [str(venv / "bin/python"), "-c", READ, *paths], capture_output=True, text=True, timeout=300, check=True
    )
    read = json.loads(done.stdout.splitlines()[-1])
    for kind in BASES:
        before, after = read[str(bases[kind])], read[str(outputs[kind])]
        names = before.keys() if kept else before.keys() - {"use_cache", "eos_token_id"}
        different = {name: (before[name], after[name]) for name in names if after[name] != before[name]}
        if kind == "olmo3":  # has both types of layers, and one base for them
            different.pop("rope_local_base_freq", None)
        assert not different, kind


def test_names_of_other_forms_stay() -> None:
    for config in ({"model_type": "gpt2"}, {"rope_parameters": None}, {"rope_parameters": {"rope_type": "default"}}):
        assert rope.with_old_names(config) == config


def test_files_of_the_base_go_along_and_code_does_not(tmp_path: Path) -> None:
    base, output = tmp_path / "base", tmp_path / "output"
    stages.make_tokenizer(base)
    taken = (
        "tekken.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model.v3", "qwen.tiktoken",
        "LICENSE", "LICENCE.txt", "NOTICE", "USE_POLICY.md", "generation_config.json", "preprocessor_config.json",
        "chat_template.jinja", "additional_chat_templates/tool_use.jinja",
    )  # fmt: skip
    left = (
        "tokenization_custom.py", "tokenizer.py", "README.md", "pytorch_model.bin", "model.safetensors",
        "tokenizer.pkl", "additional_chat_templates/run.py",
    )  # fmt: skip
    for name in (*taken, *left):
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text(f"{name} of the base")
    (base / "config.json").write_text('{"model_type": "llama"}')
    output.mkdir()
    (output / "config.json").write_text('{"model_type": "llama", "use_cache": false}')
    finished.finish(base, output)
    found = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    assert found == {*taken, "config.json", "tokenizer.json", "tokenizer_config.json"}
    assert (output / "tekken.json").read_text() == "tekken.json of the base"
    assert "use_cache" not in json.loads((output / "config.json").read_text())


@pytest.mark.train
@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_a_trained_model_keeps_them(kind: str, tmp_path: Path, base: Path, data: Path) -> None:
    source = tmp_path / "base"
    shutil.copytree(base, source)
    config = json.loads((source / "output/config.json").read_text())
    del config["rope_parameters"]
    config |= {"rope_theta": 500000.0, "rope_scaling": LLAMA3, "use_cache": True, "eos_token_id": [2, 7]}
    (source / "output/config.json").write_text(json.dumps(config))
    (source / "output/LICENSE").write_text("terms")
    # transformers reads this, and refuses to save it: there is no do_sample beside the temperature
    generation = '{"eos_token_id": [2, 7], "temperature": 0.6, "top_p": 0.9, "num_beams": 1, "early_stopping": true}'
    (source / "output/generation_config.json").write_text(generation)
    settings = {"steps": 1, "lr": 1e-3, "batch_size": 2, "sequence_length": 64, "threads": 1}
    settings |= {"steps": 2, "save_every": 1}
    rows = {"sft": "instructions", "dpo": "preferences"}[kind]
    stage = stages.stage(tmp_path / "it", kind, "trl", settings, {"checkpoint": source, "data": data / rows})
    stage.start()
    written = json.loads((stage.output / "config.json").read_text())
    assert (written["rope_theta"], written["rope_scaling"]) == (500000.0, LLAMA3)
    assert written["rope_parameters"] == {**LLAMA3, "rope_theta": 500000.0}
    assert (written["use_cache"], written["eos_token_id"]) == (True, [2, 7])
    assert (stage.output / "LICENSE").read_text() == "terms"
    assert (stage.output / "generation_config.json").read_text() == generation
    assert models.load_model(stage.output).generation_config.eos_token_id == [2, 7]
