"""What a sweep finds out: one point per size and algorithm, with a cell for each placement of the result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from collx.perf.measure import Timing
from collx.perf.options import NCCL_TYPES, Options


@dataclass(frozen=True, slots=True)
class Cell:
    """One placement's figures: bandwidths in GB/s (1e9 bytes per second); `wrong` is None when unchecked. `share` is of
    the copy roof, where all ranks share a GPU: the least that the call must move, by what a copy moves in that time."""

    timing: Timing
    algbw: float
    busbw: float
    wrong: int | None
    share: float | None = None

    @property
    def microseconds(self) -> float:
        return self.timing.mean * 1e6


@dataclass(frozen=True, slots=True)
class Point:
    """One size by one algorithm ("" is the selector's choice), or on GPUs by one sync mode. `nbytes` is the larger
    side's whole buffer, `count` the elements that the call is given per rank, as nccl-tests counts them."""

    nbytes: int
    count: int
    algorithm: str
    out_of_place: Cell | None
    in_place: Cell | None

    @property
    def cells(self) -> list[Cell]:
        return [cell for cell in (self.out_of_place, self.in_place) if cell is not None]

    @property
    def best(self) -> float:
        """The time that algorithms are compared by, in microseconds: out of place where that exists."""
        return self.cells[0].microseconds


@dataclass(frozen=True, slots=True)
class Gpus:
    """What a sweep on GPUs depends on: the ranks of each GPU, the sync modes that were asked for, and in words how
    calls are made, and why modes were left out. `roof` is what a copy by one process reads and writes in a second, in
    bytes, where all ranks share a GPU."""

    ranks: tuple[tuple[int, ...], ...]
    sync: tuple[str, ...]
    how: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    roof: float | None = None


@dataclass(slots=True)
class Sweep:
    """A finished sweep, or one under way, and what a reader needs to know of where it ran."""

    options: Options
    version: str
    host: dict[str, Any]
    devices: list[dict[str, Any]]
    links: list[list[str]]  # by rank and peer, what carries the messages between them
    started: str
    names: tuple[str, ...] = ("",)  # the columns: algorithms, or on GPUs sync modes
    gpus: Gpus | None = None
    points: list[Point] = field(default_factory=list)
    chosen: dict[int, str] = field(default_factory=dict)  # by size, by the selector, where algorithms were named

    @property
    def ranks(self) -> int:
        return len(self.devices)

    @property
    def roof(self) -> float | None:
        return None if self.gpus is None else self.gpus.roof

    @property
    def transports(self) -> list[str]:
        """All that carry messages between any two ranks."""
        apart = {link for rank, row in enumerate(self.links) for peer, link in enumerate(row) if peer != rank}
        return sorted(apart) or self.links[0][:1]

    @property
    def type(self) -> str:
        """The dtype by nccl-tests' name."""
        return NCCL_TYPES.get(self.options.dtype.name, self.options.dtype.name)

    @property
    def redop(self) -> str:
        return self.options.op if self.options.case.reduces else "none"

    @property
    def root(self) -> int:
        return self.options.root if self.options.case.rooted else -1

    @property
    def wrong(self) -> int:
        """Elements found wrong in all the sweep."""
        return sum(cell.wrong or 0 for point in self.points for cell in point.cells)

    @property
    def average_busbw(self) -> float:
        cells = [cell for point in self.points for cell in point.cells]
        return sum(cell.busbw for cell in cells) / max(len(cells), 1)
