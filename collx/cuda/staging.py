"""Data that goes by way of other memory: the copies in, the calls and the copies out, each over the next one's time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from collx.cuda.segments import Segment, Span
from collx.request import Request
from collx.transports.cuda.driver import Driver

Execute = Callable[[Request, int, int], None]  # a segment's request, addresses of its input and its output
Reached = Callable[[int], None]  # returns when what `Execute` does next comes after this event


class Stage(NamedTuple):
    """Room for the input and the output of one segment: two addresses."""

    input: int
    output: int


class Staging:
    """Two stages, which segments take in turns, and what orders the copies: two streams and their events.

    While one segment runs the next one is copied in and the one before it copied out. Of the device in use where it is
    made, as are the streams that it is given.
    """

    def __init__(self, driver: Driver, stages: tuple[Stage, Stage]) -> None:
        self._driver = driver
        self.stages = stages
        self._inward, self._outward = driver.stream(), driver.stream()
        self._begun = driver.event()
        self._loaded, self._ran, self._emptied = ((driver.event(), driver.event()) for _ in range(3))

    def run(
        self,
        segments: Sequence[Segment],
        source: int,
        target: int,
        stream: int,
        execute: Execute,
        reached: Reached | None = None,
    ) -> None:
        """Run a call on memory at `source` and `target`, behind what is queued on `stream`; what is queued there later
        comes behind the last copy out.

        `execute` queues one segment on `stream`. Where it runs segments by other means, on the host, it has done when
        it returns, and `reached` waits for an event as these need it; None has `stream` wait.
        """
        driver = self._driver
        reached = reached or (lambda event: driver.wait_event(stream, event))
        driver.record(self._begun, stream)
        driver.wait_event(self._inward, self._begun)
        self._load(0, segments[0].inward, source)
        for number, segment in enumerate(segments):
            side = number % 2
            if number + 1 < len(segments):
                self._load(1 - side, segments[number + 1].inward, source)
            reached(self._loaded[side])
            reached(self._emptied[side])
            execute(segment.request, self.stages[side].input, self.stages[side].output)
            driver.record(self._ran[side], stream)
            self._unload(side, segment.outward, target)
        for emptied in self._emptied:
            driver.wait_event(stream, emptied)

    def _load(self, side: int, spans: Sequence[Span], source: int) -> None:
        driver, stage = self._driver, self.stages[side]
        driver.wait_event(self._inward, self._ran[side])  # what was there before has been read
        for span in spans:
            driver.copy(stage.input + span.staged, source + span.at, span.nbytes, self._inward)
        driver.record(self._loaded[side], self._inward)

    def _unload(self, side: int, spans: Sequence[Span], target: int) -> None:
        driver, stage = self._driver, self.stages[side]
        driver.wait_event(self._outward, self._ran[side])
        for span in spans:
            driver.copy(target + span.at, stage.output + span.staged, span.nbytes, self._outward)
        driver.record(self._emptied[side], self._outward)

    def ended(self) -> bool:
        """Whether all that was queued has."""
        return all(
            map(self._driver.done, (*self._loaded, *self._emptied))
        )  # where a call failed, one may be loaded yet

    def close(self) -> None:
        """Give back streams and events; the stages are the caller's. Nothing may be under way."""
        for event in (self._begun, *self._loaded, *self._ran, *self._emptied):
            self._driver.destroy_event(event)
        for stream in (self._inward, self._outward):
            self._driver.destroy_stream(stream)
