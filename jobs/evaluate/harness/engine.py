"""Our model as a language model of lm-evaluation-harness: its questions and prompts, answered by our forward passes.

Only a job imports this: the harness takes many seconds to import.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from jobs.evaluate import measure
from jobs.evaluate.choices import Question, Scorer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MOST_TOKENS = 256
"""Of a generated answer, where its task does not say it."""


@dataclass(frozen=True)
class Prompt:
    """What an answer is generated to: ids, the texts at which it ends, and how many tokens it has at the most."""

    ids: tuple[int, ...]
    stops: tuple[str, ...]
    most: int

    def __len__(self) -> int:
        return len(self.ids)


class Engine(TemplateLM):  # type: ignore[misc]  # the harness is not there where types are checked
    """Answers requests of the harness. It is its LM, so that its own evaluator can run it, too; an evaluation of ours
    asks it for ``parts`` of a document and for the results of a batch of these."""

    backend = "causal"

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_tokens: int = 2048, prompts: int = 64
    ) -> None:
        super().__init__()
        self.tokenizer, self._model = tokenizer, model
        self._score = Scorer(model)
        self._batch_tokens, self._prompts = batch_tokens, prompts
        own = model.generation_config.eos_token_id if model.generation_config is not None else None
        self._ends = sorted({tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None})

    @property
    def eot_token_id(self) -> int:
        """The end of a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has no prompt."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else int(begin)

    @property
    def tokenizer_name(self) -> str:
        """A name for the harness's caches, which we do not use."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The ids of a text; with what the tokenizer puts before each, unless the text has it already."""
        if add_special_tokens is None:
            begin = self.tokenizer.decode([self.prefix_token_id])
            more = {"add_special_tokens": False} if begin and string.startswith(begin) else {}
        else:
            more = {"add_special_tokens": add_special_tokens}
        return list(self.tokenizer.encode(string, **more))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation as the text that the model sees; without the system's part where the template has none."""
        import jinja2

        how = {"add_generation_prompt": add_generation_prompt, "continue_final_message": not add_generation_prompt}
        try:
            return str(self.tokenizer.apply_chat_template(chat_history, tokenize=False, **how))
        except jinja2.exceptions.TemplateError:
            said = [message for message in chat_history if message["role"] != "system"]
            return str(self.tokenizer.apply_chat_template(said, tokenize=False, **how))

    # -- parts of a document, and their results

    def parts(self, requests: Sequence[Any]) -> list[Question | Prompt]:
        """What goes through the model for the requests of one document: choices of one prompt together."""
        found: list[Question | Prompt] = []
        for request in requests:
            if request.request_type == "generate_until":
                found.append(self._prompt(*request.args))
            elif request.request_type == "loglikelihood_rolling":
                found += self._windows(*request.args)
        pairs = [self._pair(*request.args) for request in requests if request.request_type == "loglikelihood"]
        for prompt, own in groupby(pairs, key=lambda pair: pair[0]):
            found.append(Question(prompt, tuple(choice for _, choice in own)))
        return found

    def results(self, requests: Sequence[Any], answered: Sequence[Any]) -> list[Any]:
        """For each request what the harness expects, from the results of its ``parts``."""
        if requests[0].request_type == "loglikelihood_rolling":
            return [sum(value for own in answered for value, _ in own)]
        if requests[0].request_type == "generate_until":
            return list(answered)
        return [one for own in answered for one in own]

    def groups(self, parts: Sequence[Question | Prompt]) -> list[list[int]]:
        """Batches of parts: questions by tokens, prompts by how their answers end."""
        found: list[list[int]] = []
        kinds: dict[Any, list[int]] = {}
        for index, part in enumerate(parts):
            kinds.setdefault((part.stops, part.most) if isinstance(part, Prompt) else None, []).append(index)
        for kind, indices in kinds.items():
            lengths = [len(parts[index]) for index in indices]
            budget, most = (self._batch_tokens, None) if kind is None else (self._batch_tokens * 4, self._prompts)
            found += [[indices[one] for one in group] for group in measure.batches(lengths, budget, most)]
        return found

    def answer(self, parts: Sequence[Question | Prompt]) -> list[Any]:
        """Results of one batch."""
        first = parts[0]
        if isinstance(first, Question):
            return list(self._score([part for part in parts if isinstance(part, Question)]))
        prompts = [part.ids for part in parts if isinstance(part, Prompt)]
        return measure.answers(
            self._model, self.tokenizer, prompts, first.most, self._ends, stops=first.stops, strip=False
        )

    def too_long(self, part: Question | Prompt) -> int | None:
        """Tokens of a part that the model cannot see at once; None where it can."""
        most = measure.positions(self._model)
        needed = part.longest - 1 if isinstance(part, Question) else len(part) + part.most
        return needed if most is not None and needed > most else None

    def _pair(self, context: str, continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if context:
            before, after = self._encode_pair(context, continuation)
        else:
            before, after = [self.prefix_token_id], self.tok_encode(continuation, add_special_tokens=False)
            if after[0] == self.prefix_token_id:
                before, after = after[:1], after[1:]
        return tuple(before), tuple(after)

    def _windows(self, text: str) -> list[Question]:
        most = measure.positions(self._model) or self._batch_tokens
        windows = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, most, 1)
        return [Question(tuple(a), (tuple(b),)) for a, b in map(make_disjoint_window, windows)]

    def _prompt(self, context: str, given: dict[str, Any]) -> Prompt:
        how = normalize_gen_kwargs(given, MOST_TOKENS)
        return Prompt(tuple(self.tok_encode(context)), tuple(how["until"]), int(how["max_gen_toks"]))

    # -- as the harness asks

    def _all(self, parts: list[Question | Prompt]) -> list[Any]:
        return measure.in_batches(parts, self.groups(parts), self.answer, lambda: None)

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        pairs = [(tuple(before), tuple(after)) for _, before, after in requests]
        together = [(prompt, list(own)) for prompt, own in groupby(pairs, key=lambda pair: pair[0])]
        parts: list[Question | Prompt] = [Question(prompt, tuple(one for _, one in own)) for prompt, own in together]
        return [one for own in self._all(parts) for one in own]

    def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
        """Log-likelihood of each text."""
        own = [self._windows(*request.args) for request in requests]
        found = iter(self._all([part for parts in own for part in parts]))
        return [sum(next(found)[0][0] for _ in parts) for parts in own]

    def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
        """The answer to each prompt."""
        return self._all([self._prompt(*request.args) for request in requests])
