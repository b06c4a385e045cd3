"""What else than NumPy arrays goes in, and what comes out."""

from __future__ import annotations

import array
import ctypes
import importlib
import mmap
from typing import Any

import numpy as np
import pytest

from collx import Communicator
from tests.collectives.numbers import same
from tests.ranks import ranks


class Lent:
    """An array of a library that speaks DLPack only."""

    def __init__(self, values: Any, device: int = 1) -> None:
        self.values, self.device = np.array(values), device

    def __dlpack__(self, **keywords: Any) -> Any:
        return self.values.__dlpack__(**keywords)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self.device, 0)


def buffers(comm: Communicator) -> None:
    size = comm.size
    same(comm.all_reduce(bytes([1, 2, 3])), np.array([1, 2, 3], np.uint8) * np.uint8(size))
    same(comm.all_reduce(bytearray(b"ab"), "max"), np.frombuffer(b"ab", np.uint8))
    same(comm.all_reduce(array.array("d", [1.5, 2.5])), np.array([1.5, 2.5]) * size)
    same(comm.all_reduce(memoryview(array.array("i", [1, 2]))), np.array([1, 2], np.int32) * np.int32(size))
    same(comm.all_reduce((ctypes.c_float * 3)(1, 2, 3)), np.array([1, 2, 3], np.float32) * np.float32(size))
    same(comm.all_reduce(np.float32(2.0)), np.array(2.0 * size, np.float32))  # a NumPy scalar is a 0-d array
    same(comm.all_reduce(np.arange(3.0).view(np.recarray)), np.arange(3.0) * size)
    same(comm.all_gather(Lent([1.0, 2.0])), np.tile([1.0, 2.0], size))
    out = array.array("d", [0.0, 0.0])
    assert comm.all_reduce(np.ones(2), out=out) is out
    assert list(out) == [size, size]
    page = mmap.mmap(-1, 4)
    page[:] = b"page" if comm.rank == 0 else b"    "
    assert comm.broadcast(page) is page
    assert page[:] == b"page"
    lent = Lent([float(comm.rank)])
    assert comm.all_reduce(lent, "max", out=lent) is lent
    assert lent.values[0] == size - 1
    text = b"read-only" if comm.rank == 0 else bytearray(9)
    assert comm.broadcast(text) is text
    assert bytes(text) == b"read-only"


@pytest.mark.parametrize("size", [1, 2])
def test_the_buffer_protocol_and_dlpack(kind: str, size: int) -> None:
    ranks(kind, size, buffers)


def tensors(comm: Communicator) -> None:
    torch: Any = importlib.import_module("torch")
    for name in ("float32", "float64", "bfloat16", "float16", "int64", "uint8", "bool", "complex64"):
        x = torch.ones(3, 2).to(getattr(torch, name))
        total = comm.all_reduce(x, "prod")
        assert isinstance(total, torch.Tensor)
        assert total.dtype == x.dtype
        assert torch.equal(total, x)
    for name in ("float8_e4m3fn", "float8_e5m2"):
        x = torch.tensor([1.0, 2.0]).to(getattr(torch, name))
        total = comm.all_reduce(x)
        assert total.dtype == x.dtype
        assert total.float().tolist() == [comm.size, 2.0 * comm.size]
    x = torch.full((4,), float(comm.rank), dtype=torch.bfloat16)
    assert comm.all_reduce(x, out=x) is x
    assert x.tolist() == [sum(range(comm.size))] * 4
    parameter = torch.nn.Parameter(torch.full((2,), float(comm.rank)))
    comm.broadcast(parameter, comm.size - 1)
    assert parameter.tolist() == [comm.size - 1.0] * 2
    resized = torch.ones(4)
    comm.all_reduce(resized, out=resized)
    resized.untyped_storage().resize_(0)  # as FSDP does; `Tensor.numpy` would forbid it
    assert comm.all_gather(torch.tensor(comm.rank)).tolist() == list(range(comm.size))
    assert comm.all_reduce(torch.ones(4, 2).t()).tolist() == [[comm.size] * 4] * 2
    same(comm.all_reduce(np.ones(2), out=np.empty(2)), np.ones(2) * comm.size)
    with pytest.raises(TypeError, match="dtype"):
        comm.all_reduce(np.ones(2), out=torch.ones(2))
    with pytest.raises(BufferError, match="contiguous"):
        comm.all_reduce(torch.ones(2, 4), out=torch.ones(4, 2).t())


@pytest.mark.parametrize("size", [1, 2])
def test_torch_tensors_in_give_tensors_out(kind: str, size: int) -> None:
    ranks(kind, size, tensors)
