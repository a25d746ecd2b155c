"""TEST HELPER ONLY: lets Megatron's local layers and NeMo run on a machine without a GPU.

Python imports this module at start where its directory is on PYTHONPATH; only tests put it there (``nemo_python.py``).
Nothing under ``jobs`` or ``launch`` knows of it. It stands in for the device, not for any arithmetic: tensors asked for
on "cuda" are made on the CPU, streams and events do nothing.
"""

import importlib.abc
import importlib.util
import sys


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function of ``nemo_on_cpu`` when a module has been imported."""

    def __init__(self, hooks):
        self._hooks = dict(hooks)

    def find_spec(self, name, path=None, target=None):
        hook = self._hooks.pop(name, None)
        if hook is None:
            return None
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            import nemo_on_cpu

            getattr(nemo_on_cpu, hook)(module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(
    0,
    _AfterImport({
        "torch": "fake_cuda",
        "megatron.core.tensor_parallel.random": "rng_state",
        "megatron.core.transformer.transformer_config": "initialise_on_cpu",
        "nemo.lightning.megatron_init": "seed_without_device",
        "nemo.lightning.io.pl": "leave_tensors",
    }),
)
