"""Every chat template that TRL ships, and those in the shape of other families, over a grid of conversations."""

from __future__ import annotations

import pytest

pytest.importorskip("trl")

from tests.support import templates

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def results() -> list[templates.Result]:
    return list(templates.results())


def test_ids_and_loss_are_those_of_transformers_or_the_row_is_refused(results: list[templates.Result]) -> None:
    assert len(results) >= 72
    assert {one.name: one.wrong for one in results if one.wrong} == {}
    for one in results:
        assert one.equal + sum(map(len, one.refused.values())) == one.tried == len(templates.GRID)
    assert sum(one.equal for one in results) > 0.7 * sum(one.tried for one in results)


def test_conversations_of_texts_are_never_refused_but_where_the_template_has_no_place(
    results: list[templates.Result],
) -> None:
    """Templates of models that see pictures take content in parts only; Gemma has no system message; GLM-4 closes no
    answer."""
    for one in results:
        known = {"trl/gemma": 2, "trl/gemma_training": 2}.get(one.name, 0)
        refused = [title for found in one.refused.values() for title in found if _plain(title)]
        if not any(name in one.name for name in ("idefics", "smolvlm", "llava", "glm4moe")) or "glm4moe_t" in one.name:
            assert len(refused) <= known, one


def _plain(title: str) -> bool:
    return title.split(":")[0] in ("one turn", "two turns", "three turns", "last answer only", "system")


def test_the_page_shows_these_results(results: list[templates.Result]) -> None:
    assert templates.PAGE.read_text(encoding="utf-8").startswith(templates.page(results)), (
        "python -m tests.support.templates writes docs/templates.md"
    )
