"""Shell blocks of pages are run in order, or say why not. Those that ask for Slurm: tests/slurm/test_pages.py."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.slurm.test_pages import PAGES as ON_SLURM
from tests.support.base_model import complete
from tests.support.pages import ROOT, Block, Session, blocks, missing, pages

KOREAN = [page for page in pages() if page.name == "README.ko.md" or page.is_relative_to(ROOT / "docs/ko")]
PIPELINE = """\
name: night
model: {base: ./tiny}
stages:
  pairs: {kind: instructions, from: ./chats.jsonl, prepare: {}}
  sft: {kind: sft, checkpoint: base, data: pairs, steps: 100, lr: 1e-5, batch_size: 64, nodes: 2}
"""
CONFIG = {"model_type": "llama", "vocab_size": 400, "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
          "num_key_value_heads": 2, "intermediate_size": 128, "max_position_embeddings": 512}  # fmt: skip


def english(page: Path) -> Path:
    """The page that a Korean one follows."""
    return ROOT / "README.md" if page.name == "README.ko.md" else ROOT / "docs" / page.relative_to(ROOT / "docs/ko")


def is_run_here(page: Path) -> bool:
    named = str(page.relative_to(ROOT))
    return named not in ON_SLURM and page not in KOREAN and any(block.is_run for block in blocks(page))


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_each_shell_block_is_run_or_says_why_not(page: Path) -> None:
    for block in blocks(page):
        assert block.is_run or block.reason, f"{block}: ```bash, or <!-- not run: REASON --> before it"


@pytest.mark.parametrize("page", KOREAN, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_a_korean_page_shows_are_run_on_the_english_one(page: Path) -> None:
    shown = [block for block in blocks(page) if block.is_run]
    if shown:
        assert [bare(one) for one in shown] == [bare(one) for one in blocks(english(page)) if one.is_run]


def bare(block: Block) -> str:
    """Without comments, which are translated."""
    return re.sub(r" +# .*", "", block.text)


@pytest.mark.parametrize("page", filter(is_run_here, pages()), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_do_what_it_says(page: Path, tmp_path: Path) -> None:
    """In a directory with the data, the model and the pipeline that pages speak of."""
    pytest.importorskip("transformers")
    rows = ({"prompt": f"What is {n} and {n}?", "completion": str(2 * n)} for n in range(18))
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "night.yaml").write_text(PIPELINE)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/config.json").write_text(json.dumps(CONFIG))
    complete(tmp_path / "tiny")
    session = Session(tmp_path)
    for block in blocks(page):
        if block.is_run:
            session.run(block)


def test_what_counts_as_shown() -> None:
    shown = "run ab3de in /tmp/x/runs/ab3de\n  corpus   submitted  7\nloss 4.1 [4.0, 4.2]\n"
    assert (
        missing(("run sdy3f in /home/me/runs/sdy3f", "corpus  submitted  15", "loss 4.489 [4.489, 4.489]"), shown)
        is None
    )
    assert missing(("corpus ... submitted", "run sdy3f in"), shown) == "run sdy3f in"  # in this order
    assert missing(("corpus failed",), shown) == "corpus failed"


def test_a_block_is_read_with_its_reason_and_what_it_shows(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- not run: needs a hub -->\n```sh\nls\n```\n\n```bash\npwd\n```\n\n```text\n/x\n```\n\n```yaml\na: 1\n```\n"
    )
    first, second = blocks(page)
    assert (first.reason, first.is_run) == ("needs a hub", False)
    assert isinstance(second, Block)
    assert (second.is_run, second.expected) == (True, ("/x",))
