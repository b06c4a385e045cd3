"""Tensor parallelism: every rank has a slice of each layer's weights, and all ranks work on the same batch.

    torchrun --nproc-per-node 2 examples/torch_tensor_parallel.py
    collx run -n 2 examples/torch_tensor_parallel.py --backend gloo

The first layer is cut by columns and the second by rows, so that one all_reduce, after the second, serves both. It
learns which tumours are malignant.
"""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import torch_training

BATCH = 64


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(nn.functional.gelu(self.up(x)))


def train() -> Iterator[float]:
    cells, malignant = map(torch.tensor, load_breast_cancer(return_X_y=True))
    cells = ((cells - cells.mean(dim=0)) / cells.std(dim=0)).float()
    network = nn.Sequential(Block(30), Block(30), nn.Linear(30, 2))
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    cut = {"up": ColwiseParallel(), "down": RowwiseParallel()}
    parallelize_module(network, mesh, {f"{block}.{layer}": how for block in (0, 1) for layer, how in cut.items()})
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
    order = torch.Generator().manual_seed(1)  # the same on every rank
    while True:
        batch = torch.randperm(len(cells), generator=order)[:BATCH]
        loss = nn.functional.cross_entropy(network(cells[batch]), malignant[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


if __name__ == "__main__":
    torch_training.main(train)
