"""What NeMo-RL learns in SFT is what evaluation scores, as far as it lets one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
from jobs.backends.nemo_rl import schemas, texts
from jobs.backends.nemo_rl import settings as nemo_rl
from jobs.backends.nemo_rl.texts import Adds, PreparedTexts
from jobs.training import tokenizers
from jobs.training.examples import ExamplesError
from tests.support import stages

pytestmark = pytest.mark.train

SETTINGS: dict[str, Any] = {"steps": 2, "lr": 1e-5, "batch_size": 2, "sequence_length": 64}
ROWS = [
    ("Translate: Save page\n", "Guardar página"),
    ("Translate: Save page", " Guardar página"),
    ("Translate: Save p", "age\nGuardar"),  # one token reaches over the border
    ("Traduz: não há atualizaç", "ões\n"),
    ("  spaces \t", "  and more  "),
    ("日本", "語🌙"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a tokenizer of ours: it adds nothing by itself."""
    made = tmp_path_factory.mktemp("model")
    stages.make_tokenizer(made)
    return made


@pytest.fixture(scope="module")
def beginning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that puts its beginning token before each text, as Llama's does."""
    from tokenizers import Tokenizer, processors

    made = tmp_path_factory.mktemp("beginning")
    stages.make_tokenizer(made)
    tokenizer = Tokenizer.from_file(str(made / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(made / "tokenizer.json"))
    return made


def prepared(tmp_path: Path, model: Path, version: str = "0.6.0", rows: Any = ROWS, **changes: Any) -> PreparedTexts:
    data = tmp_path / "data/train.jsonl"
    stages.write_rows(data, [{"prompt": prompt, "completion": answer} for prompt, answer in rows])
    schema = schemas.of(version)
    assert schema is not None
    return texts.prepare(nemo_rl.read("sft", {**SETTINGS, **changes}), schema, data, model, tmp_path / "scratch")


@pytest.mark.parametrize("name", ["model", "beginning"])
def test_the_ids_are_those_that_are_scored(tmp_path: Path, request: pytest.FixtureRequest, name: str) -> None:
    model = request.getfixturevalue(name)
    found = prepared(tmp_path, model)
    assert (found.rows, found.other, found.bos) == (len(ROWS), 0, name == "beginning")
    tokenizer = tokenizers.load(model)
    written = [json.loads(line) for line in found.path.read_text(encoding="utf-8").splitlines()]
    for (prompt, answer), row in zip(ROWS, written, strict=True):
        wanted = stages.encode_pair(tokenizer, prompt, answer)
        assert (
            texts.as_nemo_rl(tokenizer, row["prompt"], row["completion"], Adds(found.bos, found.eos, False)) == wanted
        )
        assert row["prompt"] + row["completion"] == prompt + answer
    moved = [row["prompt"] != prompt for (prompt, _), row in zip(ROWS, written, strict=True)]
    assert any(moved)
    assert not all(moved)


def test_rows_that_come_out_otherwise_are_counted(tmp_path: Path, model: Path) -> None:
    """0.3 takes newlines off the end of an answer."""
    rows = [("a", "b\n"), ("a", "b")]
    assert prepared(tmp_path, model, "0.3.1", rows).other == 1
    assert prepared(tmp_path, model, "0.4.0", rows).other == 0


def test_a_tokenizer_that_puts_a_space_before_each_text(tmp_path: Path) -> None:
    """It would put one before the answer, too: NeMo-RL cannot be made to tokenise both together."""
    from tokenizers import Tokenizer, pre_tokenizers

    stages.make_tokenizer(tmp_path / "spacing")
    file = str(tmp_path / "spacing/tokenizer.json")
    tokenizer = Tokenizer.from_file(file)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.save(file)
    rows = [("Save page\n", "Guardar"), ("Save page", " Guardar"), ("a", "b")]
    assert prepared(tmp_path, tmp_path / "spacing", rows=rows).other == 2  # not where the answer begins with one


def test_rows_that_are_too_long(tmp_path: Path, model: Path) -> None:
    """NeMo-RL itself would keep them and give them no weight."""
    rows = [("a", "b"), ("a b c d e f g h", "i j k l m n o p")]
    with pytest.raises(ExamplesError, match=r"train\.jsonl:2: .* more than sequence_length 8"):
        prepared(tmp_path, model, rows=rows, sequence_length=8)
    found = prepared(tmp_path, model, rows=rows, sequence_length=8, too_long="skip")
    assert (found.rows, found.skipped) == (1, 1)
    assert len(found.path.read_text().splitlines()) == 1


def test_with_a_chat_template_the_rows_stay_as_they_are(tmp_path: Path, model: Path) -> None:
    found = prepared(tmp_path, model, chat_template="default")
    assert found.other is None
    assert json.loads(found.path.read_text(encoding="utf-8").splitlines()[2]) == dict(
        zip(("prompt", "completion"), ROWS[2], strict=True)
    )


def test_preferences_get_the_field_names_of_the_version(tmp_path: Path, model: Path) -> None:
    data = tmp_path / "data/train.jsonl"
    stages.write_rows(data, [{"prompt": "p", "chosen": "c", "rejected": "r"}])
    settings = nemo_rl.read("dpo", SETTINGS)
    for version, renamed in (("0.3.1", True), ("0.4.0", False)):
        schema = schemas.of(version)
        assert schema is not None
        found = texts.prepare(settings, schema, data, model, tmp_path / "scratch")
        assert found.path == texts.place(data, tmp_path / "scratch") != data
        if renamed:
            assert json.loads(found.path.read_text()) == {
                "prompt": "p",
                "chosen_response": "c",
                "rejected_response": "r",
            }
        else:
            assert json.loads(found.path.read_text()) == {"prompt": "p", "chosen": "c", "rejected": "r"}


ASK = """
import json, sys, types
from jobs.training import tokenizers
from nemo_rl.data.interfaces import TaskDataSpec
from nemo_rl.data.llm_message_utils import get_formatted_message_log
tokenizer = tokenizers.load(sys.argv[1])
tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
for line in open(sys.argv[2], encoding="utf-8"):
    row = json.loads(line)
    log = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
    made = get_formatted_message_log(log, tokenizer, TaskDataSpec(task_name="t"), add_bos_token=sys.argv[3] == "True")
    print("IDS", json.dumps([message["token_ids"].tolist() for message in made]))
"""


@pytest.mark.full
@pytest.mark.parametrize("name", ["model", "beginning"])
def test_nemo_rl_itself_makes_these_ids(tmp_path: Path, request: pytest.FixtureRequest, name: str) -> None:
    """Its own function, where its trees are: OVERNIGHT_NEMO_RL_TREES (directories, by colons) can be imported here."""
    trees = os.environ.get("OVERNIGHT_NEMO_RL_TREES")
    if not trees:
        pytest.skip("no source tree of NeMo-RL: set OVERNIGHT_NEMO_RL_TREES")
    model = request.getfixturevalue(name)
    tokenizer = tokenizers.load(model)
    for root in trees.split(":"):
        found = prepared(tmp_path, model)
        env = {**os.environ, "PYTHONPATH": f"{stages.ROOT}:{root}", "NO_VCS_VERSION": "1"}
        command = [sys.executable, "-c", ASK, str(model), str(found.path), str(found.bos)]
        said = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=True).stdout
        lines = [json.loads(line.removeprefix("IDS ")) for line in said.splitlines() if line.startswith("IDS ")]
        assert len(lines) == len(ROWS)
        strips = "/v0.3" in root
        for (prompt, answer), row in zip(ROWS, lines, strict=True):
            wanted = stages.encode_pair(tokenizer, prompt, answer)
            if not (strips and answer.endswith("\n")):
                assert [tuple(ids) for ids in row] == [wanted.prompt, wanted.completion], (root, prompt)
