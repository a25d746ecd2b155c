"""Saves of NeMo that are written while the training goes on.

The training stands for a copy into the memory of its host. Megatron's own writer is called by a thread, and what the
processes do together when all have written is left to the training, between two steps.
"""

from __future__ import annotations

import threading
from typing import Any

from lightning.pytorch.plugins.io.wrapper import _WrappingCheckpointIO
from nemo import lightning as nl


class NemoBeside(_WrappingCheckpointIO):
    """The trainer's checkpoint IO: ``save_checkpoint`` returns when all is copied, ``finish`` when all is written."""

    def __init__(self, checkpoint_io: Any) -> None:
        super().__init__(checkpoint_io)
        checkpoint_io.async_save = True  # it returns what is to be done
        self._thread: threading.Thread | None = None
        self._request: Any = None
        self._error: BaseException | None = None

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        self.finish()
        request = self.checkpoint_io.save_checkpoint(checkpoint, path, storage_options)
        given = list(request.async_fn_args)
        if request.preload_fn is not None:
            given[1] = copied(given[1], request.preload_fn())
        self._request = request
        self._thread = threading.Thread(target=self._write, args=(given,), daemon=True)
        self._thread.start()

    def _write(self, given: list[Any]) -> None:
        try:
            if self._request.async_fn is not None:  # else this process has no part of it
                self._request.async_fn(*given, **self._request.async_fn_kwargs)
        except BaseException as error:
            self._error = error

    @property
    def is_writing(self) -> bool:
        """Whether this process still writes."""
        return self._thread is not None and self._thread.is_alive()

    def finish(self) -> None:
        """Wait for what is written, and complete it; called on every rank.

        Raises:
            Exception: what went wrong with it, on all ranks where one of them could not write.
        """
        if self._thread is None:
            return
        self._thread.join()
        self._thread, request, self._request = None, self._request, None
        error, self._error = self._error, None
        if error is not None:
            raise error
        for each in request.finalize_fns:
            each()


def copied(buckets: list[Any], loaded: list[Any]) -> list[Any]:
    """``loaded`` (what each file gets, in the memory of the host), with copies in place of tensors of ``buckets`` that
    were there already: the training changes these."""

    def own(now: list[Any], was: list[Any]) -> list[Any]:
        pairs = zip(now, was, strict=True)
        return [(item, tensor.clone() if tensor is given else tensor) for (item, tensor), (_, given) in pairs]

    return [
        (path, key, (rest, own(now, was)))
        for (path, key, (rest, now)), (_, _, (_, was)) in zip(loaded, buckets, strict=True)
    ]


def connect(trainer: nl.Trainer) -> NemoBeside:
    """Have ``trainer`` save like this."""
    strategy = trainer.strategy
    strategy.checkpoint_io = found = NemoBeside(strategy.checkpoint_io)
    return found
