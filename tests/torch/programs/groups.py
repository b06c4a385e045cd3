"""Groups of some ranks: overlapping, made by all or by their members alone, in turns and at once, and ended."""

from __future__ import annotations

import torch
import torch.distributed as dist

from tests.torch.programs.training import same


def total(rank: int, group: dist.ProcessGroup | None) -> float:
    tensor = torch.tensor(float(rank + 1))
    dist.all_reduce(tensor, group=group)
    return float(tensor.item())


def check(rank: int, size: int) -> None:
    by_members_alone(rank, size)
    pairs = [dist.new_group([peer, (peer + 1) % size]) for peer in range(size if size > 2 else 1)]  # they overlap
    for first, group in enumerate(pairs):
        members = sorted({first, (first + 1) % size})
        if rank in members:
            assert total(rank, group) == sum(members) + 2
            assert dist.get_process_group_ranks(group) == members
            assert dist.get_rank(group) == members.index(rank)
            assert dist.get_global_rank(group, 1) == members[1]
        else:
            assert group == dist.GroupMember.NON_GROUP_MEMBER
    alone = dist.new_group([0])
    if rank == 0:
        assert total(rank, alone) == 1
    backwards = dist.new_group([*range(size)][::-1], group_desc="backwards", sort_ranks=False)
    gathered = [torch.zeros(1) for _ in range(size)]
    dist.all_gather(gathered, torch.tensor([float(rank)]), group=backwards)
    same(torch.cat(gathered), torch.arange(size).flip(0) * 1.0, 0)

    mine, every = dist.new_subgroups(size // 2)
    assert len(every) == 2
    assert total(rank, mine) == sum(peer + 1 for peer in range(size) if peer // (size // 2) == rank // (size // 2))
    mine, _ = dist.new_subgroups_by_enumeration([[*range(0, size, 2)], [*range(1, size, 2)]])
    assert total(rank, mine) == sum(peer + 1 for peer in range(size) if peer % 2 == rank % 2)

    works = []  # calls of several groups are under way at the same time, and not in the same order on all ranks
    for group in pairs if rank % 2 else pairs[::-1]:
        if group != dist.GroupMember.NON_GROUP_MEMBER:
            works.append(dist.all_reduce(torch.ones(1000), group=group, async_op=True))
    for work in works:
        work.wait()
    dist.broadcast(tensor := torch.tensor([rank]), group_src=0, group=backwards)
    assert tensor.item() == size - 1
    for group in (*pairs, backwards):
        if group != dist.GroupMember.NON_GROUP_MEMBER:
            dist.destroy_process_group(group)


def by_members_alone(rank: int, size: int) -> None:
    """The others neither know nor wait. torch wants its members to know of as many groups before."""
    members = [*range(1, size)] if size > 2 else [0, 1]
    if rank in members:
        group = dist.new_group(members, use_local_synchronization=True)
        assert total(rank, group) == sum(members) + len(members)
        dist.destroy_process_group(group)
