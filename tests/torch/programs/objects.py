"""Collectives of Python objects, which torch pickles."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist


def check(rank: int, size: int) -> None:
    def thing(peer: int) -> dict[str, Any]:
        return {"rank": peer, "text": "x" * (10 ** (peer + 1)), "nested": [None, (peer, 1.5)]}

    gathered: list[Any] = [None] * size
    dist.all_gather_object(gathered, thing(rank))
    assert gathered == [thing(peer) for peer in range(size)]

    for root in range(size):
        told = [thing(root), root] if rank == root else [None, None]
        dist.broadcast_object_list(told, root)
        assert told == [thing(root), root]

        collected: list[Any] | None = [None] * size if rank == root else None
        dist.gather_object(thing(rank), collected, root)
        assert collected == ([thing(peer) for peer in range(size)] if rank == root else None)

        share: list[Any] = [None]
        dist.scatter_object_list(share, [thing(peer) for peer in range(size)] if rank == root else None, root)
        assert share == [thing(rank)]

    if rank == 0:
        for peer in range(1, size):
            dist.send_object_list([thing(peer), "a word"], peer)
    else:
        got = [None, None]
        assert dist.recv_object_list(got, 0) == 0
        assert got == [thing(rank), "a word"]
