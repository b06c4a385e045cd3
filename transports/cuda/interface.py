"""The few CUDA calls that collx uses, and nothing else: all that a stand-in without a GPU must do as well.

Addresses, streams and events are numbers as the driver has them. A call acts on the device of the innermost `on`
block of its thread, and raises CudaError where the driver refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from collx.errors import TransportError

LEGACY_STREAM, THREAD_STREAM = 1, 2  # CU_STREAM_LEGACY and CU_STREAM_PER_THREAD


class CudaError(TransportError):
    """A call that the driver refused. `name` is the driver's, as CUDA_ERROR_INVALID_VALUE."""

    def __init__(self, call: str, name: str, remedy: str = "") -> None:
        super().__init__(f"{call} failed with {name}{f'; {remedy}' if remedy else ''}")
        self.name = name


@dataclass(frozen=True, slots=True)
class Device:
    """What does not change about a GPU. `uuid` names it on its host, whatever its number in a process."""

    ordinal: int
    uuid: str
    name: str
    capability: tuple[int, int]
    multiprocessors: int
    shared: bool  # whether kernels of several processes run at once: under MPS


class Allocation(NamedTuple):
    """The allocation that an address lies in. `generation` is another one for each allocation that a process has ever
    made, so it tells an allocation from an earlier one at the same base."""

    base: int
    nbytes: int
    generation: int


class Program(Protocol):
    """Compiled kernels, loaded on one device."""

    def launch(self, kernel: str, grid: tuple[int, int], block: int, arguments: bytes, stream: int) -> None:
        """Queue a kernel whose one parameter is a struct, passed by value as `arguments`."""
        ...


class Driver(Protocol):
    """See the module. Everything that takes a stream is queued there, and returns at once."""

    # -- devices
    def version(self) -> int:
        """The newest CUDA that the driver serves: 13000 is 13.0."""
        ...

    def devices(self) -> int: ...
    def device(self, ordinal: int) -> Device: ...
    def device_at(self, address: int) -> int | None:
        """The device whose memory lies at `address`; None where that is the host's, or nobody's."""
        ...

    def on(self, ordinal: int) -> AbstractContextManager[None]:
        """In the block, calls of this thread act on this device; then on what they acted on before."""
        ...

    # -- memory
    def allocate(self, nbytes: int) -> int:
        """A raw allocation, set to zero, which `export` can share."""
        ...

    def free(self, address: int) -> None: ...
    def allocation(self, address: int) -> Allocation: ...
    def export(self, base: int) -> bytes:
        """The IPC handle of an allocation, 64 bytes. Raises CudaError for memory that legacy IPC cannot share."""
        ...

    def open(self, handle: bytes) -> int:
        """Map another process's allocation; its base here. Opened twice it must be closed twice."""
        ...

    def close(self, base: int) -> None: ...
    def allocate_host(self, nbytes: int) -> int:
        """Pinned memory of the host, which devices see under the same address."""
        ...

    def free_host(self, address: int) -> None: ...
    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Between any two of device, pinned and peers' memory."""
        ...

    # -- streams and events
    def stream(self, *, urgent: bool = False) -> int:
        """A new stream, which does not wait for the legacy default stream. Others share the device's queues, where one
        that waits can keep up what is behind it; an `urgent` one has none of those."""
        ...

    def destroy_stream(self, stream: int) -> None: ...
    def event(self, *, interprocess: bool = False, timing: bool = False) -> int: ...
    def destroy_event(self, event: int) -> None: ...
    def export_event(self, event: int) -> bytes: ...
    def open_event(self, handle: bytes) -> int: ...
    def record(self, event: int, stream: int) -> None: ...
    def wait_event(self, stream: int, event: int) -> None:
        """What is queued on `stream` from now on waits for the newest `record` of the event; nothing waits for one
        that was not recorded yet."""
        ...

    def done(self, event: int) -> bool:
        """Whether the newest `record` of the event has been reached."""
        ...

    def elapsed(self, begun: int, ended: int) -> float:
        """Seconds between two events with timing that are both done."""
        ...

    def capturing(self, stream: int) -> bool: ...
    def beside_captures(self) -> None:
        """For a thread of collx's own: from now on nothing that it does spoils what other threads have captured."""
        ...

    # -- stream memory operations, on 64-bit words
    def write_value(self, stream: int, address: int, value: int) -> None:
        """Queue a write, behind all writes queued before it, which are visible by then."""
        ...

    def wait_value(self, stream: int, address: int, value: int) -> None:
        """What is queued from now on waits until the word at `address` is `value` or more."""
        ...

    # -- kernels
    def program(self, source: str, kernels: Sequence[str]) -> Program:
        """Compile `source` for the device in use, and load these kernels of it; compiled code is kept on disk."""
        ...
