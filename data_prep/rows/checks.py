"""What is dropped or counted of the rows of a data set: repetitions, pairs that say nothing, test questions, length."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from data_prep.card.account import Account
from data_prep.common import text
from data_prep.common.errors import DataError
from data_prep.rows import pairs
from data_prep.rows.drafts import Draft
from data_prep.rows.recipe import RowRecipe
from data_prep.sources.layout import order
from jobs.encoding.errors import CannotEncode
from jobs.encoding.rows import RowEncoder, control_tokens


def without_duplicates(drafts: Iterable[Draft], account: Account, shared: Counter[str]) -> list[Draft]:
    """Exact repetitions leave; one prompt may well have several answers. Of a row in two splits that have files of
    their own the held-out one stays; ``shared`` counts these by their splits."""
    seen: dict[bytes, str] = {}
    kept: list[Draft] = []
    for draft in sorted(drafts, key=lambda draft: order(draft.split)):
        content = json.dumps(draft.row, ensure_ascii=False, sort_keys=True).encode()
        key = hashlib.blake2b(content, digest_size=16).digest()
        if (other := seen.setdefault(key, draft.split)) != draft.split:
            shared[f"{draft.split}/{other}"] += 1
            account.drop(f"duplicate_of_{other}", draft.place, draft.asked)
        elif len(seen) == len(kept):
            account.drop("duplicate", draft.place, draft.asked)
        else:
            kept.append(draft)
    return kept


def checked_pairs(drafts: list[Draft], recipe: RowRecipe, account: Account, checks: dict[str, Any]) -> list[Draft]:
    """Pairs that say something, the right way round."""
    never = text.word_pattern(recipe.chosen_never)
    kept: list[Draft] = []
    near = swapped = 0
    for draft in drafts:
        chosen, rejected = draft.answers
        if pairs.same(chosen, rejected):
            account.drop("no_difference", draft.place, chosen)
            continue
        alike = pairs.similarity(chosen, rejected, min(pairs.NEAR, recipe.near_identical or pairs.NEAR))
        near += alike >= pairs.NEAR
        if recipe.near_identical is not None and alike >= recipe.near_identical:
            account.drop("near_identical", draft.place, chosen)
            continue
        if never is not None and never.search(chosen):
            wrong_way = not never.search(rejected)
            swapped += wrong_way
            if wrong_way and recipe.swapped == "swap":
                draft.answers = (rejected, chosen)
                draft.row |= {"chosen": draft.row["rejected"], "rejected": draft.row["chosen"]}
                account.notes["swapped"] += 1
            elif recipe.swapped != "keep":
                account.drop("swapped" if wrong_way else "chosen_never", draft.place, chosen)
                continue
        kept.append(draft)
    against = pairs.contradictions(
        [(f"{draft.context}\0{draft.asked}", draft.answers[0], draft.answers[1]) for draft in kept]
    )
    for number in sorted(against):
        account.drop("contradiction", kept[number].place, kept[number].asked)
    kept = [draft for number, draft in enumerate(kept) if number not in against]
    bias = pairs.length_bias([(len(draft.answers[0]), len(draft.answers[1])) for draft in kept])
    checks.update({f"near-identical (from {pairs.NEAR})": near, "pairs the wrong way round (chosen_never)": swapped})
    checks.update({f"length: {name}": value for name, value in bias.items()})
    return kept


def compared(drafts: list[Draft], recipe: RowRecipe, account: Account, checks: dict[str, Any]) -> list[Draft]:
    """Drop rows that ask in any turn what a test set asks; count those that share a question with other data."""
    if recipe.compare_with:
        known = _wordings(recipe.compare_with)
        checks["prompts shared with compare_with"] = sum(_asks(draft, known) for draft in drafts)
    if not recipe.evaluation:
        return drafts
    tests = _wordings(recipe.evaluation)
    kept = []
    for draft in drafts:
        if _asks(draft, tests):
            account.drop("in_evaluation", draft.place, draft.asked)
        else:
            kept.append(draft)
    return kept


def _asks(draft: Draft, known: set[str]) -> bool:
    return any(text.wording(asked) in known for asked in (draft.asked, *draft.questions))


def _wordings(paths: tuple[str, ...]) -> set[str]:
    """Every text of these files in the form in which it is compared; very short ones ("Yes") say nothing."""
    from data_prep.corpus.shard import evaluation_texts

    return {found for found in map(text.wording, evaluation_texts(paths)) if len(found) >= 8}


def measured(
    drafts: list[Draft], recipe: RowRecipe, encoder: RowEncoder, account: Account, checks: dict[str, Any]
) -> list[Draft]:
    """Rows with their ids as the trainer makes them; refuse to go on where too many are too long.

    Raises:
        DataError: a row that cannot become ids, with its place; too many rows that are too long.
    """
    most = recipe.max_tokens
    over = 0
    kept = []
    found: Counter[str] = Counter()
    rows = 0
    for draft in drafts:
        try:
            sequences = encoder.encode(draft.row)
        except CannotEncode as error:
            if recipe.on_error != "skip":
                raise DataError(f"{draft.place}: {error}") from error
            account.drop(error.reason, draft.place, str(error))
            continue
        draft.tokens = max(map(len, sequences.values()))
        if recipe.pack is not None:
            draft.encoded = sequences["completion"]
        control = control_tokens(encoder, draft.row)
        rows += bool(control)
        found += control
        if most is not None and draft.tokens > most:
            over += 1
            if recipe.over_length == "drop":
                account.drop("over_length", draft.place, draft.asked)
                continue
        kept.append(draft)
    checks.update({name: count for name, count in encoder.notes.items() if count})
    if found:
        named = ", ".join(f"{name}: {count}" for name, count in found.most_common(5))
        checks[f"rows with control tokens in texts ({recipe.special_tokens})"] = f"{rows} ({named})"
    if most is not None:
        share = over / len(drafts) if drafts else 0.0
        checks[f"rows over {most} tokens"] = over
        if share > recipe.max_over_length:
            raise DataError(
                f"{over} of {len(drafts)} rows ({share:.1%}) have more than {most} tokens (max_tokens); "
                f"max_over_length allows {recipe.max_over_length:.1%}: raise one of them, or shorten the rows"
            )
    return kept
