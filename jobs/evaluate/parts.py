"""What goes through a model at once: prompts with continuations to score, and prompts to answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class ScoredPrompt:
    """A prompt, and continuations of it, none of them empty."""

    prompt: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        """Tokens that go through the model: of a choice its last one does not."""
        return len(self.prompt) + sum(len(choice) - 1 for choice in self.choices)

    @property
    def longest(self) -> int:
        """Tokens that the model sees at once."""
        return len(self.prompt) + max(map(len, self.choices))

    def alone(self) -> Iterator[ScoredPrompt]:
        """A question for each choice."""
        return (ScoredPrompt(self.prompt, (choice,)) for choice in self.choices)


@dataclass(frozen=True)
class Prompt:
    """What an answer is generated to: ids, the texts at which it ends, and how many tokens it has at the most."""

    ids: tuple[int, ...]
    stops: tuple[str, ...]
    most: int

    def __len__(self) -> int:
        return len(self.ids)
