"""Where NeMo-RL is and which version it is, without importing it (that takes half a minute)."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from jobs.backends.nemo_rl import schemas
from jobs.backends.nemo_rl.schemas import Schema

_NUMBER = re.compile(r"^(MAJOR|MINOR|PATCH)\s*=\s*(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Checkout:
    """A NeMo-RL source tree: ``nemo_rl/`` and ``examples/``."""

    root: Path
    version: str
    schema: Schema

    def stock(self, kind: str) -> Path:
        """The configuration for a kind of stage that this version ships; ours inherits from it."""
        return self.root / "examples" / "configs" / f"{kind}.yaml"

    def script(self, kind: str) -> Path:
        """The program."""
        return self.root / "examples" / f"run_{kind}.py"


def find() -> Checkout:
    """The checkout whose ``nemo_rl`` this interpreter would import.

    Raises:
        ImportError: none, the placeholder from PyPI, or a version whose configuration is not known here.
    """
    spec = importlib.util.find_spec("nemo_rl")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "nemo_rl cannot be imported in this environment: use NVIDIA's container, or write the path of a checkout "
            "of github.com/NVIDIA-NeMo/RL into a .pth file of the environment (PyPI has an empty placeholder only)"
        )
    return at(Path(next(iter(spec.submodule_search_locations))).parent)


def at(root: Path) -> Checkout:
    """The checkout at ``root``.

    Raises:
        ImportError: see ``find``.
    """
    try:
        numbers = dict(_NUMBER.findall((root / "nemo_rl" / "package_info.py").read_text(encoding="utf-8")))
        version = ".".join(numbers[name] for name in ("MAJOR", "MINOR", "PATCH"))
    except (OSError, KeyError) as error:
        raise ImportError(f"{root}: no NeMo-RL source tree: {error}") from error
    schema = schemas.of(version)
    if schema is None:
        raise ImportError(f"{root}: NeMo-RL {version} is not known here; known: {', '.join(sorted(schemas.KNOWN))}")
    found = Checkout(root, version, schema)
    for needed in (place(kind) for kind in sorted(schema.keys) for place in (found.stock, found.script)):
        try:
            needed.open("rb").close()  # opened, so that an answer that was kept is known to depend on it
        except OSError as error:
            text = f"{needed}: missing; the examples of the checkout are needed, not only the package"
            raise ImportError(text) from error
    return found
