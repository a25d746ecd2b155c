"""Stand-ins for packages that NeMo 2 imports at its top and that this chain never calls.

On a machine without network every package has to be carried, and these (with what they need in turn) are five times the
size of the rest. ``setup.sh`` has the environment's Python import this file at its start; a package that is installed
is used as it is. Nothing outside this directory knows of it.
"""

import importlib.abc
import importlib.machinery
import sys
import types

NAMES = frozenset({
    "InquirerPy", "datasets", "docker", "fabric", "inquirerpy", "invoke", "leptonai", "numcodecs", "paramiko", "pulp",
    "tensorstore", "torchprofile", "zarr",
})  # fmt: skip


class _Kind(type):
    """A class whose attributes are classes of this kind: it can be inherited from, named in a type, called."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _made(name)

    def __getitem__(cls, key):
        return cls

    def __iter__(cls):
        return iter(())


def _made(name):
    nothing = {"__init__": lambda self, *args, **kwargs: None, "__call__": lambda self, *args, **kwargs: self}
    return _Kind(name, (), nothing)


class _Module(types.ModuleType):
    __path__ = ()
    __version__ = "0"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, _made(name))
        return self.__dict__[name]


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Asked last, after all that is installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in NAMES:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Module(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.append(_Finder())

import numpy  # noqa: E402

if not hasattr(numpy, "product"):  # megatron-core 0.15 calls it, with several replicas
    numpy.product = numpy.prod
