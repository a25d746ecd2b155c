"""Every back end through one contract: what the planner and the lifecycle ask of it, and nothing more.

The last one is made by the test, in a directory as a user's code is: whatever it needs elsewhere would be missing here.
"""

from __future__ import annotations

import json
import pkgutil
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import jobs.backends
from jobs import backends
from jobs.core.capabilities import Capabilities
from jobs.training import interface, tokenizers
from jobs.training.checkpoints import Completeness
from jobs.training.interface import BackEnd, ProcessShape, Rendered
from jobs.training.settings import BadSettings
from launch.config.kinds import DATA_KINDS, TRAINING_KINDS
from launch.plan import memory as estimate
from tests.support import stages
from tests.support.nemo_rl_fake import tree
from tests.support.toy_chain import Chain

ROOT = Path(__file__).resolve().parents[3]
OURS = sorted(module.name for module in pkgutil.iter_modules(jobs.backends.__path__))
NAMES = [*OURS, "contract_words"]
KINDS = {*DATA_KINDS, *TRAINING_KINDS, "evaluate", "convert"}
TRAINING: dict[str, Any] = {"steps": 4, "lr": 1e-3, "batch_size": 4, "sequence_length": 32}

WORDS = '''
"""A back end that counts words."""
from jobs.backends import Capabilities, Memory, Result

NAME = "contract_words"
CAPABILITIES = Capabilities(
    kinds=frozenset({"cpt"}), formats_in=frozenset({"words"}), formats_out=frozenset({"words"}),
    memory=Memory({"fp32": (4, 0, 0), "bf16": (2, 0, 0)}), experimental="counts and learns nothing",
)


def probe():
    return {"words": "1"}


def run(spec, ctx):
    words = (spec.inputs["data"].output / "train.jsonl").read_text().split()
    ctx.progress.report(1, 1, loss=1.0 / len(words), tokens_per_second=float(len(words)))
    (ctx.output / "words").write_text(str(len(words)))
    return Result("done", 1)
'''


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("code")
    (directory / "contract_words.py").write_text(WORDS)
    return directory


def load(name: str, code: Path) -> BackEnd:
    return backends.load(name, code)


@pytest.mark.parametrize("name", NAMES)
def test_capabilities(name: str, code: Path) -> None:
    backend = load(name, code)
    able = backend.CAPABILITIES
    assert name == backend.NAME
    assert isinstance(able, Capabilities)
    assert able.kinds
    assert able.kinds <= KINDS
    assert all(re.fullmatch("[a-z]+", form) for form in able.formats_in | able.formats_out), "they make names of stages"
    assert able.launcher in ("python", "torchrun", "ray")
    assert not able.converts or "convert" in able.kinds
    for source, target in able.converts:
        assert source != target
        assert re.fullmatch("[a-z]+-[a-z]+", f"{source}-{target}")
    assert Capabilities.of(json.loads(json.dumps(able.as_json()))) == able, "as the planner gets it"
    if able.memory is not None:
        assert estimate.with_settings(able.memory.installed(()), {}).states.keys() == {"fp32", "bf16"}
        assert set(able.memory.splits) <= {"tensor_parallel", "pipeline_parallel"}


@pytest.mark.parametrize("name", NAMES)
def test_probe_answers_or_says_what_is_missing(name: str, code: Path) -> None:
    try:
        found = load(name, code).probe()
    except ImportError as error:
        assert "install" in str(error) or "import" in str(error)
        return
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in found.items())


def a_stage(root: Path, backend: BackEnd, **changes: Any) -> stages.Stage:
    able = backend.CAPABILITIES
    kind = next(kind for kind in (*TRAINING_KINDS, "convert", *DATA_KINDS) if kind in able.kinds)
    data = {"cpt": "corpus", "sft": "instructions", "dpo": "preferences"}.get(kind, "corpus")
    formats = {"checkpoint": min(able.formats_in), "data": data}
    toy = {"steps": 4, "lr": 1e-3, "batch_size": 4}
    settings = (toy if backend.NAME == "toy" else TRAINING) if kind in TRAINING_KINDS else {}
    places = {"checkpoint": root / "parent", "data": root / "data"}
    return stages.stage(root / "stage", kind, backend.NAME, {**settings, **changes}, places, formats)


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_is_rendered_without_being_started(
    name: str, code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = load(name, code)
    for check in ("needed", "needs_gpu_build"):  # of what is installed here
        monkeypatch.setattr(interface, check, lambda *names, **more: {})
    if name == "nemo_rl":  # it renders for the version that it finds
        found = tree(tmp_path / "rl", "0.7.0")
        monkeypatch.setattr("jobs.backends.nemo_rl.checkout.find", lambda: found)
    made = interface.rendered(backend, a_stage(tmp_path, backend).spec, ProcessShape(nodes=1, processes=2, gpus=True))
    assert isinstance(made, Rendered)
    assert made.command
    assert all(isinstance(word, str) and word for word in made.command)
    assert all(not Path(place).is_absolute() and text for place, text in made.files.items())
    if name in OURS and set(backend.CAPABILITIES.kinds) & set(TRAINING_KINDS):
        with pytest.raises(BadSettings, match="stepz"):
            interface.rendered(backend, a_stage(tmp_path / "wrong", backend, stepz=1).spec, ProcessShape(processes=2))


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_directory_is_no_checkpoint(name: str, code: Path, tmp_path: Path) -> None:
    found = interface.completeness(load(name, code), tmp_path / "nothing")
    assert isinstance(found, Completeness)
    assert found.problem is not None
    assert str(tmp_path) in found.problem


HUGGING_FACE = ("convert", "data", "trl", "automodel", "nemo_rl", "contract_words")


@pytest.mark.train
@pytest.mark.parametrize("name", NAMES)
def test_a_tokenizer_of_hugging_face_needs_no_function(name: str, code: Path, base: Path, tmp_path: Path) -> None:
    """A back end without ``behaviour`` of its own: by the loader of training, also where it lies inside as ``hf``."""
    backend = load(name, code)
    if name in HUGGING_FACE:
        assert interface.behaviour(backend, tmp_path) is None
    assert hasattr(backend, "behaviour") is (name not in HUGGING_FACE)
    if name in HUGGING_FACE:
        found = tokenizers.behaviour(base / "output")
        assert interface.behaviour(backend, base / "output") == found
        (tmp_path / "hf").symlink_to(base / "output")
        assert interface.behaviour(backend, tmp_path) == found
    wrong = tmp_path / "wrong"  # transformers 5 ignores the tokenizer.json of this class
    stages.make_tokenizer(wrong, tokenizer_class="LlamaTokenizerFast")
    if name in HUGGING_FACE:
        with pytest.raises(tokenizers.LoaderDisagrees):
            interface.check_fetched(backend, wrong)
    else:
        interface.check_fetched(backend, wrong)


def test_a_checkpoint_without_rules_of_its_own(code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the format ``hf``: by those of Hugging Face; of another: there must be something in it."""
    backend = load("contract_words", code)
    (tmp_path / "words").write_text("3")
    assert interface.completeness(backend, tmp_path) == Completeness()
    able = replace(backend.CAPABILITIES, formats_out=frozenset({"hf"}))
    monkeypatch.setattr(backend, "CAPABILITIES", able)
    assert "config.json is missing" in str(interface.completeness(backend, tmp_path).problem)


def test_a_checkpoint_of_nemo_rl_says_its_step_or_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "policy/weights").mkdir(parents=True)
    for name in ("policy/weights/.metadata", "policy/weights/__0_0.distcp", "config.yaml"):
        (tmp_path / name).write_text("")
    (tmp_path / "training_info.json").write_text('{"total_steps": 6}')
    backend = backends.load("nemo_rl")
    assert interface.completeness(backend, tmp_path) == Completeness(step=6)
    (tmp_path / "policy/weights/.metadata").unlink()
    assert "policy/weights/.metadata" in str(interface.completeness(backend, tmp_path).problem)


@pytest.mark.train
@pytest.mark.parametrize("name", ["trl", "automodel", "convert", "nemo", "nemo_rl"])
def test_a_hugging_face_directory_that_was_cut_off_is_found(name: str, base: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(base / "output", tmp_path / "whole")
    backend = backends.load(name)
    assert interface.completeness(backend, whole) == Completeness()
    weights = whole / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert "its header says" in str(interface.completeness(backend, whole).problem)


def test_a_back_end_of_a_users_own_runs_like_ours(tmp_path: Path, code: Path, data: Path) -> None:
    backends.load("contract_words", code)
    boot = [sys.executable, "-m", "jobs", "probe", "--code", str(code), "contract_words"]
    answer = subprocess.run(boot, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(answer.stdout.splitlines()[-1])["contract_words"]
    assert found["versions"] == {"words": "1"}
    assert found["experimental"] == "counts and learns nothing"
    assert found["memory"]["states"]["bf16"] == [2, 0, 0]


HALF = """

from jobs.training.interface import Completeness


def completeness(directory):
    return Completeness(problem=f"{directory / 'words'} has no last word")
"""


def test_what_the_back_end_itself_calls_half_is_not_sealed(tmp_path: Path) -> None:
    stages = """\
  corpus: {kind: corpus, from: ./raw, document_chars: 400}
  count: {kind: cpt, backend: contract_words, checkpoint: base, data: corpus, steps: 1, lr: 0.5, batch_size: 8}
"""
    chain = Chain.make(tmp_path / "chain", stages)
    (tmp_path / "chain/code").mkdir()
    module = tmp_path / "chain/code/contract_words.py"
    chain.pipeline.write_text(chain.pipeline.read_text() + "code: ./code\n")
    chain.fetch()
    module.write_text(WORDS.replace('frozenset({"words"}), formats_out', 'frozenset({"hf"}), formats_out') + HALF)
    failed = chain.start(check=False)
    assert failed.returncode != 0
    assert "has no last word" in failed.stdout + failed.stderr
    assert not chain.entry("count").seal.exists()
    module.write_text(module.read_text().replace(HALF, ""))
    chain.start()
    assert chain.seal("count").step == 1


def test_loading_and_probing_imports_no_framework() -> None:
    """The planner asks on the login node; importing torch there takes seconds and gigabytes."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from jobs import backends\n"
        f"for name in {OURS!r}:\n"
        "    try: backends.load(name).probe()\n"
        "    except ImportError: pass\n"
        "heavy = {'torch', 'transformers', 'nemo', 'nemo_automodel', 'ray', 'megatron', 'lightning'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_an_unknown_back_end_is_a_lookup_error() -> None:
    with pytest.raises(LookupError, match="no back end"):
        backends.load("nosuch")
