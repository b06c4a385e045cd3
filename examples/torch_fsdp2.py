"""FSDP2: parameters, gradients and the optimizer's state are sharded; a layer is whole only while it is at work.

    torchrun --nproc-per-node 2 examples/torch_fsdp2.py
    collx run -n 2 examples/torch_fsdp2.py --backend gloo

A transformer reads the 8 rows of each digit as a sequence.
"""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import torch_training

BATCH, WIDTH = 64, 32


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, WIDTH)
        self.places = nn.Parameter(torch.randn(8, WIDTH) / 10)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0.0, batch_first=True) for _ in range(2)
        )
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        x = self.embed(rows) + self.places
        for layer in self.layers:
            x = layer(x)
        logits: torch.Tensor = self.head(x.mean(dim=1))
        return logits


def train() -> Iterator[float]:
    images, labels = map(torch.tensor, load_digits(return_X_y=True))
    rows = images.float().view(-1, 8, 8) / 16
    network = Reader()
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in network.layers:
        fully_shard(layer, mesh=mesh)  # all_gather before the layer, reduce_scatter of its gradients after it
    fully_shard(network, mesh=mesh)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    order = torch.Generator().manual_seed(1)  # the same on every rank
    while True:
        batch = torch.randperm(len(rows), generator=order)[:BATCH]
        mine = batch[dist.get_rank() :: dist.get_world_size()]
        loss = nn.functional.cross_entropy(network(rows[mine]), labels[mine])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield torch_training.mean(loss)


if __name__ == "__main__":
    torch_training.main(train)
