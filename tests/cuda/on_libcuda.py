"""What collx relies on of the driver, and calls on GPUs in every sync mode, by the cuda-bindings that are installed and
whatever libcuda.so.1 they find: `python -m tests.cuda.on_libcuda`."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

import collx
from collx.cuda.barriers import MODES
from collx.transports.cuda.driver import LEGACY_STREAM, THREAD_STREAM, driver
from collx.types import Array, ReduceOp
from tests.cuda import conformance

COUNT = 1001


class Numbers:
    """An array on a GPU of which nobody knows but by `__cuda_array_interface__`."""

    def __init__(self, stream: int, value: float, offset: int) -> None:
        self.stream, self._base = stream, driver().allocate(4 * (COUNT + offset))
        self.address = self._base + 4 * offset
        self._pinned = driver().allocate_host(4 * COUNT)
        self._host = np.ctypeslib.as_array((ctypes.c_float * COUNT).from_address(self._pinned))
        self._host[:] = value
        driver().copy(self.address, self._pinned, 4 * COUNT, stream)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        address = self.address, False
        return {"shape": (COUNT,), "typestr": "<f4", "data": address, "stream": self.stream, "version": 3}

    def read(self) -> Array:
        cuda, event = driver(), driver().event()
        cuda.copy(self._pinned, self.address, 4 * COUNT, self.stream)
        cuda.record(event, self.stream)
        while not cuda.done(event):
            pass
        cuda.destroy_event(event)
        return self._host.copy()

    def free(self) -> None:
        driver().free(self._base)
        driver().free_host(self._pinned)


def calls(comm: collx.Communicator, mode: str, streams: Sequence[int]) -> None:
    os.environ["COLLX_CUDA_SYNC"] = mode
    same = comm.split(0)
    assert same is not None
    for stream in streams:
        with driver().on(0):
            x, out = Numbers(stream, comm.rank + 1, comm.rank), Numbers(stream, 0, 3)
        for _ in range(3):
            same.all_reduce(x, out=out)
        same.all_reduce(x, out=out, op=ReduceOp.custom(np.add))  # by way of the host
        same.plan("all_reduce", x, out=out)()
        same.all_reduce(out, out=out, async_op=True).wait()
        same.broadcast(out, root=1)
        right = comm.size * sum(range(1, comm.size + 1))
        with driver().on(0):
            assert (out.read() == right).all(), (mode, stream, out.read()[:5])
            x.free()
            out.free()
    assert f"wait for each other by {mode}" in str(same.explain("all_reduce", 4 * COUNT, device="cuda"))
    same.close()


def everything(comm: collx.Communicator) -> None:
    cuda = driver()
    with cuda.on(0):
        for check in conformance.ALONE:
            check(cuda)
        conformance.between(comm, cuda)
        streams = cuda.stream(), LEGACY_STREAM, THREAD_STREAM
    for mode in MODES:  # by a thread with no device in use
        if mode != "spin" or cuda.device(0).shared:  # which is refused otherwise
            calls(comm, mode, streams)


if __name__ == "__main__":
    collx.spawn(everything, 2)
