"""Runs a plan's moves in Python, in the order of the list, on the memory at given addresses.

All receives are posted at the start, so no peer's send ever waits for this rank to come to it, and it
matters to nobody whether the transport buffers. What arrives too early for its place lands in an array of
its own. Every move runs once, on whole blocks: segments are for engines that gain by them.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field

import numpy as np

from collx.plan import Lane, Memory, Move, Plan, Space
from collx.reference.lanes import Lanes, Receipt, Sent, Stamp
from collx.reference.progress import Steps
from collx.reference.reduction import Combine, divided, fold
from collx.types import DTYPES, Array


def bytes_at(address: int, nbytes: int) -> Array:
    """The memory at `address` as an array of bytes; whoever owns it must outlive the array."""
    if not nbytes:
        return np.empty(0, np.uint8)
    return np.frombuffer(memoryview((ctypes.c_ubyte * nbytes).from_address(address)), np.uint8)


@dataclass(slots=True)
class PlanRun:
    """One run of `plan` from the input at address `source` to the output at `target`."""

    plan: Plan
    combine: Combine
    lanes: Lanes
    stamp: Stamp
    source: int
    target: int
    memory: dict[Space, Array] = field(init=False)
    receipts: list[dict[int, Receipt]] = field(init=False)  # per move: peer -> what it is to send
    sends: list[list[Sent]] = field(init=False)  # per move

    def steps(self) -> Steps:
        plan = self.plan
        self.lanes.listen(True)
        self.memory = {
            Space.INPUT: bytes_at(self.source, plan.input_bytes),
            Space.OUTPUT: bytes_at(self.target, plan.output_bytes),
            Space.WORKSPACE: np.empty(plan.workspace, np.uint8),
        }
        self.receipts = [self._posted(move) for move in plan.moves]
        self.sends = [[] for _ in plan.moves]
        for index, move in enumerate(plan.moves):
            yield from self._move(index, move)
        for sent in self.sends:
            yield from sent
        self.lanes.listen(False)

    def _move(self, index: int, move: Move) -> Steps:
        yield from self.receipts[index].values()
        values = self._results(index, move)
        writes = [target for target in move.targets if isinstance(target, Memory)]
        if writes:
            for earlier in move.after:
                yield from self.sends[earlier]
        for target in writes:
            for place, value in zip(self._views(target, move.lengths), values, strict=True):
                np.copyto(place, value)
        peers = [target.peer for target in move.targets if isinstance(target, Lane)]
        if peers:
            message = _joined(values)
            self.sends[index] = [self.lanes.send(peer, self.stamp, message) for peer in peers]

    def _posted(self, move: Move) -> dict[int, Receipt]:
        peers = [source.peer for source in move.sources if isinstance(source, Lane)]
        landing = self._landing(move) if peers and len(move.sources) == 1 else None
        return {peer: self.lanes.expect(peer, self.stamp, sum(move.lengths), landing) for peer in peers}

    def _landing(self, move: Move) -> memoryview | None:
        """The memory a receive goes to, where nothing of this plan uses that memory before and it is one piece."""
        if move.after or len(move.lengths) != 1 or not isinstance(move.targets[0], Memory):
            return None
        return self._place(move.targets[0].spans[0], move.lengths[0]).data

    def _results(self, index: int, move: Move) -> list[Array]:
        """What the move makes of its sources, block by block."""
        dtype = DTYPES[self.plan.dtype]
        sources = []
        for source in move.sources:
            if isinstance(source, Memory):
                sources.append(self._views(source, move.lengths))
            else:
                sources.append(_split(self.receipts[index][source.peer].data(), move.lengths))
        if move.scale:
            return [divided(value.view(dtype), self.plan.size).view(np.uint8) for value in sources[0]]
        if len(sources) > 1:
            pieces = zip(*sources, strict=True)
            return [fold([value.view(dtype) for value in piece], self.combine).view(np.uint8) for piece in pieces]
        if len(move.lengths) > 1 and isinstance(move.sources[0], Memory) and isinstance(move.targets[0], Memory):
            return [value.copy() for value in sources[0]]  # blocks may trade places
        return sources[0]

    def _views(self, memory: Memory, lengths: tuple[int, ...]) -> list[Array]:
        return [self._place(span, length) for span, length in zip(memory.spans, lengths, strict=True)]

    def _place(self, span: tuple[Space, int], length: int) -> Array:
        space, offset = span
        place = self.memory[space][offset : offset + length]
        if place.nbytes != length:
            raise ValueError(f"{length} bytes at {offset} are outside the {self.memory[space].nbytes} of {space.name}")
        return place


def _split(data: memoryview, lengths: tuple[int, ...]) -> list[Array]:
    whole, start, pieces = np.frombuffer(data, np.uint8), 0, []
    for length in lengths:
        pieces.append(whole[start : start + length])
        start += length
    return pieces


def _joined(values: list[Array]) -> memoryview:
    if len(values) == 1:
        return values[0].data
    return np.concatenate([np.empty(0, np.uint8), *values]).data
