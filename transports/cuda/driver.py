"""This process's CUDA driver, and the words in which it is asked (`interface`)."""

from __future__ import annotations

import os

from collx.transports.cuda.interface import (
    LEGACY_STREAM,
    THREAD_STREAM,
    Allocation,
    CudaError,
    Device,
    Driver,
    Program,
)

__all__ = ["LEGACY_STREAM", "THREAD_STREAM", "Allocation", "CudaError", "Device", "Driver", "Program", "driver", "use"]

_driver: Driver | None = None


def driver() -> Driver:
    """This process's driver. Raises TransportError, in one line, where there is none."""
    global _driver
    if _driver is None:
        from collx.transports.cuda.bindings import Bindings  # cuda-bindings is an extra

        _driver = Bindings()
        os.register_at_fork(after_in_child=lambda: use(None))  # whose driver says that it cannot go on
    return _driver


def use(other: Driver | None) -> None:
    """Have `driver()` return `other` from now on; for tests without a GPU."""
    global _driver
    _driver = other
