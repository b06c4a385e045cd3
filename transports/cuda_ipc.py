"""One rank's view of the GPU memory of all ranks of a communicator, by CUDA IPC. It moves nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from collx.errors import TransportError
from collx.transports.cuda.cards import Card
from collx.transports.cuda.driver import Driver
from collx.transports.cuda.handles import Exports, Held, Shared, mappings
from collx.transports.cuda.slab import Layout, Slabs


class CudaIpc:
    """Used with the rank's device in use. `cards` are those of all ranks, which have passed `check`."""

    def __init__(self, driver: Driver, rank: int, cards: Sequence[Card], layout: Layout) -> None:
        self.rank, self.cards = rank, tuple(cards)
        self._driver, self._mine = driver, cards[rank]
        self.slabs = Slabs(driver, layout)
        self._exports = Exports(driver)
        self._mappings = mappings(driver)
        self._others = {card.process for card in cards} - {self._mine.process}
        for process in self._others:
            self._mappings.join(process)
        self._kept: list[Held] = []
        self._held: Held | None = None
        self._closed = False

    def describe(self, address: int, nbytes: int) -> Shared:
        """How the other ranks find memory of this one."""
        return self._exports.describe(address, nbytes)

    def slab(self) -> Shared:
        """How the other ranks find this one's slab."""
        return self.describe(self.slabs.own, self.slabs.layout.nbytes)

    def map_slabs(self, described: Sequence[Shared]) -> str:
        """Map the slabs of all ranks; why this rank cannot, "" where it has."""
        with self.using() as held:
            for rank, shared in enumerate(described):
                if rank != self.rank and shared.nbytes != self.slabs.layout.nbytes:
                    return f"rank {rank}'s slab has {shared.nbytes} bytes, and here it has {self.slabs.layout.nbytes}"
            try:
                self.slabs.begins = tuple(self.address(rank, shared) for rank, shared in enumerate(described))
            except TransportError as error:
                return str(error)
            self.keep(held)
        return ""

    @contextmanager
    def using(self) -> Iterator[Held]:
        """In the block, `address` maps for what this yields, which keeps the mappings as long as it is there."""
        self._held, before = Held(self._mappings), self._held
        try:
            yield self._held
        finally:
            self._held = before

    def keep(self, held: Held) -> None:
        """Keep these mappings until the end."""
        self._kept.append(held)

    def address(self, rank: int, shared: Shared) -> int:
        """Where memory that `rank` has described lies here, 0 for no bytes. Raises TransportError where it cannot be
        mapped."""
        if not shared.nbytes:
            return 0
        owner = self.cards[rank].process
        if owner == self._mine.process:
            return shared.address
        assert self._held is not None, "mappings are for somebody: address() is called within using()"
        return self._held.address(owner, shared, self._mine.ordinal)

    def close(self, meet: Callable[[], None] | None) -> None:
        """Unmap all, `meet` the other ranks, who have then unmapped all, and free the slab. None where the others are
        not to be met any more. Idempotent. Everything that was queued must have ended."""
        if self._closed:
            return
        self._closed = True
        self.slabs.begins = ()
        for held in self._kept:
            held.release()
        self._kept.clear()
        with ExitStack() as stack:  # whatever fails, the others are met; the last one first
            stack.callback(self.slabs.free)
            if meet is not None:
                stack.callback(meet)
            for process in self._others:
                stack.callback(self._mappings.leave, process)
