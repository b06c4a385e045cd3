"""How the calls of a group are packed: which go together, in what memory, and what is copied from where to where.

All of it follows from what all ranks know alike of the calls, so that every rank packs alike; a hash of all of them
stands in each packed call's request, so that ranks whose groups differ find out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict

import numpy as np

from collx import _core, calls
from collx.agreement import counts_text
from collx.buffers import Buffer, address_of
from collx.checks import FOREVER
from collx.collectives import COLLECTIVES
from collx.engine import Pending
from collx.known import Recall
from collx.memory import SharedArray
from collx.request import Chosen, Request
from collx.types import Array
from collx.work import Work

SMALL = 16 << 10  # bytes of a call's buffer; larger ones gain nothing by being packed
SMALL_FAR = 64 << 10  # where ranks talk over a network
MOST = 1 << 20  # bytes of a packed call's buffer
MOST_FAR = 4 << 20
KEPT = 16 << 20  # bytes of fusion buffers that a communicator keeps
_LEAST = 64 << 10
_PLACES = 8  # for a packed call that are known
_COMPOSITIONS = 64  # known at a time
_PARTS = 4096
_BYTE = np.dtype(np.uint8)


class _How(TypedDict):
    algorithm: Chosen | None


class Part(_core.Extent):
    """A call of a group as all ranks know it, and how its own memory is laid out on this one: bytes of each block of
    its input and of its output. `alike` is the same for calls that may be packed together; None: by itself."""

    def __init__(self, request: Request, rank: int, size: int, device: int | None) -> None:
        self.request, self.device = request, device
        spec, itemsize = COLLECTIVES[request.collective], request.dtype.itemsize
        where = (rank, size, request.root, size if spec.per_rank else 1)
        sizes = [count * itemsize for count in (*request.elements, *request.given)]
        self.given = [sizes[block] for block in spec.before(*where)]
        self.taken = [sizes[block % len(request.elements)] for block in spec.after(*where)]
        read, written = sum(self.given), sum(self.taken)
        if request.collective == "exscan":
            written = read  # rank 0 writes it itself
        if device is not None:  # a stream keeps them apart
            read = written = 0
        super().__init__(read, written)
        self.text = counts_text(request.elements) if request.agreed else "own counts"
        self.alike = self._alike()
        if self.alike is not None and not spec.reduces:
            self.text += f" {request.dtype}"

    def _alike(self) -> tuple[Any, ...] | None:
        request = self.request
        spec = COLLECTIVES[request.collective]
        by_itself = request.custom or not request.agreed or request.called or self.device is not None
        if by_itself or spec.result == "heard" or not isinstance(request.algorithm, str | None):
            return None
        kind = (request.dtype, request.op) if spec.reduces else (_BYTE, None)
        return (request.collective, request.root, request.algorithm, *kind)

    def agreed(self) -> tuple[object, ...]:
        """What all ranks must pass alike."""
        request = self.request
        op = request.op and (request.op.name, request.op.commutative)
        algorithm = request.algorithm if isinstance(request.algorithm, str | None) else "own"
        return (request.collective, self.text, str(request.dtype), request.root, op, algorithm)


@dataclass(frozen=True, slots=True)
class Copies:
    """What is copied between the calls' own memory and a packed call's: by call its number in the group and the offset
    in its memory, the offset in the buffer, and bytes."""

    numbers: Array
    there: Array
    here: Array
    lengths: Array

    def make(self, notes: _core.Notes, buffer: int, *, inwards: bool) -> None:
        notes.copy(buffer, self.numbers, self.there, self.here, self.lengths, inwards)


@dataclass(frozen=True, slots=True)
class Packed:
    """Calls made as one: its request, where in a buffer of `nbytes` its input and output lie, what is copied there
    before and from there after."""

    request: Request
    source: int
    target: int
    nbytes: int
    gather: Copies
    scatter: Copies
    _bound: dict[int, Recall] = field(default_factory=dict)  # by a buffer's address

    def recall(self, bind: Callable[[calls.Call], Recall], buffer: int) -> Recall:
        """The short way to run it there."""
        found = self._bound.get(buffer)
        if found is None:
            if len(self._bound) >= _PLACES:
                self._bound.clear()
            found = self._bound[buffer] = bind(self.call(buffer))
        return found

    def call(self, buffer: int) -> calls.Call:
        return calls.Call(self.request, buffer + self.source, buffer + self.target, None, ())


Step = int | Packed  # the number of a call that goes by itself; or several


def steps_of(parts: Sequence[Part], rank: int, size: int, far: bool) -> list[Step]:
    """The calls to make for a group of these, in order, each packed one where its first part stood."""
    small, most = (SMALL_FAR, MOST_FAR) if far else (SMALL, MOST)
    groups: list[list[int]] = []
    filling: dict[object, tuple[list[int], int]] = {}
    for number, part in enumerate(parts):
        nbytes = part.request.nbytes
        members, filled = filling.get(part.alike, ([], most))
        if size == 1 or part.alike is None or nbytes > small:
            groups.append([number])
        elif filled + nbytes > most:
            filling[part.alike] = ([number], nbytes)
            groups.append(filling[part.alike][0])
        else:
            members.append(number)
            filling[part.alike] = (members, filled + nbytes)
    digest = hashlib.blake2b(repr([part.agreed() for part in parts]).encode(), digest_size=4).hexdigest()
    return [
        members[0] if len(members) == 1 else _packed(members, [parts[m] for m in members], digest, rank, size)
        for members in groups
    ]


def _packed(members: Sequence[int], parts: Sequence[Part], digest: str, rank: int, size: int) -> Packed:
    first = parts[0].request
    spec = COLLECTIVES[first.collective]
    dtype = first.dtype if spec.reduces else _BYTE
    each = [part.request.elements for part in parts]
    width = 1 if spec.reduces else 0
    elements = [
        sum(counts[block] * (width or part.request.dtype.itemsize) for counts, part in zip(each, parts, strict=True))
        for block in range(len(each[0]))
    ]
    call, nbytes, base = _laid_out(first, elements, dtype, rank, size)
    text = f"{len(parts)} calls ({digest}) of {', '.join(part.text for part in parts)}"
    request = call.request._replace(together=text)
    source = call.source - base if parts[0].given else 0
    target = call.target - base if parts[0].taken else 0
    gather = _copies(members, [part.given for part in parts], source)
    scatter = _copies(members, [part.taken for part in parts], target)
    if first.collective == "broadcast":
        gather, scatter = (gather, _NONE) if rank == first.root else (_NONE, scatter)
    return Packed(request, source, target, nbytes, gather, scatter)


def _laid_out(
    first: Request, elements: list[int], dtype: np.dtype[Any], rank: int, size: int
) -> tuple[calls.Call, int, int]:
    """The packed call on a buffer of its own, in place where that can be; the buffer's bytes, and its address."""
    total, mine = sum(elements), sum(elements[:rank])
    kind, how = first.collective, _How(algorithm=first.algorithm)
    buffer = np.empty(2 * total if kind == "all_to_all" else total, dtype)
    own = buffer[mine : mine + elements[rank]] if len(elements) == size > 1 else buffer
    match kind:
        case "all_reduce" | "scan":
            call = calls.BUILDERS[kind](rank, size, buffer, first.op, out=buffer, **how)
        case "exscan":  # rank 0 gets no result from the others
            call = calls.exscan(rank, size, buffer, first.op or "sum", out=buffer if rank else None, **how)
        case "reduce":
            call = calls.reduce(rank, size, buffer, first.op or "sum", first.root, out=buffer, **how)
        case "broadcast":
            call = calls.broadcast(rank, size, buffer, first.root, **how)
        case "reduce_scatter":
            call = calls.reduce_scatter(rank, size, buffer, first.op or "sum", counts=elements, out=own, **how)
        case "all_gather":
            call = calls.all_gather(rank, size, own, counts=elements, out=buffer, **how)
        case "gather":
            call = calls.gather(rank, size, own, first.root, counts=elements, out=buffer, **how)
        case "scatter":
            given = buffer if rank == first.root else None
            call = calls.scatter(rank, size, given, first.root, counts=elements, out=own, **how)
        case _:
            call = calls.all_to_all(rank, size, buffer[:total], out=buffer[total:], **how)
    return call, buffer.nbytes, address_of(buffer)


def _copies(members: Sequence[int], blocks: Sequence[Sequence[int]], begin: int) -> Copies:
    """Block by block, the parts' one behind the other."""
    offsets = [0] * len(members)
    rows = []
    for block in range(len(blocks[0])):
        for at, number in enumerate(members):
            length = blocks[at][block]
            rows.append((number, offsets[at], begin, length))
            offsets[at] += length
            begin += length
    return Copies(*np.array([row for row in rows if row[3]], np.uint64).reshape(-1, 4).T.copy())


_NONE = _copies([], [[]], 0)


class Notebook:
    """Where calls are noted, and what is said of the end of those that are asynchronous."""

    def __init__(self) -> None:
        self.notes = _core.Notes()
        self.end: Pending | None = None

    def begin(
        self, collective: str, part: Part, source: int, target: int, timeout: float, result: Any, keep: Any
    ) -> Work:
        if timeout != FOREVER:
            self.notes.within(timeout)
        self.notes.note(part, source, target, keep, result)
        return Work(self.end, result)


class Fusion:
    """What a communicator keeps from one group to the next: what it found out of calls and of groups alike, and
    buffers that no group is using. `known` notes calls that are known from groups before."""

    def __init__(self, rank: int, size: int, far: bool, allocate: Callable[[int], Array]) -> None:
        self._rank, self._size, self._far, self._allocate = rank, size, far, allocate
        self._parts: dict[tuple[Request, int | None], Part] = {}
        self._steps: dict[tuple[Part, ...], list[Step]] = {}
        self._free: dict[int, Array] = {}  # by address; several threads and signal handlers change it, in single steps
        self.book = Notebook()
        self.known = _core.Known(self.book.notes, None, self.book.begin, SharedArray, FOREVER)

    def part(self, request: Request, device: int | None) -> Part:
        found = self._parts.get((request, device))
        if found is None:
            if len(self._parts) >= _PARTS:
                self._parts.clear()
            found = self._parts[request, device] = Part(request, self._rank, self._size, device)
        return found

    def steps(self, parts: tuple[Part, ...]) -> list[Step]:
        found = self._steps.get(parts)
        if found is None:
            if len(self._steps) >= _COMPOSITIONS:
                del self._steps[next(iter(self._steps))]
            found = self._steps[parts] = steps_of(parts, self._rank, self._size, self._far)
        return found

    def borrow(self, nbytes: int) -> Array:
        """A buffer of at least `nbytes`. Raises MemoryError."""
        wanted = max(_LEAST, 1 << (nbytes - 1).bit_length())
        for address, buffer in reversed(list(self._free.items())):
            if buffer.nbytes == wanted and self._free.pop(address, None) is not None:
                return buffer
        return self._allocate(wanted)

    def give_back(self, buffer: Array) -> None:
        self._free[address_of(buffer)] = buffer
        while sum(kept.nbytes for kept in list(self._free.values())) > KEPT:
            self._free.pop(next(iter(list(self._free))), None)


class Noting(Protocol):
    """What a communicator hands its calls to while the block of a group is run."""

    def add(self, call: calls.Call, async_op: bool, timeout: float | None, given: tuple[Any, ...]) -> Any:
        """Note a call; what its method is to return. `given` are its arguments, where it may be known by them."""
        ...

    def message(
        self, begin: Callable[..., Any], memory: Buffer, result: Any, async_op: bool, timeout: float | None
    ) -> Any:
        """Note a message of `memory`, which `begin(timeout=...)` starts; the same. `result` is what it is received
        into, None for one that is sent."""
        ...
