"""A chat template and what it says of itself."""

from __future__ import annotations

import pytest

from jobs.encoding.errors import CannotEncode
from jobs.encoding.template import Template

MARKED = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"


@pytest.mark.parametrize(
    ("source", "marks"),
    [
        (MARKED, True),
        ("{%- generation -%}", True),
        ("{# {% generation %} #}{{ messages }}", False),
        ("generation", False),
    ],
)
def test_marks_of_generation_in_a_comment_are_none(source: str, marks: bool) -> None:
    assert Template(source, None, {}, "template").marks is marks


def test_an_error_of_a_template_says_why_the_row_has_no_place() -> None:
    pytest.importorskip("transformers")
    source = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(CannotEncode, match="the chat template refuses it: roles must alternate") as caught:
        Template(source, None, {}, "template")([{"role": "user", "content": "Hi"}])
    assert caught.value.reason == "refused_by_template"
