"""Memory of one process in another: how its owner describes it, and the mappings of those who have opened it."""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from collx.errors import TransportError
from collx.transports.cuda.driver import CudaError, Driver

_LAYOUT = struct.Struct("<Q Q Q Q Q 64s 160s")
SHARED_BYTES = _LAYOUT.size
MOST = 64  # mappings of one owner that nothing uses: each keeps the memory, even if its owner has freed it
KNOWN = 1024  # allocations of this process whose handles are kept


class Shared(NamedTuple):
    """Memory as others find it: `nbytes` bytes from `offset` on of an allocation of `room` bytes, as its owner
    numbers them. `why` says why nobody else can map it."""

    base: int = 0
    generation: int = 0
    room: int = 0
    offset: int = 0
    nbytes: int = 0
    handle: bytes = bytes(64)
    why: str = ""

    @property
    def address(self) -> int:
        """Where it lies for its owner; 0 for no bytes at all."""
        return self.base + self.offset

    def pack(self) -> bytes:
        """SHARED_BYTES bytes."""
        return _LAYOUT.pack(*self[:-1], self.why.encode()[: _LAYOUT.size - 104])

    @staticmethod
    def unpack(record: bytes) -> Shared:
        base, generation, room, offset, nbytes, handle, why = _LAYOUT.unpack(record)
        return Shared(base, generation, room, offset, nbytes, handle, why.rstrip(b"\0").decode(errors="replace"))


class Exports:
    """What this process has described. The driver itself says what can be shared: pools of virtual memory, async pools
    and managed memory look like any other memory until a handle is asked for."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._handles: OrderedDict[int, bytes | str] = OrderedDict()  # or why there is none, by generation
        self._lock = threading.Lock()

    def describe(self, address: int, nbytes: int) -> Shared:
        if nbytes == 0:
            return Shared()
        try:
            base, room, generation = self._driver.allocation(address)
        except CudaError as error:
            return Shared(
                base=address, nbytes=nbytes, why=f"its memory has no allocation that CUDA IPC knows ({error.name})"
            )
        handle = self._handle(base, generation)
        if isinstance(handle, str):
            return Shared(base, generation, room, address - base, nbytes, why=handle)
        if address + nbytes > base + room:
            return Shared(
                base, generation, room, address - base, nbytes, why="it lies in several allocations (virtual memory)"
            )
        return Shared(base, generation, room, address - base, nbytes, handle)

    def _handle(self, base: int, generation: int) -> bytes | str:
        with self._lock:
            if generation not in self._handles:
                try:
                    self._handles[generation] = self._driver.export(base)
                except CudaError as error:
                    self._handles[generation] = (
                        "its memory is from an async pool, managed or virtual (expandable segments); CUDA IPC cannot"
                        f" share that ({error.name})"
                    )
                if len(self._handles) > KNOWN:
                    self._handles.popitem(last=False)
            return self._handles[generation]


@dataclass(slots=True, eq=False)
class _Mapping:
    shared: Shared
    owner: int
    ordinal: int
    address: int
    users: int = 0


class Held:
    """Mappings that something uses; dropped, it lets go of them."""

    def __init__(self, mappings: Mappings) -> None:
        self._mappings = mappings
        self._used: list[_Mapping] = []

    def address(self, owner: int, shared: Shared, ordinal: int) -> int:
        """Where memory of the process `owner` lies here, mapped for the device in use, which is `ordinal`. Raises
        TransportError where it cannot be mapped."""
        if shared.why:
            raise TransportError(f"memory of another process cannot be mapped: {shared.why}")
        if shared.offset + shared.nbytes > shared.room:
            raise TransportError(
                f"a rank described {shared.nbytes} bytes at offset {shared.offset} of an allocation of {shared.room}"
            )
        mapping = self._mappings.taken(owner, shared, ordinal)
        self._used.append(mapping)
        return mapping.address + shared.offset

    def release(self) -> None:
        """Idempotent."""
        self._mappings.let_go(self._used)

    def __del__(self) -> None:
        self.release()


@dataclass(eq=False)
class Mappings:
    """This process's mappings of other processes' memory, by owner, base and generation, for all communicators: the
    driver counts how often a handle is opened, and so each is opened once.

    A base that comes back with another generation was freed in between, and so was what it overlaps. Its owner has done
    that after all calls that read it, so nothing here uses the old mapping any more, which must be closed first: the
    new handle may be the same bytes as the old one, and would then lead to the old memory.
    """

    driver: Driver
    most: int = MOST
    _open: OrderedDict[tuple[int, int, int, int], _Mapping] = field(default_factory=OrderedDict)  # the latest used last
    _members: dict[int, int] = field(default_factory=dict)  # by owner, how many communicators have it
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __len__(self) -> int:
        return len(self._open)

    def join(self, owner: int) -> None:
        """A communicator with that process has begun; `leave` ends it."""
        with self._lock:
            self._members[owner] = self._members.get(owner, 0) + 1

    def leave(self, owner: int) -> None:
        """After the last communicator nothing of the process stays mapped."""
        with self._lock:
            self._members[owner] -= 1
            if not self._members[owner]:
                del self._members[owner]
                with ExitStack() as stack:  # all are closed, also where one cannot be
                    for mapping in [each for each in self._open.values() if each.owner == owner]:
                        stack.callback(self._close, mapping)

    def taken(self, owner: int, shared: Shared, ordinal: int) -> _Mapping:
        """The mapping of that allocation, opened if need be, with one user more."""
        key = owner, shared.base, shared.generation, ordinal
        with self._lock:
            mapping = self._open.get(key)
            if mapping is None:
                for old in [each for each in self._open.values() if _replaced(each, owner, shared)]:
                    self._close(old)
                self._thin_out(owner, self.most)
                mapping = self._open[key] = _Mapping(shared, owner, ordinal, self._opened(owner, shared))
            elif mapping.shared.room != shared.room:
                raise TransportError("another rank described one allocation with two sizes")
            self._open.move_to_end(key)
            mapping.users += 1
            return mapping

    def let_go(self, used: list[_Mapping]) -> None:
        with self._lock:
            while used:
                used.pop().users -= 1

    def _opened(self, owner: int, shared: Shared) -> int:
        try:
            try:
                address = self.driver.open(shared.handle)
            except CudaError as error:
                if error.name != "CUDA_ERROR_ALREADY_MAPPED":
                    raise
                # Drivers map whole blocks, so what is in the way may be a freed one that other memory was mapped by.
                self._thin_out(owner, 1)
                address = self.driver.open(shared.handle)
        except CudaError as error:
            raise TransportError(
                f"memory of another rank cannot be mapped: {error}; has it been freed, and do the GPUs reach each other"
                " (nvidia-smi topo -p2p r)?"
            ) from None
        with suppress(CudaError):  # where the driver does not say how much it has mapped
            found = self.driver.allocation(address)
            if found.base + found.nbytes < address + shared.room:
                self.driver.close(address)
                raise TransportError(f"a rank described {shared.room} bytes of memory that has {found.nbytes}")
        return address

    def _thin_out(self, owner: int, most: int) -> None:
        """Close what was used longest ago, so that with one more there are at most so many that nobody uses."""
        idle = [mapping for mapping in self._open.values() if mapping.owner == owner and not mapping.users]
        for mapping in idle[: max(len(idle) - most + 1, 0)]:
            self._close(mapping)

    def _close(self, mapping: _Mapping) -> None:
        shared = mapping.shared
        del self._open[mapping.owner, shared.base, shared.generation, mapping.ordinal]
        with self.driver.on(mapping.ordinal):  # who leaves may be another one
            self.driver.close(mapping.address)


def _replaced(mapping: _Mapping, owner: int, by: Shared) -> bool:
    """Whether the allocation `by` of that process lies where the mapped one was."""
    old = mapping.shared
    return (
        mapping.owner == owner
        and old.generation != by.generation
        and (old.base < by.base + by.room and by.base < old.base + old.room)
    )


_mappings: Mappings | None = None
_lock = threading.Lock()


def mappings(driver: Driver) -> Mappings:
    """Those of this process, by its driver."""
    global _mappings
    with _lock:
        if _mappings is None or _mappings.driver is not driver:
            _mappings = Mappings(driver)
        return _mappings
