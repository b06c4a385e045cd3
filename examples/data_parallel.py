"""Train a small network on scikit-learn's digits, data-parallel: the same loss whatever the number of ranks.

    python examples/data_parallel.py
    collx run -n 4 examples/data_parallel.py

Every rank holds the whole network and takes its share of each batch. One all_reduce per step adds the gradients
up, in place, as one flat array; so all ranks take the same step and stay equal to the last bit.
"""

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

import collx

Array = npt.NDArray[np.float64]

PIXELS, HIDDEN, CLASSES = 64, 32, 10
EPOCHS, BATCH, RATE = 12, 64, 0.2


class Network:
    """Two layers, whose parameters and gradients are views of one flat array each."""

    def __init__(self, seed: int) -> None:
        shapes = ((PIXELS, HIDDEN), (HIDDEN,), (HIDDEN, CLASSES), (CLASSES,))
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        self.parameters = np.random.default_rng(seed).normal(0, 0.1, ends[-1])
        self.gradients = np.zeros_like(self.parameters)
        self.w1, self.b1, self.w2, self.b2 = self._views(self.parameters, ends, shapes)
        self.dw1, self.db1, self.dw2, self.db2 = self._views(self.gradients, ends, shapes)

    @staticmethod
    def _views(flat: Array, ends: npt.NDArray[np.int64], shapes: tuple[tuple[int, ...], ...]) -> list[Array]:
        return [part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), shapes, strict=True)]

    def forward(self, images: Array) -> tuple[Array, Array]:
        """Hidden activations and the logarithms of the classes' probabilities."""
        hidden = np.tanh(images @ self.w1 + self.b1)
        scores = hidden @ self.w2 + self.b2
        scores -= scores.max(axis=1, keepdims=True)
        return hidden, scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))

    def backward(self, images: Array, labels: npt.NDArray[np.int64], batch: int) -> None:
        """These images' part of the gradient of the batch's mean loss."""
        hidden, logs = self.forward(images)
        error = np.exp(logs)
        error[np.arange(len(labels)), labels] -= 1
        error /= batch
        self.dw2[:], self.db2[:] = hidden.T @ error, error.sum(axis=0)
        error = (error @ self.w2.T) * (1 - hidden**2)
        self.dw1[:], self.db1[:] = images.T @ error, error.sum(axis=0)


def evaluate(comm: collx.Communicator, network: Network, images: Array, labels: npt.NDArray[np.int64]) -> Array:
    """Mean loss and accuracy over every rank's share of the images."""
    mine = slice(comm.rank, None, comm.size)
    _, logs = network.forward(images[mine])
    chosen = logs[np.arange(len(logs)), labels[mine]]
    right = logs.argmax(axis=1) == labels[mine]
    total: Array = comm.all_reduce(np.array([-chosen.sum(), right.sum()]))
    return total / len(images)


def main() -> None:
    images, labels = load_digits(return_X_y=True)
    images = images / 16
    train, test = slice(0, 1500), slice(1500, None)
    with collx.init() as comm:
        network = Network(seed=0)
        order = np.random.default_rng(1)  # the same on every rank
        for epoch in range(EPOCHS):
            for batch in np.array_split(order.permutation(1500), 1500 // BATCH):
                share = batch[comm.rank :: comm.size]
                network.backward(images[share], labels[share], len(batch))
                comm.all_reduce(network.gradients, out=network.gradients)
                network.parameters -= RATE * network.gradients
            loss, _ = evaluate(comm, network, images[train], labels[train])
            if comm.rank == 0:
                print(f"epoch {epoch + 1:2}: loss {loss:.10f}")
        _, accuracy = evaluate(comm, network, images[test], labels[test])
        if comm.rank == 0:
            print(f"{comm.size} ranks, {network.gradients.nbytes} bytes of gradients a step, accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
