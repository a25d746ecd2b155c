"""What the first use of a model reads: counted by the audit hook of a process of its own, not timed."""

from __future__ import annotations

import subprocess
import sys

import pytest

WATCHED = """
import sys
from launch.config.fields import {name}
seen = []
sys.addaudithook(lambda event, given: seen.append(str(given[0])) if event in ("open", "os.listdir") else None)
{name}()
print(sum(".dist-info" in path or path.endswith("site-packages") for path in seen))
"""


@pytest.mark.parametrize("name", ["Resources", "ResourceKeys"])
def test_building_a_schema_reads_no_metadata_of_installed_packages(name: str) -> None:
    """pydantic looks through all of them for plugins, also where a model is made outside of reading a file."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED.format(name=name)], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "0"
