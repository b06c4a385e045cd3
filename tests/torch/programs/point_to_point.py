"""send and recv: tags, from any source, batches, both ways at once, large and empty messages, within groups."""

from __future__ import annotations

import torch
import torch.distributed as dist

from tests.torch.programs.training import same


def check(rank: int, size: int) -> None:
    right, left = (rank + 1) % size, (rank - 1) % size
    for count in (0, 1, 1 << 20):  # the last is far above what a transport takes in before anybody receives
        sending = dist.isend(torch.full((count,), float(rank)), right)
        dist.recv(tensor := torch.zeros(count), left)
        sending.wait()
        same(tensor, torch.full((count,), float(left)), 0)

    tags = [3, 1, 2]  # received in another order than they were sent
    works = [dist.isend(torch.tensor([100 * rank + tag]), right, tag=tag) for tag in tags]
    for tag in sorted(tags):
        dist.recv(tensor := torch.zeros(1, dtype=torch.int64), left, tag=tag)
        assert tensor.item() == 100 * left + tag
    for work in works:
        work.wait()

    if rank == 0:
        came = {}
        for _ in range(size - 1):
            tensor = torch.zeros(2)
            source = dist.recv(tensor)
            came[source] = tensor
        assert sorted(came) == [*range(1, size)]
        for source, tensor in came.items():
            same(tensor, torch.full((2,), float(source)), 0)
    else:
        dist.send(torch.full((2,), float(rank)), 0)

    dist.barrier()  # what comes next could be received from anybody too
    batches(rank, size)


def batches(rank: int, size: int) -> None:
    right, left = (rank + 1) % size, (rank - 1) % size
    mine = torch.arange(8.0) + rank
    from_left, from_right = torch.zeros(8), torch.zeros(3)
    operations = [
        dist.P2POp(dist.irecv, from_left, left),
        dist.P2POp(dist.isend, mine, right),
        dist.P2POp(dist.irecv, from_right, right, tag=5),
        dist.P2POp(dist.isend, mine[:3].clone(), left, tag=5),
    ]
    for work in dist.batch_isend_irecv(operations):
        work.wait()
    same(from_left, torch.arange(8.0) + left, 0)
    same(from_right, torch.arange(3.0) + right, 0)

    group = dist.new_group([0, size - 1])
    if rank == 0:
        dist.send(torch.ones(1), group_dst=1, group=group)
    elif rank == size - 1:
        dist.recv(tensor := torch.zeros(1), group_src=0, group=group)
        assert tensor.item() == 1
