"""Who a rank is, as far as sharing GPU memory goes: what ranks tell each other before their first call on GPUs."""

from __future__ import annotations

import os
import secrets
import struct
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

from collx.errors import TransportError
from collx.transports.cuda.driver import Driver

_LAYOUT = struct.Struct("<64s 36s Q I Q 64s 64s I ? I")
CARD_BYTES = _LAYOUT.size
_process = 0, 0  # pid, and what tells this process from all others


@dataclass(frozen=True, slots=True)
class Card:
    """`boot` is the same for all processes of a running host, and `process` for nobody but the threads of one. `mps`:
    kernels of several processes run at once on the GPU."""

    host: str
    boot: str
    pid_namespace: int
    pid: int
    process: int
    gpu: str
    gpu_name: str
    ordinal: int
    mps: bool
    driver: int

    def pack(self) -> bytes:
        """CARD_BYTES bytes."""
        return _LAYOUT.pack(*(value.encode() if isinstance(value, str) else value for value in astuple(self)))

    @staticmethod
    def unpack(record: bytes) -> Card:
        values: list[Any] = [_text(v) if isinstance(v, bytes) else v for v in _LAYOUT.unpack(record)]
        return Card(*values)


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def card(driver: Driver, ordinal: int) -> Card:
    """This process's card for a rank with this GPU."""
    device = driver.device(ordinal)
    with open("/proc/sys/kernel/random/boot_id") as lines:
        boot = lines.read().strip()
    return Card(
        host=os.uname().nodename,
        boot=boot,
        pid_namespace=os.stat("/proc/self/ns/pid").st_ino,
        pid=os.getpid(),
        process=process(),
        gpu=device.uuid,
        gpu_name=device.name,
        ordinal=ordinal,
        mps=device.shared,
        driver=driver.version(),
    )


def process() -> int:
    """A number that this process alone has; a child of a fork has another one."""
    global _process
    if _process[0] != os.getpid():
        _process = os.getpid(), secrets.randbits(64)
    return _process[1]


def check(cards: Sequence[Card]) -> None:
    """Raise TransportError, the same on every rank, where CUDA IPC would take one process for another. Handles of
    memory work between containers that share no namespace, but PIDs must differ (LMCache, pull request 4551)."""
    seen = dict[tuple[str, int], int]()
    for rank, this in enumerate(cards):
        other = seen.setdefault((this.boot, this.pid), rank)
        if cards[other].pid_namespace != this.pid_namespace:
            raise TransportError(
                f"ranks {other} and {rank} are processes of two containers, both with PID {this.pid}, and CUDA IPC"
                " would take them for one process; start the containers with --pid=host"
            )


def apart(cards: Sequence[Card]) -> str:
    """Why these ranks' GPUs cannot share memory, whatever the driver says; "" where it has to be tried."""
    for rank, this in enumerate(cards):
        if this.boot != cards[0].boot:
            return f"rank 0 is on host {cards[0].host} and rank {rank} on {this.host}; CUDA IPC is within a host"
    return ""


def workers(cards: Sequence[Card]) -> tuple[int, ...]:
    """By rank, the rank whose kernels do its part: itself, or the lowest of those on its GPU where kernels of several
    processes never run at once, so that taking turns would only cost time."""
    return tuple(rank if this.mps else sharers(cards, rank)[0] for rank, this in enumerate(cards))


def sharers(cards: Sequence[Card], rank: int) -> list[int]:
    """The ranks on the GPU of `rank`, itself among them."""
    mine = cards[rank]
    return [other for other, this in enumerate(cards) if (this.boot, this.gpu) == (mine.boot, mine.gpu)]
