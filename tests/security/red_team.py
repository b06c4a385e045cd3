"""A rank's door under attack: `python -m tests.security.red_team`. Prints what came of it, as JSON.

This process is rank 0, whose store the others work with; strangers come from a process of their own, all at once.
"""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import collx
from collx.errors import BootstrapError
from collx.transports.connections.handshake import STORE, Identity, greet
from collx.transports.connections.route import split_address
from collx.transports.connections.secret import new_secret

SIZE = 64
LONG = 60.0


class Overheard(socket.socket):
    """A connection on which somebody listens."""

    said = b""

    def send(self, data: Any, flags: int = 0) -> int:
        sent = super().send(data, flags)
        self.said += bytes(data[:sent])
        return sent


def overheard(address: tuple[str, int], secret: bytes) -> bytes:
    """What rank 1 says to be let in."""
    with Overheard() as connection:
        connection.connect(address)
        connection.setblocking(False)
        greet(connection, secret, Identity(b"collx.Store", 1, SIZE), 0, STORE, 0, time.monotonic() + LONG)
        return connection.said


def turn(address: str, rank: int, secret: bytes) -> float:
    """Join, count and leave; how long it took, in ms."""
    begin = time.perf_counter()
    with collx.Store(address, rank, SIZE, LONG, secret=secret) as store:
        store.add("turns", 1)
    return (time.perf_counter() - begin) * 1000


def peak() -> int:
    """The most memory that this process had since the last call, in KiB."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return int(status.partition("VmHWM:")[2].split()[0])


def main() -> None:
    secret, lines = new_secret(), list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("collx").addHandler(handler)
    duplicates, turns = 0, 100
    with collx.Store("127.0.0.1:0", 0, SIZE, LONG, secret=secret) as store:
        address = store.address
        host, port = split_address(address)
        said = overheard((host, port), secret).hex()
        with collx.Store(address, 2, SIZE, LONG, secret=secret) as other:  # a rank that is there all the time
            calm = [turn(address, 3, secret) for _ in range(turns)]
            peak()
            before = peak()
            command = [sys.executable, "-m", "tests.security.strangers", host, str(port), said]
            under_attack, waits = list[float](), list[float]()
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as strangers:
                while strangers.poll() is None:
                    under_attack.append(turn(address, 3, secret))
                    begin = time.perf_counter()
                    other.add("turns of the other", 1)
                    waits.append((time.perf_counter() - begin) * 1000)
                    try:
                        collx.Store(address, 2, SIZE, LONG, secret=secret)
                    except BootstrapError:
                        duplicates += 1
                assert strangers.stdout is not None
                came = json.load(strangers.stdout)
            grown = peak() - before
            counted = int(store.get("turns"))
    print(
        json.dumps(
            {
                **came,
                "duplicates": duplicates,
                "duplicates_admitted": len(under_attack) - duplicates,
                "turns_counted": counted == turns + len(under_attack),
                "lines": lines,
                "grown_kib": grown,
                "calm_ms": round(max(calm), 2),
                "attacked_ms": round(max(under_attack), 2),
                "call_ms": round(max(waits), 2),
                "turns": len(under_attack),
            }
        )
    )


if __name__ == "__main__":
    main()
