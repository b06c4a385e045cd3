"""torch's collectives, each as a call of collx's. Names that torch has two of for one thing lead to one method."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch._C import _distributed_c10d as c10d

from collx.compat.torch.calls import Call, Calls
from collx.compat.torch.sparse import all_reduce_sparse
from collx.compat.torch.tensors import fits, flat, joined, landing, one_each, only, parts, reduction, shares
from collx.compat.torch.work import CollxWork


class Collectives(Calls):
    """What torch says of each, and: tensors in lists may differ in shape where all ranks' lists do so alike. Of a
    tensor that is not contiguous a copy is sent, or received and then copied to it."""

    def allreduce(self, tensors: Any, opts: Any = None) -> CollxWork | None:
        tensor = only(tensors, "tensors")
        opts = opts or c10d.AllreduceOptions()
        if tensor.is_sparse:
            return all_reduce_sparse(self, tensor, opts)
        return self._run(opts, self._all_reduce(tensor, opts))

    def allreduce_coalesced(self, tensors: Any, opts: Any = None) -> CollxWork | None:
        opts = opts or c10d.AllreduceCoalescedOptions()
        return self._fused(opts, [self._all_reduce(tensor, opts) for tensor in tensors])

    def broadcast(self, tensors: Any, opts: Any = None) -> CollxWork | None:
        opts = opts or c10d.BroadcastOptions()
        here, finish = landing(only(tensors, "tensors"), filled=opts.rootRank == self.comm.rank)
        return self._run(opts, Call(partial(self.comm.broadcast, here, opts.rootRank), tensors, finish))

    def reduce(self, tensors: Any, opts: Any = None) -> CollxWork | None:
        opts = opts or c10d.ReduceOptions()
        here, finish = landing(only(tensors, "tensors"), filled=True)
        x, op = reduction(here, opts.reduceOp)
        ends = finish if opts.rootRank == self.comm.rank else None
        return self._run(opts, Call(partial(self.comm.reduce, x, op, opts.rootRank, out=here), tensors, ends))

    def allgather(self, output_tensors: Any, input_tensors: Any, opts: Any = None) -> CollxWork | None:
        opts = opts or c10d.AllgatherOptions()
        outputs, x = only(output_tensors, "output_tensors"), only(input_tensors, "input_tensors")
        return self._run(opts, self._all_gather_to_list(outputs, x))

    def allgather_coalesced(self, output_lists: Any, input_list: Any, opts: Any = None) -> CollxWork | None:
        opts = opts or c10d.AllgatherOptions()
        outputs = zip(*output_lists, strict=True)  # torch has a list of each rank's
        return self._fused(opts, [self._all_gather_to_list(o, x) for o, x in zip(outputs, input_list, strict=True)])

    def all_gather_single(self, output: Any, input: Any, opts: Any = None) -> CollxWork | None:
        return self._run(opts or c10d.AllgatherOptions(), self._all_gather(output, input))

    def all_gather_single_coalesced(self, outputs: Any, inputs: Any, opts: Any = None) -> CollxWork | None:
        opts = opts or c10d.AllgatherOptions()
        return self._fused(opts, [self._all_gather(o, x) for o, x in zip(outputs, inputs, strict=True)])

    def gather(self, output_tensors: Any, input_tensors: Any, opts: Any = None) -> CollxWork | None:
        opts = opts or c10d.GatherOptions()
        x, root, out, finish = only(input_tensors, "input_tensors"), opts.rootRank, None, None
        outputs: Sequence[Any] = []
        if root == self.comm.rank:
            outputs = one_each(only(output_tensors, "output_tensors"), self.comm.size, "gather_list", alike=True)
            fits(outputs, root, x, "gather_list")
            out, finish = self._spread.over(outputs, x)
        return self._run(opts, Call(partial(self.comm.gather, flat(x), root, out=out), outputs, finish))

    def scatter(self, output_tensors: Any, input_tensors: Any, opts: Any = None) -> CollxWork | None:
        opts = opts or c10d.ScatterOptions()
        x, root, output = None, opts.rootRank, only(output_tensors, "output_tensors")
        if root == self.comm.rank:
            inputs = one_each(only(input_tensors, "input_tensors"), self.comm.size, "scatter_list", alike=True)
            fits(inputs, root, output, "scatter_list")
            x = joined(inputs)
        out, finish = landing(output, filled=False)
        method = partial(self.comm.scatter, x, root, out=flat(out))
        return self._run(opts, Call(method, output_tensors, finish))

    def reduce_scatter(self, output_tensors: Any, input_tensors: Any, opts: Any = None) -> CollxWork | None:
        opts = opts or c10d.ReduceScatterOptions()
        inputs = one_each(only(input_tensors, "input_tensors"), self.comm.size, "input_list")
        output = only(output_tensors, "output_tensors")
        fits(inputs, self.comm.rank, output, "input_list")
        out, finish = landing(output, filled=False)
        x, op = reduction(joined(inputs), opts.reduceOp)
        method = partial(self.comm.reduce_scatter, x, op, counts=parts(inputs), out=flat(out))
        return self._run(opts, Call(method, output_tensors, finish))

    def reduce_scatter_single(self, output: Any, input: Any, opts: Any = None) -> CollxWork | None:
        opts = opts or c10d.ReduceScatterOptions()
        return self._run(opts, self._reduce_scatter(output, input, opts))

    def reduce_scatter_single_coalesced(self, outputs: Any, inputs: Any, opts: Any = None) -> CollxWork | None:
        opts = opts or c10d.ReduceScatterOptions()
        return self._fused(opts, [self._reduce_scatter(o, x, opts) for o, x in zip(outputs, inputs, strict=True)])

    def all_to_all_single(
        self, output: Any, input: Any, output_split_sizes: Any, input_split_sizes: Any, opts: Any = None
    ) -> CollxWork | None:
        out, finish = landing(output, filled=False)
        if not output_split_sizes and not input_split_sizes:
            method = partial(self.comm.all_to_all, flat(input), out=flat(out))
        else:
            coming = shares(output_split_sizes, output, self.comm.size, "output")
            going = shares(input_split_sizes, input, self.comm.size, "input")
            method = partial(self.comm.all_to_all, flat(input), send_counts=going, recv_counts=coming, out=flat(out))
        return self._run(opts or c10d.AllToAllOptions(), Call(method, [output], finish))

    def alltoall(self, output_tensors: Any, input_tensors: Any, opts: Any = None) -> CollxWork | None:
        inputs = one_each(input_tensors, self.comm.size, "input_tensor_list")
        outputs = one_each(output_tensors, self.comm.size, "output_tensor_list")
        going, coming = [x.numel() for x in inputs], [out.numel() for out in outputs]
        x = joined(inputs)
        out, finish = self._spread.over(outputs, x)
        method = partial(self.comm.all_to_all, x, send_counts=going, recv_counts=coming, out=out)
        return self._run(opts or c10d.AllToAllOptions(), Call(method, output_tensors, finish))

    def barrier(self, opts: Any = None) -> CollxWork | None:
        return self._run(opts or c10d.BarrierOptions(), Call(self.comm.barrier, []))

    def monitored_barrier(self, timeout: Any = None, wait_all_ranks: bool = False) -> None:
        """As barrier, whose error names ranks that did not come."""
        opts = c10d.BarrierOptions()
        if timeout is not None:
            opts.timeout = timeout
        work = self.barrier(opts)
        if work is not None:
            work.wait()

    _allgather_base = all_gather_single
    allgather_into_tensor_coalesced = all_gather_single_coalesced
    _reduce_scatter_base = reduce_scatter_single
    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced
    alltoall_base = all_to_all_single

    # -- those of which several can be one ------------------------------------------------------------

    def _all_reduce(self, tensor: Any, opts: Any) -> Call:
        out, finish = landing(tensor, filled=True)
        x, op = reduction(out, opts.reduceOp)
        return Call(partial(self.comm.all_reduce, x, op, out=out), [tensor], finish)

    def _all_gather(self, output: Any, x: Any) -> Call:
        out, finish = landing(output, filled=False)
        return Call(partial(self.comm.all_gather, flat(x), out=flat(out)), [output], finish)

    def _all_gather_to_list(self, outputs: Any, x: Any) -> Call:
        fits(one_each(outputs, self.comm.size, "tensor_list"), self.comm.rank, x, "tensor_list")
        out, finish = self._spread.over(outputs, x)
        return Call(partial(self.comm.all_gather, flat(x), counts=parts(outputs), out=out), outputs, finish)

    def _reduce_scatter(self, output: Any, input: Any, opts: Any) -> Call:
        out, finish = landing(output, filled=False)
        x, op = reduction(flat(input), opts.reduceOp)
        return Call(partial(self.comm.reduce_scatter, x, op, out=flat(out)), [output], finish)
