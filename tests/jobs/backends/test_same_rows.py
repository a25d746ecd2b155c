"""What ``overnight data inspect`` shows is what each back end feeds to the model, and what the evaluation scores."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tests.support.prepared", exc_type=ImportError)
pytest.importorskip("trl")

from data_prep import inspect
from jobs.backends.automodel.data import PairsConfig
from jobs.backends.nemo_rl import schemas, texts
from jobs.backends.nemo_rl import settings as nemo_rl
from jobs.backends.nemo_rl.texts import Adds
from jobs.backends.trl import train
from jobs.backends.trl.settings import TrainSettings
from jobs.encoding.load import load
from jobs.training import examples
from tests.support.environments import IN_NEMO
from tests.support.learned import learned
from tests.support.prepared import make, write_lines
from tests.support.templates import A2, CALL, RESULT, TOOLS, U2, A, S, U, write_tokenizer

pytestmark = pytest.mark.train

TEMPLATE = (
    "{{ bos_token }}{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}{{ m.tool_calls | tojson if m.tool_calls }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ROWS: list[dict[str, Any]] = [
    {"messages": [S, U, A, U2, A2]},
    {"messages": [U, {**A, "weight": 0}, U2, A2]},
    {"messages": [U, CALL, RESULT, A], "tools": TOOLS},
    {"messages": [{"role": "user", "content": "What is <|im_end|>?"}, {"role": "assistant", "content": "</s>"}]},
    {"prompt": "Plain text", "completion": "and its end"},
]
PAIRS: list[dict[str, Any]] = [
    {"prompt": [S, U, A, U2], "chosen": [A2], "rejected": [{"role": "assistant", "content": "London"}]},
    {"prompt": "Plain text", "chosen": "and its end", "rejected": "or not"},
]
ALL = {"validation": 0, "test": 0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("model"), TEMPLATE)


def prepared(tmp_path: Path, kind: str, rows: list[dict[str, Any]], **settings: Any) -> Path:
    make(kind, [write_lines(tmp_path / "in.jsonl", rows)], tmp_path / "out", split=ALL, **settings)
    return tmp_path / "out/train.jsonl"


def shown(path: Path, model: Path) -> list[tuple[list[int], list[bool]]]:
    """Ids and loss as ``inspect`` has them, sequence by sequence."""
    found = [tokens for row in inspect.rows(path, model, 99) for tokens in row.sequences.values()]
    return [([token.id for token in tokens], [token.loss for token in tokens]) for tokens in found]


def of_labels(ids: list[int], labels: list[int]) -> tuple[list[int], list[bool]]:
    assert all(label in (-100, one) for one, label in zip(ids, labels, strict=True))
    return list(ids), [label != -100 for label in labels]


def in_order(found: list[tuple[list[int], list[bool]]]) -> list[tuple[list[int], list[bool]]]:
    return sorted(found)


def test_trl(tmp_path: Path, model: Path) -> None:
    path = prepared(tmp_path, "instructions", ROWS)
    settings = TrainSettings.read({"steps": 1, "lr": 1e-5, "batch_size": len(ROWS), "sequence_length": 4096})
    made, _ = learned(path, "instructions", load(model), settings)
    assert in_order([of_labels(row["input_ids"], row["labels"]) for row in made]) == in_order(shown(path, model))


def test_trl_preferences_with_the_mask_of_its_batches(tmp_path: Path, model: Path) -> None:
    path = prepared(tmp_path, "preferences", PAIRS)
    settings = TrainSettings.read({"steps": 1, "lr": 1e-5, "batch_size": len(PAIRS), "sequence_length": 4096})
    tokenizer = load(model)
    made, _ = learned(path, "preferences", tokenizer, settings)
    batch = train.Preferences(int(tokenizer.pad_token_id))(list(made))
    fed = []
    for ids, real, mask in zip(
        *(batch[name].tolist() for name in ("input_ids", "attention_mask", "completion_mask")), strict=True
    ):
        size = sum(real)
        assert real == [1] * size + [0] * (len(real) - size)
        assert not any(mask[size:])
        fed.append((ids[:size], [bool(one) for one in mask[:size]]))
    assert in_order(fed) == in_order(shown(path, model))


def test_automodel(tmp_path: Path, model: Path) -> None:
    path = prepared(tmp_path, "instructions", ROWS)
    fed = []
    for row in PairsConfig(str(path), str(model), 4096, len(ROWS), 1).build():
        # Labels are those of the next token; the last id is learned and never read.
        learned = [label != -100 for label in row["labels"]]
        last = row["labels"][-1]
        assert all(
            label in (-100, one) for label, one in zip(row["labels"], [*row["input_ids"][1:], last], strict=True)
        )
        fed.append(([*row["input_ids"], last], [False, *learned]))
    wanted = [(ids, mask) for ids, mask in shown(path, model) if mask[-1]]
    assert len(wanted) == len(ROWS)
    assert in_order(fed) == in_order(wanted)


def test_nemo_rl(tmp_path: Path, model: Path) -> None:
    """It gets texts: a conversation with one answer, of which it makes the same ids; others are refused."""
    path = prepared(tmp_path, "instructions", [ROWS[1], ROWS[4]], special_tokens="refuse")
    schema = schemas.of("0.6.0")
    assert schema is not None
    settings = nemo_rl.read("sft", {"steps": 1, "lr": 1e-5, "batch_size": 2, "sequence_length": 4096})
    made = texts.prepare(settings, schema, path, model, tmp_path / "scratch")
    assert (made.rows, made.other, made.bos, made.eos) == (2, 0, False, False)
    tokenizer = load(model)
    fed = []
    for line in made.path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        one = texts.as_nemo_rl(tokenizer, row["prompt"], row["completion"], Adds(made.bos, made.eos, False))
        fed.append((list(one.ids), list(one.mask)))
    assert in_order(fed) == in_order(shown(path, model))


@pytest.mark.parametrize(("row", "says"), [(ROWS[0], "answers: last or each"), (ROWS[3], "special_tokens: refuse")])
def test_nemo_rl_refuses_what_it_cannot_be_given(tmp_path: Path, model: Path, row: dict[str, Any], says: str) -> None:
    path = prepared(tmp_path, "instructions", [row])
    schema = schemas.of("0.6.0")
    assert schema is not None
    settings = nemo_rl.read("sft", {"steps": 1, "lr": 1e-5, "batch_size": 1, "sequence_length": 4096})
    with pytest.raises(examples.ExamplesError, match=rf"train\.jsonl:1: .*{says}"):
        texts.prepare(settings, schema, path, model, tmp_path / "scratch")


def test_evaluation(tmp_path: Path, model: Path) -> None:
    path = prepared(tmp_path, "preferences", PAIRS)
    encoder = examples.encoder_of(load(model), path)
    rows = examples.read_rows(path, "preferences")
    scored = [one for row in rows for one in examples.encode(encoder, row).values()]
    assert [(list(one.ids), list(one.mask)) for one in scored] == shown(path, model)


def test_the_data_stage_counts_what_the_trainer_counts(tmp_path: Path, model: Path) -> None:
    """A row of exactly ``max_tokens`` passes both; one token less, and the data stage tells."""
    path = prepared(tmp_path, "instructions", ROWS)
    longest = max(len(ids) for ids, _ in shown(path, model))
    again = {"tokenizer": str(model), "max_over_length": 0.9}
    exact = tmp_path / "exact"
    exact.mkdir()
    path = prepared(exact, "instructions", ROWS, max_tokens=longest, **again)
    rows = examples.read_rows(path, "instructions")
    assert len(list(examples.fitting_pairs(rows, path, load(model), longest, "error"))) == len(ROWS)
    card = json.loads(path.with_name("card.json").read_text())
    assert card["tokens"]["train"]["longest"] == longest
    assert card["checks"]["rows with control tokens in texts (escape)"] == "1 (<|im_end|>: 1, </s>: 1)"
    assert "answers whose reasoning the template leaves out" not in card["checks"]
    less = tmp_path / "less"
    less.mkdir()
    path = prepared(less, "instructions", ROWS, max_tokens=longest - 1, **again)
    assert json.loads(path.with_name("card.json").read_text())["dropped"] == {"over_length": 1}


def test_nemo(tmp_path: Path, model: Path, nemo: Path) -> None:
    """Rows alone (filled up with the end token, without loss) and packed; the last id of a row is not read."""
    path = prepared(tmp_path, "instructions", ROWS)
    settings = {"steps": 1, "lr": 1e-5, "batch_size": 1, "sequence_length": 1024}
    script = IN_NEMO / "nemo_rows.py"
    given = (json.dumps(settings), str(tmp_path), str(model), str(tmp_path / "scratch"))
    (tmp_path / "output").symlink_to(path.parent)
    done = subprocess.run([str(nemo), str(script), *given], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    fed = json.loads(done.stdout.splitlines()[-1])
    wanted = in_order([(ids[:-1], mask[1:]) for ids, mask in shown(path, model)])
    for name in ("alone", "packed"):
        assert len(fed[name]) == len(wanted)
        cut = []
        for (ids, mask), (size, _) in zip(sorted(fed[name]), ((len(one), 0) for one, _ in wanted), strict=True):
            assert not any(mask[size:])
            cut.append((ids[:size], [bool(one) for one in mask[:size]]))
        assert cut == wanted, name


def test_nemo_rl_preferences(tmp_path: Path, model: Path) -> None:
    """It puts a beginning and an end token there whatever it is told: a template that writes both is trained as it is
    shown, one that closes a turn otherwise is refused."""
    schema = schemas.of("0.6.0")
    assert schema is not None
    settings = nemo_rl.read("dpo", {"steps": 1, "lr": 1e-5, "batch_size": 1, "sequence_length": 4096})
    closing = TEMPLATE.replace("<|im_end|>\n{% endfor %}", "{{ eos_token }}{% endfor %}")
    other = write_tokenizer(tmp_path / "closing", closing)
    path = prepared(tmp_path, "preferences", PAIRS[:1])
    made = texts.prepare(settings, schema, path, other, tmp_path / "scratch")
    row = json.loads(made.path.read_text(encoding="utf-8"))
    tokenizer = load(other)
    fed = [
        texts.as_nemo_rl(tokenizer, row["prompt"], row[name], Adds(True, True, False))
        for name in ("chosen", "rejected")
    ]
    assert [(list(one.ids), list(one.mask)) for one in fed] == shown(path, other)
    with pytest.raises(
        examples.ExamplesError, match=r"train\.jsonl:1: NeMo-RL would make other ids of this conversation"
    ):
        texts.prepare(settings, schema, path, model, tmp_path / "scratch")
