"""``overnight data``: every action, what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("tests.data_prep.prepared", exc_type=ImportError)

from launch.cli.main import main
from tests.data_prep.prepared import document, write_lines, write_tokenizer

ROWS = {
    "corpus": [{"text": document(seed)} for seed in range(60)],
    "instructions": [{"input": f"question {seed}", "output": document(seed, 9)} for seed in range(60)],
    "preferences": [{"prompt": f"p {s}", "chosen": document(s, 9), "rejected": document(s + 99, 9)} for s in range(60)],
}


@pytest.mark.parametrize("kind", ROWS)
def test_a_kind_is_made_and_shown(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_lines(tmp_path / "in.jsonl", [*ROWS[kind], ROWS[kind][0]])
    output = tmp_path / "out"
    command = ["data", kind, str(source), "--output", str(output), "--set", "split.validation=0", "--set", "split.test=0.2"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "61 " in printed
    assert "60 kept + 1 dropped" in printed
    assert "duplicate" in printed
    assert main([*command[:-1], "split.test=0.3", "--json"]) != 0
    assert "is not empty" in capsys.readouterr().err
    assert main(["data", "inspect", str(output), "--rows", "2"]) == 0
    assert "train.jsonl:2" in capsys.readouterr().out


def test_inspect_shows_which_tokens_carry_loss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    template = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    (tokenizer / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "chat_template": template}))
    source = write_lines(tmp_path / "in.jsonl", ROWS["instructions"])
    settings = ("--set", "template=model", "--set", f"tokenizer={tokenizer}", "--json")
    assert main(["data", "instructions", str(source), "--output", str(tmp_path / "out"), *settings]) == 0
    capsys.readouterr()
    look = ["data", "inspect", str(tmp_path / "out"), "--tokenizer", str(tokenizer), "--rows", "1"]
    assert main([*look, "--json"]) == 0
    tokens = json.loads(capsys.readouterr().out)["sequences"]["completion"]
    row = json.loads((tmp_path / "out/train.jsonl").read_text().splitlines()[0])
    assert row["prompt"].startswith("[question ")
    assert "".join(token["text"] for token in tokens if not token["loss"]) == row["prompt"]
    assert "".join(token["text"] for token in tokens if token["loss"]) == row["completion"] + "</s>"
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(look) == 0
    assert "\x1b[32m" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--set", "near_duplicates"), "write KEY=VALUE"),
        (("--set", "near=0.8"), "near: unknown; known: "),
        (("--set", "split.test=2"), "split.test: must be a part of 1"),
        (("--set", "languages=[english]"), "must be language codes"),
    ],
)
def test_settings_that_do_not_fit_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], says: str
) -> None:
    source = write_lines(tmp_path / "in.jsonl", ROWS["corpus"])
    assert main(["data", "corpus", str(source), "--output", str(tmp_path / "out"), *more]) == 2
    assert says in capsys.readouterr().err


def test_hostile_text_is_text_on_the_card(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script><img src=x onerror='alert(2)'> &amp;"
    rows = [{"input": f"{bad} {seed}", "output": f"{bad} {document(seed, 9)}"} for seed in range(60)]
    source = write_lines(tmp_path / "<b>in.jsonl", [*rows, rows[0]])
    assert main(["data", "instructions", str(source), "--output", str(tmp_path / "out"), "--json"]) == 0
    page = (tmp_path / "out/card.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert not any(mark in page for mark in ("<script", "<img", "<b>in"))
