"""What arrays may be given as: not contiguous, by an interface alone, immutable, in messages; and what is refused."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.gpu.found import Found
from tests.gpu.kits import Kit

FLOAT = np.dtype(np.float32)


class Interface:
    """An array of a library that has `__cuda_array_interface__` and nothing else."""

    def __init__(self, array: Any) -> None:
        self._array = array

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        found: dict[str, Any] = self._array.__cuda_array_interface__
        return found


class Lent:
    """An array of a library that speaks DLPack and nothing else."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack__(self, **asked: Any) -> Any:
        return self._array.__dlpack__(**asked)

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, device = self._array.__dlpack_device__()
        return int(kind), int(device)


class Finished(Lent):
    """As JAX's arrays: nobody may write to them, and they are waited for."""

    def block_until_ready(self) -> None:
        """It is ready: the host has got it before."""


def _as(array: Any) -> Iterator[Any]:
    """An array as others would have it."""
    yield Interface(array)
    if hasattr(array, "__dlpack__"):
        yield from (Lent(array), Finished(array))


def not_contiguous(comm: Any, kit: Kit) -> Found:
    found, rows = Found(), np.arange(600, dtype=FLOAT).reshape(20, 30) * (comm.rank + 1)
    total = np.arange(600, dtype=FLOAT).reshape(20, 30) * (comm.size * (comm.size + 1) / 2)
    x = kit.put(rows)
    found.equal("all_reduce of columns", kit.get(comm.all_reduce(x[:, 3:20])), total[:, 3:20])
    found.equal("all_reduce of every third", kit.get(comm.all_reduce(x[::3], async_op=True).wait()), total[::3])
    found.true("columns are taken for a result", _refused(BufferError, lambda: comm.all_reduce(x[:, :3], out=x[:, :3])))
    found.equal("its input afterwards", kit.get(x), rows)
    return found


def by_interfaces(comm: Any, kit: Kit) -> Found:
    found, size = Found(), comm.size
    total = np.arange(1001, dtype=FLOAT) * size + size * (size - 1) / 2
    array, out = kit.put(np.arange(1001, dtype=FLOAT) + comm.rank), kit.put(np.zeros(1001, FLOAT))
    kit.get(array)  # as what is lent on no stream is ready
    for x, target in zip(_as(array), _as(out), strict=True):
        name = type(x).__name__
        found.true(f"{name}: another result than out", comm.all_reduce(x, out=out) is out)
        found.equal(f"all_reduce of {name}", kit.get(out), total)
        found.true(f"{name}: a result of nobody's", _refused(TypeError, functools.partial(comm.all_reduce, x)))
        into = functools.partial(comm.all_reduce, array, "max", out=target)
        if isinstance(target, Finished):
            found.true(f"{name} is written to", _refused(BufferError, into))
        else:
            found.true(f"{name}: another result than out", into() is target)
            found.equal(f"all_reduce into {name}", kit.get(out), np.arange(1001, dtype=FLOAT) + size - 1)
    return found


def values_of_its_own(comm: Any, kit: Kit) -> Found:
    """What is set or copied before a call: exscan's first result, and what works in place on a copy."""
    found, size, rank = Found(), comm.size, comm.rank
    for dtype in (dtype for dtype in kit.dtypes if dtype.name in ("int64", "bfloat16", "float32", "complex64")):
        ones = np.ones(5000, dtype)
        x = kit.put(ones)
        found.equal(f"exscan of {dtype} in place", kit.get(comm.exscan(x, out=x)), (ones * rank).astype(dtype))
    x = kit.put(np.repeat(np.arange(size, dtype=FLOAT), 100) + 10 * rank)
    right = np.repeat(10 * np.arange(size, dtype=FLOAT) + rank, 100)
    found.equal("all_to_all in place", kit.get(comm.all_to_all(x, out=x)), right)
    return found


def messages(comm: Any, kit: Kit) -> Found:
    found, size, rank = Found(), comm.size, comm.rank
    right, left = (rank + 1) % size, (rank - 1) % size
    for count in (0, 1, 100_003):
        x, out = kit.put(np.full(count, rank, FLOAT)), kit.put(np.zeros(count, FLOAT))
        found.equal(f"sendrecv of {count}", kit.get(comm.sendrecv(x, right, out, left)), np.full(count, left, FLOAT))
        sending = comm.send(x, right, 1, async_op=True)
        coming = comm.recv(out, left, 1, async_op=True)
        found.equal(f"recv of {count}", kit.get(coming.wait()), np.full(count, left, FLOAT))
        sending.wait()
        comm.sendrecv(x, right, x, left)
        found.equal(f"sendrecv of {count} in place", kit.get(x), np.full(count, left, FLOAT))
    return found


def streams_and_places(comm: Any, kit: Kit) -> Found:
    """What nothing would order, or nobody could reach at once, is refused before anybody hears of it."""
    found = Found()
    x = kit.put(np.zeros(10, FLOAT))
    found.true("out on the CPU", _refused(TypeError, lambda: comm.all_reduce(x, out=np.zeros(10, FLOAT))))
    found.true("x on the CPU", _refused(TypeError, lambda: comm.all_reduce(np.zeros(10, FLOAT), out=x)))
    seen = _shown(x)
    with kit.stream():
        found.true("two streams", _refused(ValueError, lambda: comm.all_reduce(seen, out=x)))
    found.equal("all_reduce afterwards", kit.get(comm.all_reduce(x)), np.zeros(10, FLOAT))
    return found


def of_two_libraries(comm: Any, kit: Kit) -> Found:
    """CuPy's arrays into torch's, where both are there."""
    found, torch = Found(), sys.modules.get("torch")
    if torch is not None and kit.name == "cupy":
        out: Any = torch.zeros(1001, device=f"cuda:{torch.cuda.current_device()}")
        comm.all_reduce(kit.put(np.ones(1001, FLOAT)), out=out)
        found.equal("all_reduce of CuPy's into torch's", out.cpu().numpy(), np.full(1001, comm.size, FLOAT))
    return found


EVERY: list[Callable[[Any, Kit], Found]] = [
    not_contiguous, by_interfaces, values_of_its_own, messages, streams_and_places, of_two_libraries
]  # fmt: skip


def _shown(array: Any) -> Any:
    """An array whose interface goes on to name the stream of now."""

    class Shown:
        __cuda_array_interface__ = {"stream": 1, **array.__cuda_array_interface__, "version": 3}  # noqa: RUF012

    return Shown()


def _refused(kind: type[Exception], call: Callable[[], object]) -> bool:
    try:
        call()
    except kind:
        return True
    return False
