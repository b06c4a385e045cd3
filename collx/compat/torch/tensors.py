"""Tensors as collx takes them: contiguous, and of one piece where torch has a list of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from collx.compat.torch.work import Finish

KEPT = 64 << 20  # bytes, at most, that a group keeps for lists
OPS = ("sum", "avg", "prod", "min", "max", "band", "bor", "bxor")  # in the order of torch's RedOpType


def only(tensors: Sequence[Any], name: str) -> Any:
    """torch's lists are of one tensor, or list, per GPU of a process, of which there is one."""
    if len(tensors) != 1:
        raise ValueError(f"{name} must be of one tensor per process, but has {len(tensors)}")
    return tensors[0]


def one_each(tensors: Sequence[Any], size: int, name: str, alike: bool = False) -> Sequence[Any]:
    """A list for `size` ranks. Raises ValueError where it is for more or fewer, or its sizes differ but must be
    `alike`."""
    if len(tensors) != size:
        raise ValueError(f"{name} has {len(tensors)} tensors, but the group has {size} ranks")
    counts = [tensor.numel() for tensor in tensors]
    if alike and len(set(counts)) > 1:
        raise ValueError(f"{name} has tensors of {counts} elements, but all must have as many")
    return tensors


def fits(tensors: Sequence[Any], rank: int, own: Any, name: str) -> None:
    """Raise ValueError where this rank's tensor in a list is not for as many elements as it gives or gets itself."""
    here, there = own.numel(), tensors[rank].numel()
    if here != there:
        raise ValueError(f"{name}[{rank}] has {there} elements, but this rank's own tensor {here}")


def landing(tensor: Any, filled: bool) -> tuple[Any, Finish | None]:
    """Where a result for `tensor` can be written, with what `tensor` holds where `filled`, and what brings it there."""
    if tensor.layout != torch.strided:
        raise NotImplementedError(f"collx moves dense tensors, not {tensor.layout}; all_reduce sums sparse COO ones")
    if tensor.is_contiguous():
        return tensor, None
    here = torch.empty_like(tensor, memory_format=torch.contiguous_format)
    if filled:
        here.copy_(tensor)
    return here, lambda: tensor.detach().copy_(here)


def flat(tensor: Any) -> Any:
    return tensor.detach().reshape(-1)


def joined(tensors: Sequence[Any]) -> Any:
    """One flat tensor of all."""
    return torch.cat([flat(tensor) for tensor in tensors])


class Spread:
    """Takes what goes to the tensors of lists, in memory that is kept for the next call: new memory costs as much as
    the call, as the kernel clears each of its pages."""

    def __init__(self) -> None:
        self._free: list[Any] = []

    def over(self, tensors: Sequence[Any], kind: Any) -> tuple[Any, Finish]:
        """A flat tensor, of the dtype and device of `kind`, for what goes to `tensors`, and what brings it there."""
        counts = [tensor.numel() for tensor in tensors]
        memory, whole = self._take(sum(counts), kind)

        def spread() -> None:
            for tensor, part in zip(tensors, whole.split(counts), strict=True):
                tensor.detach().copy_(part.view(tensor.shape))
            if memory is not None and memory.numel() <= KEPT:
                self._free[:] = [memory]

        return whole, spread

    def _take(self, count: int, kind: Any) -> tuple[Any, Any]:
        if kind.device.type != "cpu":  # there torch keeps memory itself, by streams
            return None, torch.empty(count, dtype=kind.dtype, device=kind.device)
        nbytes = count * kind.element_size()
        try:
            memory = self._free.pop()
        except IndexError:
            memory = None
        if memory is None or memory.numel() < nbytes:
            memory = torch.empty(nbytes, dtype=torch.uint8, device="cpu")
        return memory, memory[:nbytes].view(kind.dtype)


def parts(tensors: Sequence[Any]) -> list[int] | None:
    """How many elements each has; None where all have as many."""
    counts = [tensor.numel() for tensor in tensors]
    return None if len(set(counts)) == 1 else counts


def shares(given: Sequence[int], tensor: Any, size: int, name: str) -> list[int]:
    """How many elements of `tensor` are for or from each rank: as many rows as given, or equally many. Raises
    ValueError where its rows are not as many."""
    rows = tensor.shape[0]
    if not given:
        if rows % size:
            raise ValueError(f"{name} has {rows} rows, which {size} ranks cannot share equally")
        given = [rows // size] * size
    elif len(given) != size or sum(given) != rows:
        told = f"{name}_split_sizes is {list(given)}, but {name} has {rows} rows and the group {size} ranks"
        raise ValueError(told)
    row = tensor.numel() // rows if rows else 0
    return [count * row for count in given]


def reduction(x: Any, op: Any) -> tuple[Any, str]:
    """What to reduce, and by which op of collx's, for torch's `op`."""
    kind = int(op.op)
    if kind < len(OPS):
        return x, OPS[kind]
    if op == dist.ReduceOp.PREMUL_SUM:
        return x.detach() * op.__getstate__()[1], "sum"
    raise NotImplementedError(f"collx has no reduction like torch's {op.op}")
