"""``python -m tests.support.inspect_picture`` draws docs/inspect_tool_call.svg: what ``overnight data inspect`` shows of
a conversation with a call of a tool, on a terminal."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

from data_prep import inspect
from jobs.encoding.load import load
from jobs.encoding.settings import Encoding
from launch.cli import data
from tests.support.templates import ROOT, templates, write_tokenizer

PICTURE = ROOT / "docs/inspect_tool_call.svg"
TEMPLATE = "trl/qwen2_5"
NAMED = "sets/sft/train.jsonl"
"""What the picture calls the file."""
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Lisbon"}}}
ROW = {
    "id": "weather-1",
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "The weather of a city.",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
            },
        }
    ],
    "messages": [
        {"role": "user", "content": "Do I need a coat in Lisbon? And what does <|im_end|> mean?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": '{"degrees": 21, "sky": "clear"}'},
        {"role": "assistant", "content": "No: it is clear, 21 degrees. <|im_end|> is how my turns end."},
    ],
}
# rich's own form loads a font from another host.
SVG_FORM = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{font-family: monospace; font-size: {char_height}px; line-height: {line_height}px}}
.{unique_id}-title {{font-size: 18px; font-weight: bold; font-family: sans-serif}}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>{lines}</defs>
{chrome}
<g xml:space="preserve" transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


def tokenizer(directory: Path) -> Path:
    """One that cuts the conversation into words and pieces of words, with the control tokens of the template."""
    from tokenizers import Tokenizer, models, trainers

    write_tokenizer(directory, templates()[TEMPLATE], eos="<|im_end|>")
    path = str(directory / "tokenizer.json")
    text = load(directory).apply_chat_template(ROW["messages"], tools=ROW["tools"], tokenize=False)
    own = Tokenizer.from_file(path)
    value = json.loads(own.to_str())
    special = [one["content"] for one in value["added_tokens"]]
    own.model = models.BPE()
    alphabet = sorted(value["model"]["vocab"])
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    own.train_from_iterator([text] * 3, trainer)
    own.save(path)
    return directory


def drawn() -> str:
    """The picture."""
    from rich.console import Console

    console = Console(
        record=True, width=100, file=io.StringIO(), force_terminal=True, highlight=False, legacy_windows=False
    )
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / NAMED
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(ROW) + "\n", encoding="utf-8")
        Encoding().write(file.parent)
        (row,) = inspect.rows(file, tokenizer(Path(directory) / "model"), 1)
        place = row.place.removeprefix(f"{directory}/")
        data.show(inspect.Shown(place, row.name, row.sequences, row.notes), console)
    title = "overnight data inspect sets/sft --tokenizer models/qwen"
    return console.export_svg(title=title, code_format=SVG_FORM, unique_id="inspect")


if __name__ == "__main__":
    PICTURE.write_text(drawn(), encoding="utf-8")
