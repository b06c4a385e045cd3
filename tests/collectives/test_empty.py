"""Arrays of `comm.empty`: NumPy arrays like any other, in memory that comes and goes with their views."""

from __future__ import annotations

import copy
import importlib
import os
import pickle
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import collx
from collx import Communicator
from collx.types import Array
from tests.collectives.numbers import same
from tests.ranks import ranks


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
    ranks(kind, 2, tensors)


def on_others(comm: Communicator) -> None:
    """Memory of one communicator is an ordinary array on another."""
    half = comm.split(comm.rank % 2)
    assert half is not None
    for maker in (comm, half):
        x = maker.empty(300_000, np.int64)
        x[...] = comm.rank
        for user in (comm, half):
            peers = range(comm.size) if user is comm else range(comm.rank % 2, comm.size, 2)
            assert (user.all_reduce(x) == sum(peers)).all()
            out = maker.empty(300_000, np.int64)
            assert user.all_reduce(x, out=out) is out
            assert (out == sum(peers)).all()
            same(user.all_gather(x[:1]), np.array(peers))


@pytest.mark.parametrize("size", [1, 4])
def test_it_is_an_ordinary_array_on_other_communicators(kind: str, size: int) -> None:
    ranks(kind, size, on_others)


def outlives(comm: Communicator) -> None:
    x = comm.empty(1000, np.float64)
    x[...] = comm.rank
    part = comm.all_reduce(x, out=x)[10:20]
    comm.close()
    del x
    part += 1
    assert (part == 1 + sum(range(comm.size))).all()


@pytest.mark.parametrize("size", [1, 2])
def test_it_outlives_the_communicator(kind: str, size: int) -> None:
    ranks(kind, size, outlives)


def too_large(comm: Communicator) -> None:
    for nbytes in (1 << 50, 1 << 62, 1 << 70):
        with pytest.raises(MemoryError, match=f"rank {comm.rank}.*no {nbytes} bytes"):
            comm.empty(nbytes, np.int8)
    comm.barrier()


def test_more_than_there_is_is_an_error(kind: str) -> None:
    ranks(kind, 2, too_large)


def temporaries(comm: Communicator) -> None:
    """Sums of ever new arrays, of all sizes, most of which are dropped at once."""
    rng = np.random.default_rng(7)
    kept: list[tuple[int, Array]] = []
    for turn in range(60):
        x = comm.empty(int(rng.integers(0, 200_000)), np.float64)
        x[...] = turn + comm.rank
        total = comm.size * turn + sum(range(comm.size))
        out = comm.empty(x.shape, x.dtype)
        assert (comm.all_reduce(x, out=out) == total).all()
        kept.append((total, out))
        if len(kept) > 5:
            del kept[int(rng.integers(5))]
    for total, out in kept:
        assert (out == total).all()


def test_many_come_and_go(kind: str) -> None:
    ranks(kind, 3, temporaries)


def forked(comm: Communicator) -> None:
    x = comm.empty(100_000, np.float64)
    x[...] = 7
    child = os.fork()
    if child == 0:
        try:
            well = bool((x == 7).all())
            with pytest.raises(collx.ClosedError, match="fork"):
                comm.empty(3, float)
            del x
        except BaseException:
            well = False
        os._exit(0 if well else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert (x == 7).all()  # the child dropped it, but it is ours
    assert (comm.all_reduce(x) == 7 * comm.size).all()


def test_a_fork_frees_nothing() -> None:
    ranks("shm", 2, forked)
