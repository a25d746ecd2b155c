"""Fixtures of the data stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data_prep.build import build
from data_prep.common.settings import Settings
from tests.support.catalogues import invented, po, write_wheel


@pytest.fixture(scope="session", autouse=True)
def _proven_once() -> Iterator[None]:
    """That tiktoken cuts as a tokenizer does takes seconds: it is proven once for each ``tokenizer.json``."""
    try:
        from data_prep.tokens.encoder import Encoder, Proof
    except ImportError:  # without the extra data
        yield
        return
    known: dict[str, Proof | None] = {}
    use = Encoder._use_tiktoken

    def remembered(self: Encoder, parsed: dict[str, Any], proven: Proof | None) -> None:
        use(self, parsed, proven or known.get(self.digest))
        known[self.digest] = self.proof

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoder, "_use_tiktoken", remembered)
        yield


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three wheels of invented messages that overlap."""
    directory = tmp_path_factory.mktemp("wheels")
    for number, project in enumerate(("alpha", "beta", "gamma-app")):
        target, contrast = invented(number)
        folder = project.replace("-", "_")
        write_wheel(
            directory,
            project,
            {
                f"{folder}/locale/pt_PT/LC_MESSAGES/django.po": po(target),
                f"{folder}/locale/pt_BR/LC_MESSAGES/django.po": po(contrast),
            },
        )
    return directory


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Run one data stage; returns its output directory."""

    def run(kind: str, settings: dict[str, Any], name: str = "", **sources: Any) -> Path:
        output = tmp_path / f"{kind}{name}"
        output.mkdir()
        build(Settings.parse(kind, settings), output, **sources)
        return output

    return run
