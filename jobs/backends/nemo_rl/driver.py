"""Runs NeMo-RL's own program with workers in this interpreter: ``python driver.py SCRIPT --config FILE``.

NeMo-RL starts each worker by ``uv run --extra ...``, which asks a package index. Where everything is in one
environment, the workers use that one.
"""

import os
import runpy
import sys


def main() -> None:
    """Point NeMo-RL's table of worker environments here and run the program."""
    script = sys.argv[1]
    sys.argv = sys.argv[1:]
    sys.path[:] = [entry for entry in sys.path if entry != os.path.dirname(os.path.abspath(__file__))]
    from nemo_rl.distributed import ray_actor_environment_registry as registry

    for name in registry.ACTOR_ENVIRONMENT_REGISTRY:
        registry.ACTOR_ENVIRONMENT_REGISTRY[name] = sys.executable
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
