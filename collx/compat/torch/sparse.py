"""The sum of sparse tensors, as of gradients of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from collx.compat.torch.calls import Calls, seconds
from collx.compat.torch.work import CollxWork


def all_reduce_sparse(group: Calls, tensor: Any, opts: Any) -> CollxWork:
    """All ranks get all that any has, and sum it; at once, even where `opts` has it under way. What is at the same
    place is summed in rank order. Raises ValueError, on all ranks, where their shapes differ."""
    if opts.reduceOp != dist.ReduceOp.SUM:
        raise NotImplementedError(f"all_reduce of sparse tensors by {opts.reduceOp.op}: only SUM is there")
    mine = tensor.detach().coalesce()
    comm, indices, values = group.comm, mine.indices(), mine.values()
    gather = partial(comm.all_gather, timeout=seconds(opts.timeout))
    with group.alone():
        kinds = gather(_numbers([values.shape[0], mine.sparse_dim(), tensor.dim()])).reshape(comm.size, -1)
        _alike("dimensions (sparse, all)", kinds[:, 1:])
        _alike("shapes", gather(_numbers(tensor.shape)).reshape(comm.size, -1))
        counts = kinds[:, 0].tolist()
        everywhere = gather(indices.t().contiguous(), counts=counts).t()
        total = torch.sparse_coo_tensor(everywhere, gather(values, counts=counts), tensor.shape).coalesce()
    with torch.no_grad():
        tensor.copy_(total)
    return CollxWork((), [tensor])


def _numbers(of: Sequence[int]) -> Any:
    return torch.tensor(of, device="cpu")  # whatever the default is


def _alike(what: str, told: Any) -> None:
    """Raise ValueError, which all ranks do, where a row differs from the first."""
    others = (told != told[0]).any(1).nonzero().flatten().tolist()
    if others:
        raise ValueError(
            f"sparse tensors differ between ranks in {what}: {told[others[0]].tolist()} on rank {others[0]},"
            f" {told[0].tolist()} on rank 0"
        )
