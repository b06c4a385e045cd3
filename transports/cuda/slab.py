"""The memory of its own that a rank brings to a communicator on GPUs: what peers signal in, and what data goes through
that cannot be shared where it lies."""

from __future__ import annotations

from typing import NamedTuple

from collx.transports.cuda.driver import Driver

GRAIN = 512  # bytes; what parts begin at multiples of
ROOM = 32 << 20  # bytes of a plan's workspace
STAGE = 8 << 20  # bytes of a segment's input, and of its output


class Layout(NamedTuple):
    """What a slab has, in this order: `words` bytes of signals, `room` bytes of workspace, and two stages with `stage`
    bytes for an input and for an output, so that one is filled while the other is read. The same on all ranks."""

    words: int
    room: int = ROOM
    stage: int = STAGE

    @property
    def workspace(self) -> int:
        return -(-self.words // GRAIN) * GRAIN

    @property
    def nbytes(self) -> int:
        return self.workspace + self.room + 4 * self.stage

    def staged(self, side: int) -> int:
        return self.workspace + self.room + 2 * side * self.stage


class Slabs:
    """The slabs of all ranks, as they are mapped here. This rank's own is a raw allocation, set to zero."""

    def __init__(self, driver: Driver, layout: Layout) -> None:
        self._driver, self.layout = driver, layout
        self.own = driver.allocate(layout.nbytes)
        self.begins: tuple[int, ...] = ()  # by rank, once they are mapped
        self.room, self.stage_bytes = layout.room, layout.stage

    def workspace(self, rank: int) -> int:
        return self.begins[rank] + self.layout.workspace

    def stage(self, rank: int, side: int) -> tuple[int, int]:
        """Where a segment's input and output lie."""
        begin = self.begins[rank] + self.layout.staged(side)
        return begin, begin + self.layout.stage

    def free(self) -> None:
        """Give this rank's back: when no peer has it mapped any more. Idempotent."""
        if self.own:
            self._driver.free(self.own)
        self.own, self.begins = 0, ()
