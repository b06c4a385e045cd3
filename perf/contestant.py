"""One rank of one library in a side-by-side measurement; `peers.py` starts it and tells it what to run.

A program by itself: it is run by the library's own launcher in the library's own environment, where collx need
not be installed. It waits for commands in a blocking read, so that it costs the other library no processor time.
"""

from __future__ import annotations

import json
import socket
import sys
import zlib
from collections.abc import Callable
from functools import partial
from time import perf_counter
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

    def barrier(self) -> None: ...

    def close(self) -> None: ...


class Collx:
    def __init__(self) -> None:
        import collx

        self.comm = collx.init()
        self.rank, self.size = self.comm.rank, self.comm.size
        self.version = f"collx {collx.__version__}"
        self.barrier = self.comm.barrier
        self.close = self.comm.close

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


class Mpi:
    def __init__(self) -> None:
        import mpi4py  # type: ignore[import-not-found, unused-ignore]
        from mpi4py import MPI  # type: ignore[import-not-found, unused-ignore]

        self.mpi = MPI
        self.world = MPI.COMM_WORLD
        self.rank, self.size = self.world.rank, self.world.size
        library = MPI.Get_library_version().splitlines()[0].split(",")[0]
        self.version = f"{library}, mpi4py {mpi4py.__version__}"
        self.barrier = self.world.Barrier

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


LIBRARIES: dict[str, Callable[[], Library]] = {"collx": Collx, "mpi": Mpi}


class Rank:
    """Serves commands on one rank: `prepare` a call, then time it as often as asked."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.call: Callable[[], object] = lambda: None
        self.result: Any = None
        self.is_in_place = False

    def prepare(self, collective: str, count: int, dtype: str, op: str, root: int) -> dict[str, Any]:
        """Allocate and call once; answers with a digest of the result, which all libraries must share."""
        rank, size = self.library.rank, self.library.size
        part = count // size
        send = part if collective == "all_gather" else count
        x = (np.arange(send) % 7 + rank).astype(dtype)
        out = np.zeros(part if collective == "reduce_scatter" else count, dtype)
        self.result = x if collective == "broadcast" else out
        self.call = self.library.bind(collective, x, out, op, root)
        self.call()
        return {"digest": zlib.crc32(self.result.tobytes())}

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


def main(name: str, address: str) -> None:
    library = LIBRARIES[name]()
    rank = Rank(library)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        stream = connection.makefile("rw")

        def answer(reply: dict[str, Any]) -> None:
            stream.write(json.dumps(reply) + "\n")
            stream.flush()

        answer({"rank": library.rank, "size": library.size, "version": library.version})
        for line in stream:
            command = json.loads(line)
            do = command.pop("do")
            if do == "quit":
                break
            answer(rank.prepare(**command) if do == "prepare" else rank.run(**command))
    library.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
