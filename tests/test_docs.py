"""Pages: every link leads somewhere, every page is in the table of contents, and Korean pages follow the English ones."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.core.verdict import FailureClass

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TRANSLATED = sorted(path.relative_to(DOCS / "ko") for path in (DOCS / "ko").rglob("*.md") if path.name != "index.md")

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """As they are made of headings: small letters, no marks, - for blanks."""
    text = _CODE.sub("", page.read_text(encoding="utf-8"))
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in found}


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "README.md", ROOT / "README.ko.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = _CODE.sub("", page.read_text(encoding="utf-8"))
    for target in (*_LINK.findall(text), *_PICTURE.findall(text)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        path = page if not name else (page.parent / name).resolve()
        assert path.exists(), target
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), target


def test_every_page_is_in_the_table_of_contents() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^[\w/]+$", index, re.MULTILINE))
    assert {str(page.relative_to(DOCS).with_suffix("")) for page in PAGES} - {"index"} == listed


PAIRS = [(ROOT / "README.md", ROOT / "README.ko.md"), *((DOCS / name, DOCS / "ko" / name) for name in TRANSLATED)]
"""English pages and the Korean ones that follow them."""


@pytest.mark.parametrize(("original", "translated"), PAIRS, ids=lambda page: page.name)
def test_a_korean_page_has_what_the_english_one_has(original: Path, translated: Path) -> None:
    """As many headings and rows of tables, and the same examples."""
    english, korean = (page.read_text(encoding="utf-8") for page in (original, translated))

    def shape(text: str) -> tuple[list[str], list[int], int]:
        bare = _CODE.sub("", text)
        heads = re.findall(r"^(#+) ", bare, re.MULTILINE)
        return heads, [line.count("|") for line in bare.splitlines() if line.startswith("|")], len(_CODE.findall(text))

    assert shape(korean) == shape(english)
    prose = _CODE.sub("", korean)
    hangul = sum("가" <= letter <= "힣" for letter in prose)
    assert hangul > len(prose) / 10


def test_the_promised_pages_are_there_in_korean() -> None:
    promised = {
        Path("guide.md"),
        Path("tutorial.md"),
        *(path.relative_to(DOCS) for path in (DOCS / "how_to").glob("*.md")),
    }
    assert promised <= set(TRANSLATED)


def test_every_failure_class_has_its_line() -> None:
    page = (DOCS / "failures.md").read_text(encoding="utf-8")
    missing = {one.value for one in FailureClass} - {"none"} - {*re.findall(r"`(\w+)`", page)}
    assert missing == set()


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("furo", reason="the docs extra is not installed")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", str(DOCS), str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "ko" / "guide.html").read_text(encoding="utf-8")
    assert "<table" in page
    assert "파인튜닝" in page
