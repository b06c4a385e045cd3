"""A mixture of experts: every rank has experts, and each token travels to its expert and back, by all_to_all.

    torchrun --nproc-per-node 2 examples/torch_moe.py
    collx run -n 2 examples/torch_moe.py --backend gloo

The tokens are the four quarters of each digit. How many go where changes from step to step, so that the all_to_all is
one of uneven parts, whose sizes another one tells beforehand.
"""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.distributed.nn.functional import all_to_all_single

import torch_training

BATCH, WIDTH, EXPERTS = 128, 32, 2  # experts per rank


class Experts(nn.Module):
    """The layer: a router that all ranks have, and this rank's experts."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, EXPERTS * dist.get_world_size())
        torch.manual_seed(100 + dist.get_rank())  # no two experts begin alike
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.ReLU(), nn.Linear(2 * WIDTH, WIDTH)) for _ in range(EXPERTS)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        weight, chosen = self.router(tokens).softmax(dim=1).max(dim=1)
        order = chosen.argsort(stable=True)
        leaving = torch.bincount(chosen, minlength=self.router.out_features)
        arriving = torch.empty_like(leaving)
        dist.all_to_all_single(arriving, leaving)
        there, back = (n.view(-1, EXPERTS).sum(dim=1).tolist() for n in (leaving, arriving))
        here = all_to_all_single(tokens.new_empty(sum(back), WIDTH), tokens[order], back, there)
        parts = here.split(arriving.tolist())  # from rank 0 for this rank's first expert, for its second, ...
        done = torch.cat([self.experts[i % EXPERTS](part) for i, part in enumerate(parts)])
        home = all_to_all_single(torch.empty_like(tokens), done, there, back)
        return tokens + weight.unsqueeze(1) * torch.zeros_like(home).index_copy(0, order, home)


def train() -> Iterator[float]:
    images, labels = map(torch.tensor, load_digits(return_X_y=True))
    images = images.float().view(-1, 1, 8, 8) / 16
    tokens = nn.functional.unfold(images, 4, stride=4).transpose(1, 2)  # four of 16 pixels each
    embed, experts, head = nn.Linear(16, WIDTH), Experts(), nn.Linear(4 * WIDTH, 10)
    alike = [*embed.parameters(), *experts.router.parameters(), *head.parameters()]
    for parameter in alike:
        dist.broadcast(parameter.data, 0)
    optimizer = torch.optim.SGD([*alike, *experts.experts.parameters()], lr=0.1, momentum=0.9)
    order = torch.Generator().manual_seed(1)  # the same on every rank
    size = dist.get_world_size()
    while True:
        batch = torch.randperm(len(tokens), generator=order)[:BATCH]
        mine = batch[dist.get_rank() :: size]
        x = experts(embed(tokens[mine]).flatten(0, 1)).view(len(mine), -1)
        loss = nn.functional.cross_entropy(head(x), labels[mine])
        optimizer.zero_grad()
        (loss / size).backward()  # an expert's gradients come from all ranks, and are whole
        for parameter in alike:
            dist.all_reduce(parameter.grad)
        optimizer.step()
        yield torch_training.mean(loss)


if __name__ == "__main__":
    torch_training.main(train)
