"""The ProcessGroup: each of torch's methods as a call on a collx communicator."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch._C import _distributed_c10d as c10d

import collx
from collx.compat.torch.work import CollxWork, Finish, Waiter

Tensor = torch.Tensor
OPS = ("sum", "avg", "prod", "min", "max", "band", "bor", "bxor")  # in the order of torch's RedOpType
UNSET = datetime.timedelta(0)


class CollxGroup(dist.ProcessGroup):  # type: ignore[misc]
    """The members of one torch.distributed group, with a communicator of their own."""

    def __init__(self, comm: collx.Communicator, name: str, timeout: datetime.timedelta) -> None:
        super().__init__(comm.rank, comm.size)
        self.comm = comm
        self._name, self._desc = name, "undefined"
        self._waiter = Waiter(f"collx futures of {name}")
        self.options = Options(timeout)

    @classmethod
    def join(cls, place: Any, options: Any) -> CollxGroup:
        """What torch calls for each group, on its members."""
        timeout = place.timeout
        comm = collx.from_store(
            place.store, place.group_rank, place.group_size, timeout.total_seconds(), label=f"group {place.group_id}"
        )
        return cls(comm, place.group_id, timeout)

    # -- running calls -------------------------------------------------------------------------------

    def _run(self, opts: Any, result: Sequence[Tensor], call: Callable[..., Any], finish: Finish | None = None) -> Any:
        """`call` takes async_op= and timeout=."""
        limit = _seconds(opts.timeout)
        if not opts.asyncOp:
            call(async_op=False, timeout=limit)
            if finish is not None:
                finish()
            return CollxWork((), result)
        return CollxWork((call(async_op=True, timeout=limit),), result, finish, self._waiter)

    def _together(self, works: Sequence[CollxWork], result: Sequence[Any]) -> CollxWork:
        return CollxWork(_Each(works), result, None, self._waiter)

    # -- collectives ---------------------------------------------------------------------------------

    def allreduce(self, tensors: Any, opts: Any = None) -> CollxWork:
        (tensor,) = tensors
        opts = opts or c10d.AllreduceOptions()
        here, finish = _landing(tensor)
        x, op = _reduction(here if finish is None else tensor, opts.reduceOp)
        comm = self.comm
        return self._run(opts, tensors, lambda **how: comm.all_reduce(x, op, out=here, **how), finish)

    def allreduce_coalesced(self, tensors: Any, opts: Any = None) -> CollxWork:
        return self._together([self.allreduce([tensor], opts) for tensor in tensors], tensors)

    def broadcast(self, tensors: Any, opts: Any = None) -> CollxWork:
        (tensor,) = tensors
        opts = opts or c10d.BroadcastOptions()
        here, finish = _landing(tensor, filled=opts.rootRank == self.comm.rank)
        root, comm = opts.rootRank, self.comm
        return self._run(opts, tensors, lambda **how: comm.broadcast(here, root, **how), finish)

    def reduce(self, tensors: Any, opts: Any = None) -> CollxWork:
        (tensor,) = tensors
        opts = opts or c10d.ReduceOptions()
        root, comm = opts.rootRank, self.comm
        here, finish = _landing(tensor)
        x, op = _reduction(tensor, opts.reduceOp)
        if root != comm.rank:
            finish = None
        return self._run(opts, tensors, lambda **how: comm.reduce(x, op, root, out=here, **how), finish)

    def allgather(self, output_tensors: Any, input_tensors: Any, opts: Any = None) -> CollxWork:
        (outputs,), (tensor,) = output_tensors, input_tensors
        opts = opts or c10d.AllgatherOptions()
        flat = torch.empty((len(outputs), *tensor.shape), dtype=tensor.dtype, device=tensor.device)
        x, comm = tensor.reshape(1, *tensor.shape), self.comm
        return self._run(opts, outputs, lambda **how: comm.all_gather(x, out=flat, **how), _spread(flat, outputs))

    def allgather_coalesced(self, output_lists: Any, input_list: Any, opts: Any = None) -> CollxWork:
        works = [
            self.allgather([[outputs[number] for outputs in output_lists]], [tensor], opts)
            for number, tensor in enumerate(input_list)
        ]
        return self._together(works, [tensor for outputs in output_lists for tensor in outputs])

    def all_gather_single(self, output: Tensor, input: Tensor, opts: Any = None) -> CollxWork:
        opts = opts or c10d.AllgatherOptions()
        here, finish = _landing(output, filled=False)
        x, out, comm = input.reshape(-1), here.view(-1), self.comm
        return self._run(opts, [output], lambda **how: comm.all_gather(x, out=out, **how), finish)

    _allgather_base = all_gather_single

    def all_gather_single_coalesced(self, outputs: Any, inputs: Any, opts: Any = None) -> CollxWork:
        pairs = zip(outputs, inputs, strict=True)
        return self._together([self.all_gather_single(output, x, opts) for output, x in pairs], outputs)

    allgather_into_tensor_coalesced = all_gather_single_coalesced

    def gather(self, output_tensors: Any, input_tensors: Any, opts: Any = None) -> CollxWork:
        (tensor,) = input_tensors
        opts = opts or c10d.GatherOptions()
        root, comm, finish, flat = opts.rootRank, self.comm, None, None
        outputs = output_tensors[0] if output_tensors else []
        if root == comm.rank:
            flat = torch.empty((comm.size, *tensor.shape), dtype=tensor.dtype, device=tensor.device)
            finish = _spread(flat, outputs)
        x = tensor.reshape(1, *tensor.shape)
        return self._run(opts, outputs, lambda **how: comm.gather(x, root, out=flat, **how), finish)

    def scatter(self, output_tensors: Any, input_tensors: Any, opts: Any = None) -> CollxWork:
        (tensor,) = output_tensors
        opts = opts or c10d.ScatterOptions()
        root, comm = opts.rootRank, self.comm
        here, finish = _landing(tensor, filled=False)
        x = torch.cat([each.reshape(-1) for each in input_tensors[0]]) if root == comm.rank else None
        out = here.view(-1)
        return self._run(opts, [tensor], lambda **how: comm.scatter(x, root, out=out, **how), finish)

    def reduce_scatter(self, output_tensors: Any, input_tensors: Any, opts: Any = None) -> CollxWork:
        (output,), (inputs,) = output_tensors, input_tensors
        opts = opts or c10d.ReduceScatterOptions()
        here, finish = _landing(output, filled=False)
        x, op = _reduction(torch.cat([each.reshape(-1) for each in inputs]), opts.reduceOp)
        counts = [each.numel() for each in inputs]
        out, comm = here.view(-1), self.comm
        return self._run(
            opts, [output], lambda **how: comm.reduce_scatter(x, op, counts=counts, out=out, **how), finish
        )

    def reduce_scatter_single(self, output: Tensor, input: Tensor, opts: Any = None) -> CollxWork:
        opts = opts or c10d.ReduceScatterOptions()
        here, finish = _landing(output, filled=False)
        x, op = _reduction(input.reshape(-1), opts.reduceOp)
        out, comm = here.view(-1), self.comm
        return self._run(opts, [output], lambda **how: comm.reduce_scatter(x, op, out=out, **how), finish)

    _reduce_scatter_base = reduce_scatter_single

    def reduce_scatter_single_coalesced(self, outputs: Any, inputs: Any, opts: Any = None) -> CollxWork:
        pairs = zip(outputs, inputs, strict=True)
        return self._together([self.reduce_scatter_single(output, x, opts) for output, x in pairs], outputs)

    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced

    def all_to_all_single(
        self, output: Tensor, input: Tensor, output_sizes: Any, input_sizes: Any, opts: Any = None
    ) -> CollxWork:
        opts = opts or c10d.AllToAllOptions()
        here, finish = _landing(output, filled=False)
        comm = self.comm
        if not output_sizes and not input_sizes:
            x, out = input.reshape(-1), here.view(-1)
            return self._run(opts, [output], lambda **how: comm.all_to_all(x, out=out, **how), finish)
        sent = list(input_sizes) or _equal(input.shape[0], comm.size)
        coming = list(output_sizes) or _equal(output.shape[0], comm.size)
        return self._run(
            opts,
            [output],
            lambda **how: comm.all_to_all(input, send_counts=sent, recv_counts=coming, out=here, **how),
            finish,
        )

    alltoall_base = all_to_all_single

    def alltoall(self, outputs: Any, inputs: Any, opts: Any = None) -> CollxWork:
        opts = opts or c10d.AllToAllOptions()
        x = torch.cat([each.reshape(-1) for each in inputs])
        sent, coming = [each.numel() for each in inputs], [each.numel() for each in outputs]
        flat, comm = torch.empty(sum(coming), dtype=x.dtype, device=x.device), self.comm
        return self._run(
            opts,
            outputs,
            lambda **how: comm.all_to_all(x, send_counts=sent, recv_counts=coming, out=flat, **how),
            _spread_parts(flat, coming, outputs),
        )

    def barrier(self, opts: Any = None) -> CollxWork:
        opts = opts or c10d.BarrierOptions()
        if not opts.asyncOp:
            self.comm.barrier(_seconds(opts.timeout))
            return CollxWork(())
        x, comm = torch.zeros(1, dtype=torch.uint8), self.comm
        return self._run(opts, [], lambda **how: comm.all_reduce(x, out=x, **how))

    # -- messages ------------------------------------------------------------------------------------

    def send(self, tensors: Any, to: int, tag: int) -> CollxWork:
        (tensor,) = tensors
        return CollxWork((self.comm.send(tensor, to, tag, async_op=True),), tensors, None, self._waiter)

    def recv(self, tensors: Any, source: int, tag: int) -> CollxWork:
        (tensor,) = tensors
        here, finish = _landing(tensor, filled=False)
        return CollxWork((self.comm.recv(here, source, tag, async_op=True),), tensors, finish, self._waiter)

    def recv_anysource(self, tensors: Any, tag: int) -> CollxWork:
        raise NotImplementedError("recv_anysource")

    # -- what torch asks of a group ------------------------------------------------------------------

    @property
    def group_name(self) -> str:
        return self._name

    @property
    def group_desc(self) -> str:
        return self._desc

    def getGroupName(self) -> str:
        return self._name

    def getGroupDesc(self) -> str:
        return self._desc

    def _set_group_name(self, name: str) -> None:
        self._name = name

    setGroupName = _set_group_name

    def _set_group_desc(self, desc: str) -> None:
        self._desc = desc

    setGroupDesc = _set_group_desc

    def getBackendName(self) -> str:
        return "collx"

    def name(self) -> str:
        return "collx"

    _get_backend_name = name

    @property
    def _device_types(self) -> list[torch.device]:
        devices = [torch.device("cpu")]
        return [*devices, torch.device("cuda")] if torch.cuda.is_available() else devices

    supports_splitting = supports_coalescing = supports_shrinking = supports_time_estimate = False

    def _get_backend(self, device: torch.device) -> CollxGroup:
        return self

    def _set_default_timeout(self, timeout: datetime.timedelta) -> None:
        self.comm.timeout = timeout.total_seconds()
        self.options._timeout = timeout

    set_timeout = _set_default_timeout

    def _set_sequence_number_for_group(self) -> None: ...

    def shutdown(self) -> None:
        self._waiter.close()
        self.comm.close()

    def abort(self) -> None:
        self.comm.revoke()
        self.shutdown()


class Options:
    """What torch reads of a backend's options."""

    def __init__(self, timeout: datetime.timedelta) -> None:
        self._timeout = timeout


class _Each:
    """The collx works of several torch works, and their finishing."""

    def __init__(self, works: Sequence[CollxWork]) -> None:
        self._works = [_AsCollx(work) for work in works]

    def __iter__(self) -> Any:
        return iter(self._works)


class _AsCollx:
    def __init__(self, work: CollxWork) -> None:
        self._work = work

    def wait(self, seconds: float | None) -> None:
        self._work.wait(datetime.timedelta(seconds=seconds or 0))

    def done(self) -> bool:
        return self._work.is_completed()


def _seconds(timeout: datetime.timedelta) -> float | None:
    return None if timeout <= UNSET else timeout.total_seconds()


def _landing(tensor: Tensor, filled: bool = True) -> tuple[Tensor, Finish | None]:
    """Where a result for `tensor` can be written, with what `tensor` has where `filled`, and what brings it there."""
    if tensor.is_contiguous():
        return tensor, None
    here = tensor.contiguous() if filled else torch.empty_like(tensor, memory_format=torch.contiguous_format)
    return here, lambda: tensor.detach().copy_(here)


def _spread(flat: Tensor, outputs: Sequence[Tensor]) -> Finish:
    def finish() -> None:
        for output, part in zip(outputs, flat, strict=True):
            output.detach().copy_(part.view(output.shape))

    return finish


def _spread_parts(flat: Tensor, counts: Sequence[int], outputs: Sequence[Tensor]) -> Finish:
    def finish() -> None:
        for output, part in zip(outputs, flat.split(list(counts)), strict=True):
            output.detach().copy_(part.view(output.shape))

    return finish


def _equal(rows: int, size: int) -> list[int]:
    if rows % size:
        raise ValueError(f"{rows} rows cannot be shared equally among {size} ranks")
    return [rows // size] * size


def _reduction(x: Tensor, op: Any) -> tuple[Tensor, str]:
    kind = op if isinstance(op, int) else int(op.op)
    if kind < len(OPS):
        return x, OPS[kind]
    if op == dist.ReduceOp.PREMUL_SUM:
        return x * op.__getstate__()[1], "sum"
    raise NotImplementedError(f"collx has no reduction {op}")
