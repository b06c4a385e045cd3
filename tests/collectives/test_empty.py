"""Arrays of `comm.empty`: NumPy arrays like any other, in memory that comes and goes with their views."""

from __future__ import annotations

import copy
import importlib
import os
import pickle
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from collx import Communicator
from collx.types import Array
from tests.collectives.numbers import same
from tests.ranks import ranks

MIB = 1 << 20


def made(comm: Communicator) -> None:
    x = comm.empty((3, 4), np.float32)
    assert isinstance(x, np.ndarray)
    assert x.shape == (3, 4)
    assert x.dtype == np.float32
    assert x.flags.carray
    assert x.ctypes.data % 64 == 0
    x[...] = comm.rank
    expected = np.full((3, 4), float(sum(range(comm.size))), np.float32)
    same(comm.all_reduce(x), expected)
    assert type(comm.all_reduce(x)) is np.ndarray
    assert comm.all_reduce(x, out=x) is x
    same(np.asarray(x), expected)
    assert comm.empty(5, ml_dtypes.bfloat16).shape == (5,)
    assert comm.empty((), "int8").shape == ()
    same(comm.all_reduce(np.add(comm.empty((), "int8"), 1, dtype="int8") * 0), np.zeros((), "int8"))
    assert comm.empty((0, 3), np.int8).size == 0
    with pytest.raises(TypeError):
        comm.empty(3, object)
    with pytest.raises(ValueError, match="negative"):
        comm.empty((3, -1), float)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_it_is_an_array_like_any_other(kind: str, size: int) -> None:
    ranks(kind, size, made)


def results(comm: Communicator) -> None:
    x = comm.empty((4, 4), np.float64)
    x[...] = 2
    for computed in (x + 1, -x, np.sqrt(x), x > 1, x.sum(0), x @ x, np.concatenate([x, x]), np.where(x > 1, x, 0)):
        assert type(computed) is np.ndarray
    for copied in (x.copy(), copy.copy(x), copy.deepcopy(x), x[1:].copy(), np.array(x)):
        assert type(copied) is np.ndarray
    assert x.sum() == 32
    assert type(x.sum()) is np.float64
    given = x
    x += 1
    assert np.add(x, 1, out=x) is x
    assert given is x
    assert (x == 4).all()
    for view in (x[1], x[:, 1:], x.T, x.reshape(-1), x.view(np.int64), x[...]):
        assert np.shares_memory(view, x)
        assert type(view) is type(x)


def test_copies_and_results_are_ordinary_and_views_are_not(kind: str) -> None:
    ranks(kind, 1, results)


def pickled(comm: Communicator) -> None:
    x = comm.empty((4, 4), np.float64)
    x[...] = 1
    for held in (x, x[1:], x.T[::2], [x]):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError, match=r"comm\.empty cannot be pickled.*copy\(\)"):
                pickle.dumps(held, protocol)
    for free in (x.copy(), x[[0, 2]], x[x > 0], x.astype(np.int8), x + 1):
        same(pickle.loads(pickle.dumps(free)), np.asarray(free))


def test_pickling_is_refused(kind: str) -> None:
    ranks(kind, 1, pickled)


def tensors(comm: Communicator) -> None:
    torch: Any = importlib.import_module("torch")
    x = comm.empty((3, 4), np.float32)
    x[...] = comm.rank
    tensor = torch.from_numpy(x)
    tensor += 1
    assert (np.asarray(x) == comm.rank + 1).all()
    same(comm.all_reduce(tensor).numpy(), np.full((3, 4), 3.0, np.float32))
    del x
    assert tensor.sum() == 12 * (comm.rank + 1)


def test_torch_reads_it_where_it_lies(kind: str) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed: `pip install torch` to test tensors (2.13.0 was)")
    ranks(kind, 2, tensors)


def memory_held() -> int:
    """Bytes that the memory files which this process maps have allocated: this rank's and its peers'."""
    files = {}
    for path in Path("/proc/self/map_files").iterdir():
        if "memfd:collx" in os.readlink(path):
            status = path.stat()
            files[status.st_ino] = status.st_blocks * 512
    return sum(files.values())


def freed(comm: Communicator) -> None:
    comm.barrier()
    if comm.rank > 0:
        return
    before = memory_held()
    x = comm.empty(MIB, np.float64)
    assert memory_held() == before + 8 * MIB
    view: Array = x[10:20].view(np.int64)
    tail = x[-1:]
    x[...] = 1
    del x
    view[...] = 7
    assert memory_held() == before + 8 * MIB
    del view
    assert tail[0] == 1
    del tail
    assert memory_held() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look at the files that a process maps")
def test_memory_goes_with_the_last_view() -> None:
    ranks("shm", 2, freed)
