"""What ``overnight data inspect`` shows is what each back end feeds to the model, and what the evaluation scores."""

from __future__ import annotations

import io
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
from jobs.encoding.rows import RowEncoder
from jobs.training import examples, pairs
from tests.support import environments, fed_rows, inspect_picture, stages, template_rows
from tests.support.environments import IN_NEMO
from tests.support.learned import learned
from tests.support.prepared import in_this_process, make, write_lines
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
    scratch = tmp_path / "rows"
    fit, ctx = pairs.Fit(4096), stages.quiet_context(tmp_path)
    pairs.dataset(path, "instructions", "ab" * 32, load(model), fit, scratch, ctx)
    for row in PairsConfig(str(path), str(scratch), str(model), len(ROWS), 1).build():
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


@pytest.mark.parametrize("kind", ["instructions", "preferences"])
def test_the_colours_on_a_terminal_are_the_loss_that_trl_is_fed(tmp_path: Path, model: Path, kind: str) -> None:
    """Of conversations with calls of tools and of preferences; the line above has the places of both ends."""
    from rich.console import Console

    from launch.cli import data

    path = prepared(tmp_path, kind, ROWS if kind == "instructions" else PAIRS)
    settings = TrainSettings.read({"steps": 1, "lr": 1e-5, "batch_size": 2, "sequence_length": 4096})
    tokenizer = load(model)
    made, _ = learned(path, kind, tokenizer, settings)
    names = [""] if kind == "instructions" else ["chosen_", "rejected_"]
    fed = [of_labels(row[f"{name}input_ids"], row[f"{name}labels"]) for row in made for name in names]
    console = Console(record=True, width=400, file=io.StringIO(), force_terminal=True, highlight=False)
    for row in inspect.rows(path, model, 99):
        data.show(row, console)
    printed = "".join(f"{one.style}\0{one.text}\0" for one in console._record_buffer).split("\0")[:-1]
    green = "".join(text for style, text in zip(printed[::2], printed[1::2], strict=True) if "green" in style)
    with_loss = [tokenizer.decode([one for one, taken in zip(*both, strict=True) if taken]) for both in fed]
    assert green.replace("\n", "") == "".join(with_loss).replace("\n", "")
    bold = [text for style, text in zip(printed[::2], printed[1::2], strict=True) if style.startswith("bold ")]
    control = sum(len([one for one in ids if one in RowEncoder(tokenizer).control.ids.values()]) for ids, _ in fed)
    assert len([text for text in bold if not text.startswith(str(path))]) == control
    shown_text = console.export_text()
    for ids, mask in fed:
        places = [f"{at}" for at, one in enumerate(ids) if one == tokenizer.eos_token_id]
        ends = f"; end token at {', '.join(places)}" if places else ""
        assert f"{len(ids)} tokens, {sum(mask)} with loss; begin token at 0{ends}" in shown_text


def test_the_picture_of_the_documentation_is_what_is_shown() -> None:
    assert inspect_picture.PICTURE.read_text(encoding="utf-8") == inspect_picture.drawn(), (
        "python -m tests.support.inspect_picture draws it"
    )


TEXTS = [f"Text {number} of a corpus, with <|im_end|> and </s> in it." for number in range(7)]


@pytest.fixture(scope="module", params=["escape", "allow"])
def corpora(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its corpus twice: with the ids of the data stage, and as text alone."""
    root = tmp_path_factory.mktemp("corpora")
    own = write_tokenizer(root / "model/tokenizer", TEMPLATE)
    source = write_lines(root / "in.jsonl", [{"text": text} for text in TEXTS])
    for name, more in (("tokens", {"tokenizer": str(own)}), ("text", {})):
        output = root / "model/corpus" / name / "output"
        make(
            "corpus", [source], output, split=ALL, runner=in_this_process, quality=False, near_duplicates=None,
            special_tokens=request.param, **more,
        )  # fmt: skip
    return root


def check_corpora(root: Path, name: str, python: Path | None = None) -> None:
    """The blocks, one behind the other, are the documents as they are shown, in some order, but for the rest."""
    own = root / "model/tokenizer"
    fed = template_rows.fed([name], root, python)[name]["model"]
    assert set(fed) == {"text", "tokens"}
    for data, found in fed.items():
        assert found["refused"] == ""
        output = root / "model/corpus" / data / "output"
        documents = [ids for ids, _ in shown(output / "train.jsonl", own)]
        if data == "tokens":
            assert [ids for ids, _ in shown(output / "megatron/train_text_document", own)] == documents
        stream = [number for ids, _ in found["fed"] for number in ids]
        assert 0 <= sum(map(len, documents)) - len(stream) <= fed_rows.BLOCK
        while stream:
            document = next(ids for ids in documents if ids[: len(stream)] == stream[: len(ids)])
            documents.remove(document)
            del stream[: len(document)]
        assert len(documents) <= 1


def test_corpora_of_trl(corpora: Path) -> None:
    check_corpora(corpora, "trl corpus")


def test_corpora_of_nemo(corpora: Path, nemo: Path) -> None:
    check_corpora(corpora, "nemo corpus", nemo)


@pytest.mark.nvidia
def test_corpora_of_automodel(corpora: Path, tmp_path: Path) -> None:
    venv = environments.installed("automodel", "nemo_automodel")
    check_corpora(corpora, "automodel corpus", environments.on_cpu(venv, tmp_path / "venv") / "bin/python")


def test_corpora_are_shown_with_their_beginning_their_end_and_their_control_tokens(corpora: Path) -> None:
    own = corpora / "model/tokenizer"
    bos, eos = (load(own).convert_tokens_to_ids(name) for name in ("<s>", "</s>"))
    output = corpora / "model/corpus/tokens/output"
    escaped = json.loads((output / "encoding.json").read_text())["special_tokens"] == "escape"
    for path in (output / "train.jsonl", output / "megatron/train_text_document"):
        for row in inspect.rows(path, own, 9):
            tokens = row.sequences["text"]
            ends = [at for at, token in enumerate(tokens) if token.id == eos]
            assert (tokens[0].id, ends[-1], len(ends)) == (bos, len(tokens) - 1, 1 if escaped else 2)
            said = f"begin token at 0; end token at {', '.join(map(str, ends))}"
            more = "; control tokens that are text: <|im_end|>: 1, </s>: 1" if escaped else ""
            assert row.notes["text"] == said + more
            assert all(token.loss for token in tokens)


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
