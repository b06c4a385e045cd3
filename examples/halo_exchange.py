"""Heat in a plate: mpi4py exchanges the halos, collx reduces the residual, both on one communicator.

    mpirun -n 4 python examples/halo_exchange.py
    mpirun -n 4 python examples/halo_exchange.py --reduce mpi4py

Jacobi's iteration: in every step each point becomes the mean of its four neighbours, until no point changes much. The
rows are spread over the ranks, so a rank needs its neighbours' outermost rows, its halo. How much the plate as a whole
still changes is a maximum over all ranks, whose bits depend on no order: both ways print the same.
"""

import argparse
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

import collx

ROWS, COLUMNS, TOLERANCE, MOST_STEPS = 50, 40, 1e-3, 10_000
Plate = npt.NDArray[np.float64]


def reducer(comm: MPI.Intracomm, name: str) -> Callable[[Plate], float]:
    """What finds the largest of all ranks' numbers."""
    if name == "mpi4py":
        return lambda change: float(comm.allreduce(change.item(), MPI.MAX))
    group = collx.from_mpi(comm)  # a duplicate: what collx sends never meets what mpi4py sends
    if group.rank == 0:
        print(group)
    return lambda change: float(group.all_reduce(change, "max"))


def exchange_halos(comm: MPI.Intracomm, plate: Plate) -> None:
    """Fill the first and the last row with the neighbours'; at the plate's ends there is nobody."""
    above = comm.rank - 1 if comm.rank > 0 else MPI.PROC_NULL
    below = comm.rank + 1 if comm.rank < comm.size - 1 else MPI.PROC_NULL
    comm.Sendrecv(plate[1], above, recvbuf=plate[-1], source=below)
    comm.Sendrecv(plate[-2], below, recvbuf=plate[0], source=above)


def heat(comm: MPI.Intracomm, largest: Callable[[Plate], float]) -> tuple[Plate, int]:
    """This rank's rows of the plate in the end, and the steps it took. The edge above is hot, the others are cold."""
    rows = len(np.array_split(np.arange(ROWS), comm.size)[comm.rank])
    plate = np.zeros((rows + 2, COLUMNS + 2))
    if comm.rank == 0:
        plate[0] = 1
    for step in range(1, MOST_STEPS + 1):
        exchange_halos(comm, plate)
        new = (plate[:-2, 1:-1] + plate[2:, 1:-1] + plate[1:-1, :-2] + plate[1:-1, 2:]) / 4
        change = np.abs(new - plate[1:-1, 1:-1]).max(initial=0.0)
        plate[1:-1, 1:-1] = new
        if largest(np.array(change)) < TOLERANCE:
            return plate[1:-1, 1:-1], step
    raise ArithmeticError(f"no convergence in {MOST_STEPS} steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reduce", choices=("collx", "mpi4py"), default="collx", help="who reduces (collx)")
    comm = MPI.COMM_WORLD
    if comm.size > ROWS:
        raise SystemExit(f"{ROWS} rows are too few for {comm.size} ranks")
    mine, steps = heat(comm, reducer(comm, parser.parse_args().reduce))
    rows = comm.gather(mine)
    if rows is not None:
        plate = np.concatenate(rows)
        print(f"{comm.size} ranks, {steps} steps: {plate.sum().item()!r} in all")
        for line in plate[::5, ::2]:
            print("".join(" .:oO@"[min(int(heat * 12), 5)] for heat in line))


if __name__ == "__main__":
    main()
