"""TEST HELPER ONLY: lets Megatron's local layers, NeMo and AutoModel run on a machine without a GPU.

Python imports this module at start in an environment whose ``.pth`` file says so; only tests make one
(``tests/support/environments.py``). Nothing under ``jobs`` or ``launch`` knows of it. It stands in for the device, not for any arithmetic: tensors asked for
on "cuda" are made on the CPU, streams and events do nothing.
"""

import importlib.abc
import importlib.util
import sys


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function of ``nemo_on_cpu`` when a module has been imported (also when it was only looked for before)."""

    def __init__(self, hooks):
        self._hooks = dict(hooks)
        self._looking = set()

    def find_spec(self, name, path=None, target=None):
        if name not in self._hooks or name in self._looking:
            return None
        self._looking.add(name)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._looking.discard(name)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            hook = self._hooks.pop(name, None)
            if hook is not None:
                import nemo_on_cpu

                getattr(nemo_on_cpu, hook)(module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(
    0,
    _AfterImport(
        {
            "torch": "fake_cuda",
            "megatron.core.tensor_parallel.random": "rng_state",
            "megatron.core.transformer.transformer_config": "initialise_on_cpu",
            "nemo.lightning.megatron_init": "seed_without_device",
            "nemo.lightning.io.pl": "leave_tensors",
            "nemo_automodel": "cpu_devices",
        }
    ),
)
