"""Settings of Sphinx: ``make docs`` builds the pages below this directory into ``build/docs``."""

from __future__ import annotations

import re
from pathlib import Path

project = "Overnight"
author = "the authors of Overnight"
release = re.findall(r'__version__ = "(.+)"', (Path(__file__).parents[1] / "launch/__init__.py").read_text())[0]
extensions = ["myst_parser"]
myst_enable_extensions = ["linkify"]
myst_heading_anchors = 3
exclude_patterns = ["transcripts/*"]
html_theme = "furo"
html_title = "Overnight"
language = "en"
# Pages link to files of the project, such as results of benchmarks: those are no pages.
suppress_warnings = ["myst.xref_missing"]
