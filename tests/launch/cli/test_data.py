"""``overnight data``: every action, what it prints, and what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("tests.support.prepared", exc_type=ImportError)

from launch.cli.main import main
from tests.support.prepared import document, write_lines, write_tokenizer

ROWS = {
    "corpus": [{"text": document(seed)} for seed in range(60)],
    "instructions": [{"input": f"question {seed}", "output": document(seed, 9)} for seed in range(60)],
    "preferences": [{"prompt": f"p {s}", "chosen": document(s, 9), "rejected": document(s + 99, 9)} for s in range(60)],
}


@pytest.mark.parametrize("kind", ROWS)
def test_a_kind_is_made_and_shown(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_lines(tmp_path / "in.jsonl", [*ROWS[kind], ROWS[kind][0]])
    output = tmp_path / "out"
    command = [
        "data",
        kind,
        str(source),
        "--output",
        str(output),
        "--set",
        "split.validation=0",
        "--set",
        "split.test=0.2",
    ]
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
    template = "{% for m in messages %}[{{ m.content }}]{% endfor %}{{ eos_token if not add_generation_prompt }}"
    (tokenizer / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "chat_template": template}))
    source = write_lines(tmp_path / "in.jsonl", ROWS["instructions"])
    settings = ("--set", "template=model", "--set", f"tokenizer={tokenizer}", "--json")
    assert main(["data", "instructions", str(source), "--output", str(tmp_path / "out"), *settings]) == 0
    capsys.readouterr()
    look = ["data", "inspect", str(tmp_path / "out"), "--tokenizer", str(tokenizer), "--rows", "1"]
    assert main([*look, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    tokens = found["sequences"]["completion"]
    row = json.loads((tmp_path / "out/train.jsonl").read_text().splitlines()[0])
    asked, answer = (message["content"] for message in row["messages"])
    assert asked.startswith("question ")
    assert "".join(token["text"] for token in tokens if not token["loss"]) == f"[{asked}]"
    assert "".join(token["text"] for token in tokens if token["loss"]) == f"[{answer}]</s>"
    assert [token["control"] for token in tokens] == [token["text"] == "</s>" for token in tokens]
    assert found["notes"] == {"completion": f"end token at {len(tokens) - 1}"}
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert main(look) == 0
    plain = capsys.readouterr().out.splitlines()
    assert f"{tmp_path / 'out/train.jsonl'}:1  " in plain[0]
    assert plain[1].startswith("completion  ")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(look) == 0
    assert "\x1b[32m" in capsys.readouterr().out


def test_phases_are_told_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_lines(tmp_path / "in.jsonl", ROWS["instructions"])
    command = ["data", "instructions", str(source), "--output"]
    assert main([*command, str(tmp_path / "told")]) == 0
    assert capsys.readouterr().err.split() == ["scan", "read"]
    assert main([*command, str(tmp_path / "quiet"), "--json"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--set", "near_duplicates"), "write KEY=VALUE"),
        (("--set", "near=0.8"), "near: unknown; known: "),
        (("--set", "split.test=2"), "split.test: must be below 1, not 2"),
        (("--set", "languages=[english]"), "must be language codes"),
        (("--cluster", "devcluster", "--jobs", "0"), "--jobs 0: must be 1 or more"),
        (("--cluster", "local"), "the profile 'local' has no Slurm"),
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


def test_interrupted_it_stops_at_once_and_goes_on_later(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{"text": document(seed, 300)} for seed in range(3000)])
    command = [sys.executable, "-m", "launch.cli", "data", "corpus", str(source), "--output", str(tmp_path / "out")]
    command += ["--set", "shard_bytes=40000", "--workers", "2", "--json"]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[3], stderr=subprocess.PIPE, text=True)
    seals = tmp_path / "out.work/read"
    end = time.monotonic() + 180
    while not list(seals.glob("[0-9]*/seal.json")) and time.monotonic() < end:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=180)
    assert (process.returncode, said.strip()) == (130, "interrupted")
    shards = len(json.loads((tmp_path / "out.work/plan.json").read_text())["plan"]["shards"])
    assert not list(tmp_path.glob("*out*/*.jsonl"))  # nothing that looks like a data set
    assert 0 < len(list(seals.glob("[0-9]*/seal.json"))) < shards
    assert main(command[3:]) == 0
    assert json.loads((tmp_path / "out/card.json").read_text())["read"] == 3000
