"""Names that Megatron-Bridge knows, read from the source in its wheels: it cannot be imported without a GPU's libraries.

``python -m tests.support.megatron_fields DIRECTORY`` (with the wheels in it) writes ``megatron_fields.json`` anew.
"""

from __future__ import annotations

import ast
import json
import sys
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

RECORD = Path(__file__).with_name("megatron_fields.json")
WHEELS = ("megatron-bridge==0.6.2", "megatron-core==0.19.2")
"""The second holds ``megatron.core`` and ``megatron.training``, on whose classes those of the first are built."""

_CONFIG = "megatron.bridge.training.config"
CLASSES = {
    "": f"{_CONFIG}.ConfigContainer",
    "model": "megatron.bridge.models.gpt_provider.GPTModelProvider",
    "train": f"{_CONFIG}.TrainingConfig",
    "validation": f"{_CONFIG}.ValidationConfig",
    "optimizer": f"{_CONFIG}.OptimizerConfig",
    "scheduler": f"{_CONFIG}.SchedulerConfig",
    "ddp": f"{_CONFIG}.DistributedDataParallelConfig",
    "dataset.cpt": f"{_CONFIG}.GPTDatasetConfig",
    "dataset.sft": "megatron.bridge.data.builders.GPTSFTDatasetConfig",
    "dataset.sft.preprocessing": "megatron.bridge.data.sft_processing.PromptCompletionSFTPreprocessingConfig",
    "logger": f"{_CONFIG}.LoggerConfig",
    "tokenizer": f"{_CONFIG}.TokenizerConfig",
    "checkpoint": f"{_CONFIG}.CheckpointConfig",
    "rng": f"{_CONFIG}.RNGConfig",
}
"""Section of our configuration -> the class that takes it."""

FUNCTIONS = {
    "from_hf_config": "megatron.bridge.AutoBridge.from_hf_config",
    "to_megatron_provider": "megatron.bridge.AutoBridge.to_megatron_provider",
    "import_ckpt": "megatron.bridge.AutoBridge.import_ckpt",
    "export_ckpt": "megatron.bridge.AutoBridge.export_ckpt",
    "pretrain": "megatron.bridge.training.pretrain.pretrain",
    "finetune": "megatron.bridge.training.finetune.finetune",
}
"""What ``jobs.backends.megatron_bridge.work`` calls."""


class Source:
    """Modules of some wheels, as syntax trees."""

    def __init__(self, wheels: list[Path]) -> None:
        self._files = {}
        for wheel in wheels:
            archive = zipfile.ZipFile(wheel)
            self._files |= {name: archive for name in archive.namelist() if name.endswith(".py")}
        self.module = cache(self._module)

    def _module(self, name: str) -> tuple[ast.Module, str] | None:
        base = name.replace(".", "/")
        for path, package in ((f"{base}.py", name.rpartition(".")[0]), (f"{base}/__init__.py", name)):
            if path in self._files:
                return ast.parse(self._files[path].read(path)), package
        return None

    def find(self, dotted: str) -> tuple[ast.stmt, str]:
        """The definition of a class, function or method, through imports, and the module that it stands in.

        Raises:
            LookupError: there is none.
        """
        module, _, name = dotted.rpartition(".")
        found = self.module(module)
        if found is None:  # of a class?
            owner, where = self.find(module)
            for statement in getattr(owner, "body", []):
                if getattr(statement, "name", None) == name:
                    return statement, where
            raise LookupError(dotted)
        tree, package = found
        for statement in ast.walk(tree):
            if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == name:
                return statement, module
        for statement in ast.walk(tree):
            if isinstance(statement, ast.ImportFrom):
                for alias in statement.names:
                    if (alias.asname or alias.name) == name:
                        parts = package.split(".")
                        above = ".".join(parts[: len(parts) - statement.level + 1]) if statement.level else ""
                        return self.find(".".join(filter(None, (above, statement.module, alias.name))))
        raise LookupError(dotted)

    def fields(self, dotted: str) -> Iterator[str]:
        """Of a dataclass and those that it is made from, as far as they stand in these wheels."""
        found, module = self.find(dotted)
        assert isinstance(found, ast.ClassDef), dotted
        for base in found.bases:
            try:
                yield from self.fields(f"{module}.{ast.unparse(base)}")
            except LookupError:  # of another package, as torch's
                continue
        for statement in found.body:
            if (
                isinstance(statement, ast.AnnAssign)
                and "ClassVar" not in ast.unparse(statement.annotation)
                and (statement.value is None or "init=False" not in ast.unparse(statement.value))
            ):
                yield ast.unparse(statement.target)

    def parameters(self, dotted: str) -> list[str]:
        """Of a function."""
        found, _ = self.find(dotted)
        assert isinstance(found, ast.FunctionDef), dotted
        names = found.args
        return [each.arg for each in (*names.posonlyargs, *names.args, *names.kwonlyargs)]


def read(directory: Path) -> dict[str, dict[str, list[str]]]:
    """Names of fields and parameters in the wheels of ``directory``."""
    source = Source(sorted(directory.glob("*.whl")))
    return {
        "fields": {section: sorted(set(source.fields(name))) for section, name in CLASSES.items()},
        "parameters": {name: source.parameters(dotted) for name, dotted in FUNCTIONS.items()},
    }


if __name__ == "__main__":
    RECORD.write_text(json.dumps({"wheels": WHEELS, **read(Path(sys.argv[1]))}, indent=1) + "\n")
