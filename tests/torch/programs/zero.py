"""ZeroRedundancyOptimizer: each rank keeps the optimiser's state of its part of the parameters."""

from __future__ import annotations

import torch
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel as DDP

from tests.torch.programs.training import adam, model, same, train, trained_alone

FIRST, SECOND = range(3), range(3, 6)


def check(rank: int, size: int) -> None:
    wanted = trained_alone(size, range(6), adam)
    for packed in (False, True):
        net = DDP(model())
        optimizer = make(net, packed)
        train(net, optimizer, rank, FIRST)
        kept = sum(len(state) > 0 for state in optimizer.optim.state.values())
        assert kept < len([*net.parameters()])

        # What all ranks keep, put together on one, and given out again.
        optimizer.consolidate_state_dict(to=0)
        state = [optimizer.state_dict() if rank == 0 else None]
        torch.distributed.broadcast_object_list(state, 0)
        again = make(net, packed)
        again.load_state_dict(state[0])
        train(net, again, rank, SECOND)
        same(net.module, wanted)


def make(net: DDP, packed: bool) -> ZeroRedundancyOptimizer:
    return ZeroRedundancyOptimizer(net.parameters(), torch.optim.Adam, parameters_as_bucket_view=packed, lr=0.01)
