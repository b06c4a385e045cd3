"""The sum of sparse tensors, as of gradients of embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from collx.compat.torch.work import CollxWork

if TYPE_CHECKING:
    from collx.compat.torch.calls import Calls


def all_reduce_sparse(group: Calls, tensor: Any, opts: Any) -> CollxWork:
    """All ranks get all that any has, and sum it; at once, even where `opts` has it under way. What is at the same
    place is summed in rank order."""
    if opts.reduceOp != dist.ReduceOp.SUM:
        raise NotImplementedError(f"all_reduce of sparse tensors by {opts.reduceOp.op}: only SUM is there")
    mine = tensor.detach().coalesce()
    comm, indices, values = group.comm, mine.indices(), mine.values()
    with group.alone():
        counts = comm.all_gather(torch.tensor([values.shape[0]])).tolist()
        everywhere = comm.all_gather(indices.t().contiguous(), counts=counts).t()
        total = torch.sparse_coo_tensor(everywhere, comm.all_gather(values, counts=counts), tensor.shape).coalesce()
    with torch.no_grad():
        tensor.copy_(total)
    return CollxWork((), [tensor])
