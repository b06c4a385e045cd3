"""Sort more numbers than one rank holds: regular sampling, then one all_to_all with counts.

    python examples/sample_sort.py [NUMBERS]
    collx run -n 4 examples/sample_sort.py 4000000

After Shi and Schaeffer, "Parallel sorting by regular sampling", J. Parallel and Distributed Computing 14 (1992).
"""

import sys
import time

import numpy as np
import numpy.typing as npt

import collx

Array = npt.NDArray[np.float64]


def sample_sort(comm: collx.Communicator, keys: Array) -> Array:
    """This rank's part of all ranks' keys in order: no key of a lower rank is larger.

    No rank gets more than about twice its share, where keys do not repeat much.
    """
    keys = np.sort(keys)
    samples = keys[np.linspace(0, len(keys), comm.size, endpoint=False).astype(int)]
    pivots = np.sort(comm.all_gather(samples))[comm.size // 2 + comm.size :: comm.size][: comm.size - 1]
    ends = np.searchsorted(keys, pivots)
    send_counts = np.diff(ends, prepend=0, append=len(keys))
    recv_counts = comm.all_to_all(send_counts)
    received = comm.all_to_all(keys, send_counts=send_counts.tolist(), recv_counts=recv_counts.tolist())
    return np.sort(received, kind="stable")  # sorted runs: the stable sort merges them


def in_order(comm: collx.Communicator, part: Array) -> bool:
    """Whether the parts, one after the other, are sorted."""
    ends = comm.all_gather(part[[0, -1]] if len(part) else part, counts=comm.all_gather(np.array(2 * (len(part) > 0))))
    inside = bool(np.all(part[1:] >= part[:-1]))
    return bool(comm.all_reduce(np.array(inside), op="land")) and bool(np.all(ends[1:] >= ends[:-1]))


def main() -> None:
    numbers = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with collx.init() as comm:
        if numbers < comm.size:
            sys.exit(f"{numbers} numbers are too few for {comm.size} ranks: each needs one at least")
        share = numbers // comm.size + (comm.rank < numbers % comm.size)
        keys = np.random.default_rng(comm.rank).lognormal(size=share)
        comm.barrier()
        start = time.perf_counter()
        part = sample_sort(comm, keys)
        seconds = comm.all_reduce(np.array(time.perf_counter() - start), op="max")
        sizes = comm.all_gather(np.array(len(part)))
        sums = comm.all_reduce(np.array([keys.sum(), part.sum()]))
        right = in_order(comm, part) and sizes.sum() == numbers and bool(np.isclose(*sums))
        if comm.rank == 0:
            print(f"{numbers} numbers on {comm.size} ranks: {'sorted' if right else 'NOT SORTED'} in {seconds:.3f} s")
            print(f"numbers per rank: {sizes.min()} to {sizes.max()}")
        sys.exit(not right)


if __name__ == "__main__":
    main()
