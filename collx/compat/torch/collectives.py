"""torch's collectives, each as a call of collx's. Names that torch has two of for one thing lead to one method."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch._C import _distributed_c10d as c10d

from collx.compat.torch.calls import Calls
from collx.compat.torch.sparse import all_reduce_sparse
from collx.compat.torch.tensors import joined, landing, only, parts, reduction, rows, spreading
from collx.compat.torch.work import CollxWork


class Collectives(Calls):
    """What torch says of each, and: tensors in lists may differ in shape where all ranks' lists do so alike. Where a
    tensor is not contiguous a copy is sent, or received and then copied to it."""

    def allreduce(self, tensors: Any, opts: Any = None) -> CollxWork:
        tensor = only(tensors, "tensors")
        opts = opts or c10d.AllreduceOptions()
        if tensor.is_sparse:
            return all_reduce_sparse(self, tensor, opts)
        here, finish = landing(tensor, filled=True)
        x, op = reduction(here, opts.reduceOp)
        return self._run(opts, tensors, partial(self.comm.all_reduce, x, op, out=here), finish)

    def allreduce_coalesced(self, tensors: Any, opts: Any = None) -> CollxWork:
        opts = opts or c10d.AllreduceCoalescedOptions()
        return self._all(opts, tensors, [self.allreduce([tensor], _Later(opts)) for tensor in tensors])

    def broadcast(self, tensors: Any, opts: Any = None) -> CollxWork:
        tensor = only(tensors, "tensors")
        opts = opts or c10d.BroadcastOptions()
        here, finish = landing(tensor, filled=opts.rootRank == self.comm.rank)
        return self._run(opts, tensors, partial(self.comm.broadcast, here, opts.rootRank), finish)

    def reduce(self, tensors: Any, opts: Any = None) -> CollxWork:
        tensor = only(tensors, "tensors")
        opts = opts or c10d.ReduceOptions()
        here, finish = landing(tensor, filled=True)
        x, op = reduction(here, opts.reduceOp)
        ends = finish if opts.rootRank == self.comm.rank else None
        return self._run(opts, tensors, partial(self.comm.reduce, x, op, opts.rootRank, out=here), ends)

    def allgather(self, output_tensors: Any, input_tensors: Any, opts: Any = None) -> CollxWork:
        outputs, x = only(output_tensors, "output_tensors"), only(input_tensors, "input_tensors")
        opts = opts or c10d.AllgatherOptions()
        flat, finish = spreading(outputs, x)
        call = partial(self.comm.all_gather, joined([x]), counts=parts(outputs), out=flat)
        return self._run(opts, outputs, call, finish)

    def allgather_coalesced(self, output_lists: Any, input_list: Any, opts: Any = None) -> CollxWork:
        opts = opts or c10d.AllgatherOptions()
        by_tensor = zip(*output_lists, strict=True)  # torch's are by rank
        works = [self.allgather([list(o)], [x], _Later(opts)) for o, x in zip(by_tensor, input_list, strict=True)]
        return self._all(opts, [output for outputs in output_lists for output in outputs], works)

    def all_gather_single(self, output: Any, input: Any, opts: Any = None) -> CollxWork:
        opts = opts or c10d.AllgatherOptions()
        here, finish = landing(output, filled=False)
        return self._run(opts, [output], partial(self.comm.all_gather, _flat(input), out=_flat(here)), finish)

    def all_gather_single_coalesced(self, outputs: Any, inputs: Any, opts: Any = None) -> CollxWork:
        opts = opts or c10d.AllgatherOptions()
        works = [self.all_gather_single(o, x, _Later(opts)) for o, x in zip(outputs, inputs, strict=True)]
        return self._all(opts, outputs, works)

    def gather(self, output_tensors: Any, input_tensors: Any, opts: Any = None) -> CollxWork:
        x = only(input_tensors, "input_tensors")
        opts = opts or c10d.GatherOptions()
        here = opts.rootRank == self.comm.rank
        outputs = only(output_tensors, "output_tensors") if here else []
        flat, finish = spreading(outputs, x) if here else (None, None)
        # Only the root knows of all ranks' shapes, and counts are the same on all.
        call = partial(self.comm.gather, joined([x]), opts.rootRank, out=flat)
        return self._run(opts, outputs, call, finish)

    def scatter(self, output_tensors: Any, input_tensors: Any, opts: Any = None) -> CollxWork:
        output = only(output_tensors, "output_tensors")
        opts = opts or c10d.ScatterOptions()
        x = joined(only(input_tensors, "input_tensors")) if opts.rootRank == self.comm.rank else None
        here, finish = landing(output, filled=False)
        return self._run(opts, [output], partial(self.comm.scatter, x, opts.rootRank, out=_flat(here)), finish)

    def reduce_scatter(self, output_tensors: Any, input_tensors: Any, opts: Any = None) -> CollxWork:
        output, inputs = only(output_tensors, "output_tensors"), only(input_tensors, "input_tensors")
        opts = opts or c10d.ReduceScatterOptions()
        here, finish = landing(output, filled=False)
        x, op = reduction(joined(inputs), opts.reduceOp)
        call = partial(self.comm.reduce_scatter, x, op, counts=parts(inputs), out=_flat(here))
        return self._run(opts, [output], call, finish)

    def reduce_scatter_single(self, output: Any, input: Any, opts: Any = None) -> CollxWork:
        opts = opts or c10d.ReduceScatterOptions()
        here, finish = landing(output, filled=False)
        x, op = reduction(_flat(input), opts.reduceOp)
        return self._run(opts, [output], partial(self.comm.reduce_scatter, x, op, out=_flat(here)), finish)

    def reduce_scatter_single_coalesced(self, outputs: Any, inputs: Any, opts: Any = None) -> CollxWork:
        opts = opts or c10d.ReduceScatterOptions()
        works = [self.reduce_scatter_single(o, x, _Later(opts)) for o, x in zip(outputs, inputs, strict=True)]
        return self._all(opts, outputs, works)

    def all_to_all_single(
        self, output: Any, input: Any, output_split_sizes: Any, input_split_sizes: Any, opts: Any = None
    ) -> CollxWork:
        opts = opts or c10d.AllToAllOptions()
        here, finish = landing(output, filled=False)
        if not output_split_sizes and not input_split_sizes:
            call = partial(self.comm.all_to_all, _flat(input), out=_flat(here))
        else:
            coming = rows(output_split_sizes, output, self.comm.size, "output")
            going = rows(input_split_sizes, input, self.comm.size, "input")
            call = partial(self.comm.all_to_all, input, send_counts=going, recv_counts=coming, out=here)
        return self._run(opts, [output], call, finish)

    def alltoall(self, output_tensors: Any, input_tensors: Any, opts: Any = None) -> CollxWork:
        opts = opts or c10d.AllToAllOptions()
        going, coming = [x.numel() for x in input_tensors], [out.numel() for out in output_tensors]
        x = joined(input_tensors)
        flat, finish = spreading(output_tensors, x)
        call = partial(self.comm.all_to_all, x, send_counts=going, recv_counts=coming, out=flat)
        return self._run(opts, output_tensors, call, finish)

    def barrier(self, opts: Any = None) -> CollxWork:
        opts = opts or c10d.BarrierOptions()
        nothing = torch.zeros(1, dtype=torch.uint8)  # a barrier of collx's own cannot be under way
        return self._run(opts, [], partial(self.comm.all_reduce, nothing, "max", out=nothing))

    def monitored_barrier(self, timeout: Any = None, wait_all_ranks: bool = False) -> None:
        """As barrier, whose error names ranks that did not come."""
        opts = c10d.BarrierOptions()
        if timeout is not None:
            opts.timeout = timeout
        self.barrier(opts).wait()

    _allgather_base = all_gather_single
    allgather_into_tensor_coalesced = all_gather_single_coalesced
    _reduce_scatter_base = reduce_scatter_single
    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced
    alltoall_base = all_to_all_single


class _Later:
    """Options of a call that is part of one."""

    asyncOp = True

    def __init__(self, opts: Any) -> None:
        self._opts = opts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opts, name)


def _flat(tensor: Any) -> Any:
    return tensor.detach().reshape(-1)
