"""Texts to a model and back: continuations of prompts scored, and answers generated.

Texts become ids as lm-evaluation-harness makes them, so that its requests get the answers that its own engine for
transformers gives (``parts``, ``results``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from jobs.core.batches import BATCH_PROMPTS, BATCH_TOKENS
from jobs.evaluate import measure
from jobs.evaluate.choices import Scorer
from jobs.evaluate.parts import Prompt, ScoredPrompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WASTE = 0.15
"""Share of padding in a batch of questions."""

MOST_TOKENS = 256
"""Of a generated answer, where its task does not say it."""


class Engine:
    """A model with its tokenizer. ``groups`` puts what goes through it into batches, and ``answer`` has the results of
    one: of a ``ScoredPrompt`` what ``choices.Scored`` says of each choice, of a ``Prompt`` the answer."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_tokens: int = BATCH_TOKENS,
        prompts: int = BATCH_PROMPTS,
    ) -> None:
        self.tokenizer, self._model = tokenizer, model
        self._score = Scorer(model)
        self._batch_tokens, self._prompts = batch_tokens, prompts
        own = model.generation_config.eos_token_id if model.generation_config is not None else None
        self._ends = sorted({tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None})

    @property
    def start(self) -> int:
        """What stands before a text that has no prompt: where texts begin, else where they end."""
        begin = self.tokenizer.bos_token_id
        return int(self.tokenizer.eos_token_id if begin is None else begin)

    def encode(self, text: str) -> list[int]:
        """The ids of a text; with what the tokenizer puts before each, unless the text has it already."""
        begin = self.tokenizer.decode([self.start])
        more = {"add_special_tokens": False} if begin and text.startswith(begin) else {}
        return list(self.tokenizer.encode(text, **more))

    def pair(self, prompt: str, choice: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids of a prompt and of its continuation, which are those of both in one piece. Blanks at the end of the
        prompt belong to the continuation: most tokenizers have them in its first token."""
        if not prompt:
            after = list(self.tokenizer.encode(choice, add_special_tokens=False))
            return ((self.start,), tuple(after)) if after[0] != self.start else (tuple(after[:1]), tuple(after[1:]))
        bare = prompt.rstrip()
        before, both = self.encode(bare), self.encode(prompt + choice)
        return tuple(before), tuple(both[len(before) :])

    def question(self, prompt: str, choices: Sequence[str]) -> list[ScoredPrompt]:
        """The choices of a prompt as what goes through the model; mostly one question."""
        pairs = [self.pair(prompt, choice) for choice in choices]
        grouped = groupby(pairs, key=lambda pair: pair[0])
        return [ScoredPrompt(before, tuple(after for _, after in own)) for before, own in grouped]

    def prompt(self, text: str, most: int, stops: Sequence[str] = ()) -> Prompt:
        """A text to answer with at most so many tokens."""
        return Prompt(tuple(self.encode(text)), tuple(stops), most)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation as the text that the model sees; without the system's part where the template has none."""
        import jinja2

        how = {"add_generation_prompt": add_generation_prompt, "continue_final_message": not add_generation_prompt}
        try:
            return str(self.tokenizer.apply_chat_template(chat_history, tokenize=False, **how))
        except jinja2.exceptions.TemplateError:
            said = [message for message in chat_history if message["role"] != "system"]
            return str(self.tokenizer.apply_chat_template(said, tokenize=False, **how))

    def parts(self, requests: Sequence[Any]) -> list[ScoredPrompt | Prompt]:
        """What goes through the model for the requests of one document of the harness: choices of a prompt together."""
        found: list[ScoredPrompt | Prompt] = []
        for request in requests:
            if request.request_type == "generate_until":
                found.append(self._generation(*request.args))
            elif request.request_type == "loglikelihood_rolling":
                found += self._windows(*request.args)
        pairs = [self.pair(*request.args) for request in requests if request.request_type == "loglikelihood"]
        for prompt, own in groupby(pairs, key=lambda pair: pair[0]):
            found.append(ScoredPrompt(prompt, tuple(choice for _, choice in own)))
        return found

    def results(self, requests: Sequence[Any], answered: Sequence[Any]) -> list[Any]:
        """For each request what the harness expects, from the results of its ``parts``."""
        if requests[0].request_type == "loglikelihood_rolling":
            return [sum(value for own in answered for value, _ in own)]
        if requests[0].request_type == "generate_until":
            return list(answered)
        return [one for own in answered for one in own]

    def groups(self, parts: Sequence[ScoredPrompt | Prompt]) -> list[list[int]]:
        """Batches of parts: questions by tokens, prompts by how their answers end."""
        found: list[list[int]] = []
        kinds: dict[Any, list[int]] = {}
        for index, part in enumerate(parts):
            kinds.setdefault((part.stops, part.most) if isinstance(part, Prompt) else None, []).append(index)
        for kind, indices in kinds.items():
            lengths = [len(parts[index]) for index in indices]
            budget, most = (self._batch_tokens, None) if kind is None else (self._batch_tokens * 4, self._prompts)
            groups = measure.batches(lengths, budget, most, WASTE if kind is None else None)
            found += [[indices[one] for one in group] for group in groups]
        return found

    def answer(self, parts: Sequence[ScoredPrompt | Prompt]) -> list[Any]:
        """Results of one batch."""
        first = parts[0]
        if isinstance(first, ScoredPrompt):
            return list(self._score([part for part in parts if isinstance(part, ScoredPrompt)]))
        prompts = [part.ids for part in parts if isinstance(part, Prompt)]
        made = measure.answers(
            self._model, self.tokenizer, prompts, first.most, self._ends, stops=first.stops, strip=False
        )
        return [one.text for one in made]

    def too_long(self, part: ScoredPrompt | Prompt) -> int | None:
        """Tokens of a part that the model cannot see at once; None where it can."""
        most = measure.positions(self._model)
        needed = part.longest - 1 if isinstance(part, ScoredPrompt) else len(part) + part.most
        return needed if most is not None and needed > most else None

    def _windows(self, text: str) -> list[ScoredPrompt]:
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        most = measure.positions(self._model) or self._batch_tokens
        windows = get_rolling_token_windows(self.encode(text), self.start, most, 1)
        return [ScoredPrompt(tuple(a), (tuple(b),)) for a, b in map(make_disjoint_window, windows)]

    def _generation(self, text: str, given: dict[str, Any]) -> Prompt:
        from lm_eval.models.utils import normalize_gen_kwargs

        how = normalize_gen_kwargs(given, MOST_TOKENS)
        return self.prompt(text, int(how["max_gen_toks"]), how["until"])
