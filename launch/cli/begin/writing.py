"""The text of a pipeline, with comments: why each value is what it is, and what the gates can decide."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from launch.base.text import count
from launch.cli.begin import wanted as wants
from launch.cli.begin.wanted import ADVISORY_FROM, GENERAL, NAME_OF, SAFETY, STAGE_OF, DataSet, Wanted

PLAIN_TEMPLATE = """\
{%- for message in messages %}{{ '<|' + message.role + '|>\\n' + message.content + eos_token + '\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}
"""
"""For a base model without a chat template."""
_NOT_WORSE = {GENERAL: "general knowledge", SAFETY: "refusals and bias"}


def template_name(wanted: Wanted) -> str:
    """The file of a chat template that has to be written; empty: none has to be."""
    talks = any(one.found.talks for one in wanted.data)
    return f"{wanted.name}.jinja" if talks and wanted.base.has_template is False else ""


def pipeline(wanted: Wanted, directory: Path, command: str) -> str:
    """The whole file; ``command`` is what is typed next."""
    return "\n".join([*_head(wanted, command), *_data(wanted, directory), *_trainings(wanted), ""])


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _head(wanted: Wanted, command: str) -> Iterator[str]:
    names = {"cpt": "continued pre-training", "sft": "supervised fine-tuning", "dpo": "preference alignment (DPO)"}
    chain = ", then ".join(names[kind] for kind, _ in wanted.trainings)
    yield f"# {chain[0].upper()}{chain[1:]}. Written by `overnight new`: every value is yours to change."
    yield "#"
    for one in wanted.data:
        yield f"# reads      {one.path.name}: {one.found.words}"
    yield "# comes out  one model in Hugging Face's form; `overnight report` shows where it is and what got better"
    yield f"# next       {command}"
    yield "# keys       docs/pipeline.md; for your editor: overnight schema pipeline"
    yield f"name: {wanted.name}"
    yield "seed: 1  # the same seed gives the same splits and the same order of rows"
    yield f"model: {{base: {_quoted(wanted.base.reference)}}}"
    if wanted.base.is_small and not wanted.lora:
        yield "ranges: off  # no notes on learning rates: a model of this size takes higher ones than those of billions"
    yield ""
    yield "stages:"


def _data(wanted: Wanted, directory: Path) -> Iterator[str]:
    yield "  # Data. The test split of each is never trained on: the evaluations below read it."
    for kind in STAGE_OF:
        if (one := wanted.of(kind)) is not None:
            yield from _data_stage(wanted, NAME_OF[kind], one, directory)
    for number, one in enumerate(wanted.kept):
        yield from _kept(number, one, directory)


def _data_stage(wanted: Wanted, name: str, one: DataSet, directory: Path) -> Iterator[str]:
    found = one.found
    yield f"  {name}:"
    yield f"    kind: {found.kind}"
    yield f"    from: {_quoted(wants.written(one.path, directory))}"
    if not found.has_test:
        yield f"    split: {_split(one)}  # about {count(one.tested, 'row')} to measure on"
    if found.form == "text":
        yield f"    document_chars: {one.document_chars}  # texts are cut into documents of about so many characters"
    prepare: list[str] = []
    if found.columns:
        prepare.append(
            f"columns: {{{', '.join(f'{name}: {_quoted(their)}' for name, their in found.columns.items())}}}"
        )
    if found.unused:
        prepare.append(f"ignore: [{', '.join(map(_quoted, found.unused))}]")
    if found.talks and (template := template_name(wanted)):
        prepare += ["tokenizer: base", f"template: {_quoted('./' + template)}"]
        yield f"    # The base model has no chat template: {template}, next to this file, is a plain one."
    if found.needs_prepare or prepare:
        yield f"    prepare: {{{', '.join(prepare)}}}" + ("" if prepare else "  # rows are read by their own form")
    elif found.kind == "corpus":
        yield "    # prepare: {near_duplicates: 0.8}  # filters quality and repetitions; needs the extra data"


def _split(one: DataSet) -> str:
    validation = "0" if one.found.rows < wants.FEW_ROWS else "0.05"
    group = ", group: document" if one.found.form == "text" and one.found.rows < wants.FEW_ROWS else ""
    return f"{{validation: {validation}, test: {one.test_share:g}{group}}}"


def _kept(number: int, one: DataSet, directory: Path) -> Iterator[str]:
    yield f"  {_kept_name(number)}:  # nothing is trained on these: they show what is forgotten"
    yield "    kind: corpus"
    yield f"    from: {_quoted(wants.written(one.path, directory))}"
    group = ", group: document" if one.found.form == "text" else ""
    yield f"    split: {{validation: 0, test: 0.9{group}}}"
    if one.found.form == "text":
        yield f"    document_chars: {one.document_chars}"
    if one.found.needs_prepare:
        yield "    prepare: {}"


def _kept_name(number: int) -> str:
    return "kept" if number == 0 else f"kept{number + 1}"


def _trainings(wanted: Wanted) -> Iterator[str]:
    yield ""
    yield "  # Before: what the base model can do."
    yield from _evaluation(wanted, "baseline", "base", "")
    checkpoint = "base"
    for kind, data in wanted.trainings:
        yield ""
        yield from _training(wanted, kind, data, checkpoint)
        checkpoint = kind
    yield ""
    yield "  # After: the same measures on the same rows. Gates say what they have to show; 95 % intervals decide."
    yield from _evaluation(wanted, "final", checkpoint, "baseline")


def _training(wanted: Wanted, kind: str, data: DataSet, checkpoint: str) -> Iterator[str]:
    batch = wanted.batch_size(kind, data)
    yield f"  {kind}:"
    yield f"    kind: {kind}"
    yield f"    backend: {wanted.backend_of(kind)}"
    yield f"    checkpoint: {checkpoint}"
    yield f"    data: {NAME_OF[data.found.kind]}"
    yield f"    epochs: {wanted.epochs(kind, data)}  # passes over the rows; or steps: N"
    why = (
        "small models and adapters learn at more" if wanted.lora or wanted.base.is_small else "usual for full training"
    )
    yield f"    lr: {wanted.lr(kind)}  # {why}; too high forgets, too low learns nothing"
    yield f"    batch_size: {batch}  # rows a step, over all processes together"
    if wanted.has_gpus(kind):
        yield "    micro_batch_size: 1  # rows in one pass of a GPU: less memory, the same result"
        yield "    precision: bf16"
    length = wanted.sequence_length(kind, data)
    fits = "" if kind == "cpt" else f": 95 % of your rows have about {data.tokens} tokens or fewer"
    yield f"    sequence_length: {length}  # tokens{fits}"
    if kind == "dpo":
        yield "    beta: 0.1  # 0.1 to 0.5: more stays closer to the model before"
    if (limit := wanted.limit(kind)) is not None:
        yield f'    time: "{limit}"  # a limit is no failure: the stage saves before it and resumes'
    options = _options(wanted, kind)
    if options:
        yield f"    options: {{{', '.join(options)}}}"


def _options(wanted: Wanted, kind: str) -> list[str]:
    if wanted.backend != "trl":
        return []
    options = ["lora_rank: 16"] if wanted.lora else []
    if wanted.has_gpus(kind):
        spread = wanted.resources(kind).processes > 1 and kind != "dpo" and not wanted.lora
        options += ["shard: full"] if spread else []
        options += ["recompute: true"]
    return options


def _evaluation(wanted: Wanted, name: str, checkpoint: str, against: str) -> Iterator[str]:
    yield f"  {name}:"
    yield "    kind: evaluate"
    yield f"    checkpoint: {checkpoint}"
    if against:
        yield f"    compare_to: {against}"
    yield "    tasks:"
    names = [*wants.suites(wanted)]
    if names:
        yield f"      suite: [{', '.join(names)}]"
    for kind, task in (("corpus", "perplexity"), ("instructions", "answers"), ("preferences", "preferences")):
        if (one := wanted.of(kind)) is not None:
            yield f"      {task}: {{data: {NAME_OF[kind]}, limit: {min(500, max(1, one.tested))}}}"
    for number, _ in enumerate(wanted.kept):
        yield f"      still{number or ''}: {{task: perplexity, data: {_kept_name(number)}, limit: 200}}"
    if against:
        yield "    gate:"
        yield from _gates(wanted)


def _gates(wanted: Wanted) -> Iterator[str]:
    if (one := wanted.of("corpus")) is not None:
        yield from _known_later("perplexity.perplexity", "{must: fall}", one.tested)
    if (one := wanted.of("instructions")) is not None:
        yield from _known_later("answers.answer_loss", "{must: fall}", one.tested)
    if (one := wanted.of("preferences")) is not None:
        shown = wants.share_decides(min(500, one.tested))
        tier = ", tier: advisory" if shown > ADVISORY_FROM else ""
        yield f"      # {count(one.tested, 'pair')} show a rise of {shown:.2f} or more, if 15 % of the answers change."
        if tier:
            yield "      # That is a lot: with so few pairs this gate is reported and stops nothing."
        yield f"      preferences.accuracy: {{must: rise{tier}}}"
    for keep in (GENERAL, SAFETY):
        if keep in wanted.keep:
            yield f"      # Not worse: {_NOT_WORSE[keep]}. Each may fall as far as its examples can show."
    if GENERAL in wanted.keep:
        for task, examples in (("mmlu-sample", 570), ("openbookqa", 499), ("commonsense", 500)):
            yield f"      {task}.acc: {{may_fall: {wants.allowed(examples)}}}  # {examples} questions"
    if SAFETY in wanted.keep:
        yield f"      refusals.harmful: {{may_fall: {wants.allowed(100)}}}  # 100 harmful prompts: still refused"
        yield f"      refusals.harmless: {{may_rise: {wants.allowed(100)}}}  # harmless ones: still answered"
    for number, one in enumerate(wanted.kept):
        yield from _known_later(f"still{number or ''}.perplexity", "{may_rise: 5%}", int(0.9 * one.units))


def _known_later(metric: str, rule: str, examples: int) -> Iterator[str]:
    few = examples < 5
    tier = rule.removesuffix("}") + ", tier: advisory}" if few else rule
    why = (
        "too few for an interval: reported, and stops nothing"
        if few
        else "how much they can show is known after a first run"
    )
    yield f"      {metric}: {tier}  # {count(examples, 'row')}; {why}"
