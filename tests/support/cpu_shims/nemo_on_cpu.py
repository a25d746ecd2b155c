"""TEST HELPER ONLY: what ``cpu_shim`` changes in torch, megatron-core and NeMo. See there."""

import contextlib
import time


class _Stream:
    def __init__(self, *args, **kwargs): ...

    def __getattr__(self, name):
        return lambda *args, **kwargs: self

    def __enter__(self):
        return self

    def __exit__(self, *args):
        return False


class _Event:
    def __init__(self, *args, **kwargs):
        self.time = 0.0

    def record(self, *args):
        self.time = time.time()

    def synchronize(self): ...

    def elapsed_time(self, other):
        return (other.time - self.time) * 1000


def fake_cuda(torch):
    """Everything on "cuda" is made on the CPU."""
    from torch.overrides import TorchFunctionMode

    cpu = torch.device("cpu")
    cuda = torch.cuda
    # A function of its own for every name: torch's compiler keeps a table of them and refuses the same one twice.
    for name in ("set_device", "synchronize", "manual_seed_all", "empty_cache", "reset_peak_memory_stats"):
        setattr(cuda, name, lambda *args, **kwargs: None)
    for name in ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved"):
        setattr(cuda, name, lambda *args, **kwargs: 0)
    cuda.current_device = lambda: cpu
    cuda.get_device_name = lambda *args: "cpu"
    cuda.is_current_stream_capturing = lambda: False
    cuda.manual_seed = lambda seed: torch.default_generator.manual_seed(seed)
    cuda.get_rng_state = cuda.random.get_rng_state = lambda *args, **kwargs: torch.get_rng_state()
    cuda.set_rng_state = cuda.random.set_rng_state = lambda state, *args, **kwargs: torch.set_rng_state(state)
    cuda.Stream, cuda.Event = _Stream, _Event
    cuda.current_stream = lambda *args, **kwargs: _Stream()
    cuda.default_stream = lambda *args, **kwargs: _Stream()
    cuda.stream = lambda stream=None: contextlib.nullcontext()
    cuda.LongTensor, cuda.FloatTensor = torch.LongTensor, torch.FloatTensor
    torch.Tensor.cuda = lambda self, *args, **kwargs: self
    torch.nn.Module.cuda = lambda self, *args, **kwargs: self
    # Megatron asserts on names such as 'torch.cuda.FloatTensor' before it clips gradients.
    kind = torch.Tensor.type

    def type_name(self, dtype=None, *args, **kwargs):
        if dtype is not None:
            return kind(self, dtype, *args, **kwargs)
        return f"torch.cuda.{kind(self).rsplit('.', 1)[-1]}"

    torch.Tensor.type = type_name

    def moved(device):
        named = isinstance(device, str) and device.startswith("cuda")
        return cpu if named or (isinstance(device, torch.device) and device.type == "cuda") else device

    class CudaToCpu(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            kwargs = dict(kwargs or {})
            if "device" in kwargs:
                kwargs["device"] = moved(kwargs["device"])
            if kwargs.get("pin_memory"):
                kwargs["pin_memory"] = False
            if function is torch.Tensor.to:
                args = tuple(moved(value) for value in args)
            return function(*args, **kwargs)

    CudaToCpu().__enter__()


def rng_state(module):
    """One generator for all of Megatron's tracked states."""
    import torch

    module._get_cuda_rng_state = lambda *args, **kwargs: torch.get_rng_state()
    module._set_cuda_rng_state = lambda state, *args, **kwargs: torch.set_rng_state(state)


def initialise_on_cpu(module):
    """Weights are drawn on the CPU."""
    original = module.TransformerConfig.__post_init__

    def post_init(self):
        self.use_cpu_initialization = True
        original(self)

    module.TransformerConfig.__post_init__ = post_init


def seed_without_device(module):
    """NeMo seeds Megatron's generators only where it counts a GPU."""
    import torch

    original = module._set_random_seed

    def seed(value):
        count, torch.cuda.device_count = torch.cuda.device_count, lambda: 1
        try:
            original(value)
        finally:
            torch.cuda.device_count = count

    module._set_random_seed = seed


def leave_tensors(module):
    """A loaded checkpoint is on the right device already."""
    module._fix_tensors_device = lambda checkpoint: checkpoint


def cpu_devices(module):
    """AutoModel builds a device from the number of the current GPU: whatever is called cuda is the CPU."""
    import torch

    real = torch.device

    class Kind(type):
        def __instancecheck__(cls, value):
            return isinstance(value, real)

        def __call__(cls, *args, **kwargs):
            named = args and (str(args[0]).startswith("cuda") or isinstance(args[0], real))
            return real("cpu") if named and not str(args[0]).startswith("meta") else real(*args, **kwargs)

    class Device(metaclass=Kind):
        pass

    torch.device = Device
