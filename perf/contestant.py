"""One rank of one library in a side-by-side measurement; `rivals.py` starts it and `contest.py` tells it what to run.

A program by itself: it is run by the library's own launcher in the library's own environment, where collx need
not be installed. It waits for commands in a blocking read, so that it costs the other libraries no processor time,
and says with each answer what it did cost meanwhile.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import zlib
from collections.abc import Callable
from functools import partial
from time import perf_counter, process_time
from typing import Any, Protocol

import numpy as np


class Library(Protocol):
    """What a library must offer to be measured."""

    rank: int
    size: int
    version: str

    def bind(self, collective: str, x: Any, out: Any, op: str, root: int) -> Callable[[], object]:
        """The call to be timed, through the library's Python API; broadcast is in place, in `x`."""
        ...

    def empty(self, count: int, dtype: str) -> Any:
        """An array of unspecified content."""
        ...

    def barrier(self) -> object: ...

    def close(self) -> None: ...


def numpy_empty(count: int, dtype: str) -> Any:
    return np.empty(count, dtype)


class Collx:
    def __init__(self) -> None:
        import collx

        self.comm = collx.init()
        self.rank, self.size = self.comm.rank, self.comm.size
        self.version = f"collx {collx.__version__}"
        self.barrier = self.comm.barrier
        self.close = self.comm.close
        self.empty: Callable[[int, str], Any] = numpy_empty

    def bind(self, collective: str, x: Any, out: Any, op: str, root: int) -> Callable[[], object]:
        method = getattr(self.comm, collective)
        match collective:
            case "broadcast":
                return partial(method, x, root)
            case "all_reduce" | "reduce_scatter" | "scan" | "exscan":
                return partial(method, x, op, out=out)
            case "reduce":
                return partial(method, x, op, root, out=out if self.rank == root else None)
            case "all_gather" | "all_to_all":
                return partial(method, x, out=out)
        raise ValueError(f"{collective} is not measured side by side")


class CollxEmpty(Collx):
    """collx on memory that its ranks share."""

    def __init__(self) -> None:
        super().__init__()
        self.empty = self.comm.empty
        self.version += " (comm.empty)"


class Mpi:
    def __init__(self) -> None:
        import mpi4py  # type: ignore[import-not-found, unused-ignore]
        from mpi4py import MPI  # type: ignore[import-not-found, unused-ignore]

        self.mpi = MPI
        self.world = MPI.COMM_WORLD
        self.rank, self.size = self.world.rank, self.world.size
        library = " ".join(MPI.Get_library_version().splitlines()[0].split(",")[0].split())
        self.version = f"{library}, mpi4py {mpi4py.__version__}"
        self.barrier = self.world.Barrier
        self.empty = numpy_empty

    def close(self) -> None:
        self.mpi.Finalize()

    def bind(self, collective: str, x: Any, out: Any, op: str, root: int) -> Callable[[], object]:
        world, reduction = self.world, getattr(self.mpi, op.upper())
        match collective:
            case "broadcast":
                return partial(world.Bcast, x, root)
            case "all_reduce":
                return partial(world.Allreduce, x, out, reduction)
            case "reduce_scatter":
                return partial(world.Reduce_scatter_block, x, out, reduction)
            case "scan":
                return partial(world.Scan, x, out, reduction)
            case "exscan":
                return partial(world.Exscan, x, out, reduction)
            case "reduce":
                return partial(world.Reduce, x, out if self.rank == root else None, reduction, root)
            case "all_gather":
                return partial(world.Allgather, x, out)
            case "all_to_all":
                return partial(world.Alltoall, x, out)
        raise ValueError(f"{collective} is not measured side by side")


class Gloo:
    """torch.distributed. It is told its rank by collx run, and reduces in place only, so `x` is first copied."""

    def __init__(self) -> None:
        import torch  # type: ignore[import-not-found, unused-ignore]
        import torch.distributed  # type: ignore[import-not-found, unused-ignore]

        torch.set_num_threads(1)
        self.torch, self.world = torch, torch.distributed
        self.rank, self.size = int(os.environ["COLLX_RANK"]), int(os.environ["COLLX_SIZE"])
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        meeting = f"file://{sys.argv[2]}.gloo"
        self.world.init_process_group("gloo", init_method=meeting, rank=self.rank, world_size=self.size)
        self.version = f"Gloo of torch {torch.__version__}"
        self.barrier = self.world.barrier
        self.close = self.world.destroy_process_group
        self.empty = numpy_empty

    def bind(self, collective: str, x: Any, out: Any, op: str, root: int) -> Callable[[], object]:
        world, tensor = self.world, self.torch.from_numpy
        reduction = getattr(world.ReduceOp, {"prod": "PRODUCT"}.get(op, op.upper()))
        match collective:
            case "broadcast":
                return partial(world.broadcast, tensor(x), root)
            case "all_reduce":
                out[...] = x
                return partial(world.all_reduce, tensor(out), reduction)
            case "reduce":
                out[...] = x
                return partial(world.reduce, tensor(out), root, reduction)
            case "reduce_scatter":
                return partial(world.reduce_scatter_single, tensor(out), tensor(x), reduction)
            case "all_gather":
                return partial(world.all_gather_single, tensor(out), tensor(x))
            case "all_to_all":
                return partial(world.all_to_all_single, tensor(out), tensor(x))
        raise ValueError(f"Gloo has no {collective}")


LIBRARIES: dict[str, Callable[[], Library]] = {"collx": Collx, "collx.empty": CollxEmpty, "mpi": Mpi, "gloo": Gloo}


class Rank:
    """Serves commands on one rank: `prepare` a call, then `run` it as often as asked, then `release` its memory."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.release()

    def release(self) -> dict[str, Any]:
        """Drop the arrays."""
        self.call: Callable[[], object] = lambda: None
        return {}

    def prepare(self, collective: str, count: int, dtype: str, op: str, root: int) -> dict[str, Any]:
        """Allocate and call once; answers with a digest of the result, which all libraries must share."""
        rank, size = self.library.rank, self.library.size
        part = count // size
        x = self.library.empty(part if collective == "all_gather" else count, dtype)
        for number in range(7):
            x[number::7] = number + rank
        out = self.library.empty(part if collective == "reduce_scatter" else count, dtype)
        out[...] = 0
        self.call = self.library.bind(collective, x, out, op, root)
        self.call()
        result = x if collective == "broadcast" else out
        unspecified = collective == "reduce" and rank != root
        return {"digest": 0 if unspecified else zlib.crc32(result)}

    def run(self, iterations: int, warmup: int) -> dict[str, Any]:
        """Seconds per call over `iterations` calls in a row."""
        call = self.call
        for _ in range(warmup):
            call()
        self.library.barrier()
        start = perf_counter()
        for _ in range(iterations):
            call()
        return {"seconds": (perf_counter() - start) / iterations}


def bind_to_core(rank: int, size: int, cores: list[int]) -> None:
    """One core per rank where there are as many, the same for every library: some launchers do so and some do not,
    and ranks that the kernel woke on one core would be measured there for a while. Otherwise as launched."""
    if size <= len(cores):
        os.sched_setaffinity(0, {cores[rank]})


def main(name: str, address: str, cores: str) -> None:
    library = LIBRARIES[name]()
    bind_to_core(library.rank, library.size, json.loads(cores))
    rank = Rank(library)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        stream = connection.makefile("rw")

        def answer(reply: dict[str, Any]) -> None:
            stream.write(json.dumps(reply) + "\n")
            stream.flush()

        answer({"rank": library.rank, "size": library.size, "version": library.version})
        rest = process_time()
        for line in stream:
            command = json.loads(line)
            do = command.pop("do")
            if do == "quit":
                break
            idle = process_time() - rest
            serve: Callable[..., dict[str, Any]] = getattr(rank, do)
            reply = serve(**command)
            rest = process_time()
            answer(reply | {"idle": idle})
    library.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
