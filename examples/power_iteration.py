"""PageRank by power iteration on a real sparse matrix, its rows spread over the ranks.

    python examples/power_iteration.py
    collx run -n 4 examples/power_iteration.py

The matrix is the graph of nearest neighbours among scikit-learn's 1797 handwritten digits, 17970 links; the page that
ranks first is the digit that looks most like the others. One all_gather with counts per step puts the vector
together: 1797 rows do not divide evenly. Every row is computed whole on one rank, so the bits do not depend on how
many ranks there are.
"""

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, diags
from sklearn.datasets import load_digits
from sklearn.neighbors import kneighbors_graph

import collx

DAMPING, TOLERANCE, MOST_STEPS = 0.85, 1e-12, 500


def transition(images: npt.NDArray[np.float64]) -> csr_matrix:
    """Entry (i, j): the probability of a step from image j to its near neighbour i. Columns add up to 1."""
    links = kneighbors_graph(images, n_neighbors=10)
    return csr_matrix(links.T @ diags(1 / links.sum(axis=1).A1))


def page_rank(
    comm: collx.Communicator, rows: csr_matrix, counts: tuple[int, ...]
) -> tuple[npt.NDArray[np.float64], int]:
    """The stationary distribution, and the steps it took.

    `rows` are this rank's rows of the matrix, `counts` says how many each rank has.
    """
    pages = sum(counts)
    ranks = np.full(pages, 1 / pages)
    for step in range(1, MOST_STEPS + 1):
        mine = DAMPING * (rows @ ranks) + (1 - DAMPING) / pages
        new = comm.all_gather(mine, counts=counts)
        change = np.abs(new - ranks).sum()
        ranks = new
        if change < TOLERANCE:
            return ranks, step
    raise ArithmeticError(f"no convergence in {MOST_STEPS} steps")


def main() -> None:
    images, labels = load_digits(return_X_y=True)
    with collx.init() as comm:
        shares = np.array_split(np.arange(len(images)), comm.size)
        ranks, steps = page_rank(comm, transition(images)[shares[comm.rank]], tuple(map(len, shares)))
        if comm.rank == 0:
            best = int(ranks.argmax())
            print(f"{comm.size} ranks, {steps} steps: image {best}, a {labels[best]}, rank {float(ranks[best])!r}")
            for line in images[best].reshape(8, 8):
                print("".join(" .:oO@"[int(shade) // 3] for shade in line))


if __name__ == "__main__":
    main()
