"""Pipelining: every rank has some of the layers, and a batch goes through them in pieces, by send and recv.

    torchrun --nproc-per-node 2 examples/torch_pipeline.py
    collx run -n 2 examples/torch_pipeline.py --backend gloo

It predicts how diabetes goes on in a year's time.
"""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from sklearn.datasets import load_diabetes
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

import torch_training

BATCH, PIECES, WIDTH, LAYERS = 64, 4, 32, 8


def train() -> Iterator[float]:
    patients, progress = (torch.tensor(part).float() for part in load_diabetes(return_X_y=True, scaled=False))
    patients = (patients - patients.mean(dim=0)) / patients.std(dim=0)
    progress = ((progress - progress.mean()) / progress.std()).unsqueeze(1)
    rank, size = dist.get_rank(), dist.get_world_size()
    layers: list[nn.Module] = [nn.Linear(10, WIDTH)]
    layers += [nn.Sequential(nn.Tanh(), nn.Linear(WIDTH, WIDTH)) for _ in range(LAYERS - 2)]
    layers += [nn.Linear(WIDTH, 1)]
    mine = nn.Sequential(*layers[rank * LAYERS // size : (rank + 1) * LAYERS // size])
    stage = PipelineStage(mine, rank, size, torch.device("cpu"))
    schedule = Schedule1F1B(stage, PIECES, loss_fn=nn.functional.mse_loss)
    optimizer = torch.optim.SGD(mine.parameters(), lr=0.02, momentum=0.9)
    order = torch.Generator().manual_seed(1)  # the same on every rank
    while True:
        batch = torch.randperm(len(patients), generator=order)[:BATCH]
        optimizer.zero_grad()
        losses: list[torch.Tensor] = []
        given = (patients[batch],) if rank == 0 else ()
        wanted = {"target": progress[batch], "losses": losses} if rank == size - 1 else {}
        schedule.step(*given, **wanted)
        optimizer.step()
        loss = torch.stack(losses).mean() if losses else torch.zeros(())
        dist.broadcast(loss, size - 1)
        yield loss.item()


if __name__ == "__main__":
    torch_training.main(train)
