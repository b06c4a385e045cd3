"""DistributedDataParallel: every rank has the whole network and a share of each batch of digits.

torchrun --nproc-per-node 2 examples/torch_ddp.py
collx run -n 2 examples/torch_ddp.py --backend gloo
"""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import torch_training

BATCH = 128


def train() -> Iterator[float]:
    images, labels = map(torch.tensor, load_digits(return_X_y=True))
    images = images.float().view(-1, 1, 8, 8) / 16
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    parallel = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1, momentum=0.9)
    order = torch.Generator().manual_seed(1)  # the same on every rank
    while True:
        batch = torch.randperm(len(images), generator=order)[:BATCH]
        mine = batch[dist.get_rank() :: dist.get_world_size()]
        loss = nn.functional.cross_entropy(parallel(images[mine]), labels[mine])
        optimizer.zero_grad()
        loss.backward()  # all_reduces the gradients as they come
        optimizer.step()
        yield torch_training.mean(loss)


if __name__ == "__main__":
    torch_training.main(train)
