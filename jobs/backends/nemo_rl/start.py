"""What a stage of NeMo-RL would run and read: on the login node, before anything is submitted."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from jobs.backends.nemo_rl import driver, order, render, settings, texts, validate
from jobs.backends.nemo_rl.checkout import Checkout
from jobs.backends.nemo_rl.render import NemoRlPaths
from jobs.backends.nemo_rl.settings import RlSettings
from jobs.core import files
from jobs.core.spec import StageSpec
from jobs.training.interface import ProcessShape, Rendered

ROWS_UNKNOWN = 1 << 30
"""For a data set that no job has made yet: the check that it holds one batch is left to the job."""


def command(given: RlSettings, found: Checkout, config: Path) -> tuple[str, ...]:
    """NeMo-RL's own program; with ``workers: same`` through ``driver``, which keeps its workers in this environment."""
    program = (str(found.script(given.KIND)), "--config", str(config))
    if given.workers == "own":
        return (sys.executable, *program)
    return (sys.executable, str(driver.__file__), *program)


def of_stage(spec: StageSpec, shape: ProcessShape, found: Checkout) -> Rendered:
    """Command and configuration, read by the installed version's own parser where it can be asked.

    Raises:
        BadSettings: what the stage was told does not fit, or NeMo-RL refuses it.
    """
    given = settings.read(spec.kind, spec.settings)
    data = spec.inputs["data"].output / f"{given.split}.jsonl"
    try:
        with open(data, "rb") as stream:
            rows = sum(1 for line in stream if line.strip())
    except FileNotFoundError:
        rows = ROWS_UNKNOWN
    scratch = spec.stage_paths.root / "nemo_rl"
    read = order.place(found.schema, texts.place(data, scratch), scratch)
    given = given.counted(rows)  # of the rows as they are; those that are left out are known to the job
    place = NemoRlPaths(
        spec.inputs["checkpoint"].output,
        read,
        rows,
        spec.store_paths.saves / "nemo_rl",
        scratch / "logs",
        shape.nodes,
        shape.processes,
    )
    text = files.json_text(render.configuration(given, place, found))
    with tempfile.TemporaryDirectory(prefix="overnight-") as directory:
        config = Path(directory) / "config.yaml"
        config.write_text(text, encoding="utf-8")
        answer = validate.ask(config, spec.kind)
    notes = () if answer.read else (f"NeMo-RL's own parser has not read the configuration: {answer.reason}",)
    return Rendered(command(given, found, scratch / "config.yaml"), {"nemo_rl/config.yaml": text}, notes)
