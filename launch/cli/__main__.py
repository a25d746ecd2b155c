"""``python -m launch.cli`` is ``overnight``."""

import sys

from launch.cli.main import main

sys.exit(main())
