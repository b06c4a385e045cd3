"""What one TCP connection carries from host to host."""

from __future__ import annotations

import ctypes
import socket
import threading
import time

from collx.errors import CollxError
from collx.perf.hosts import ADDRESSES, Hosts

_NETWORK = 0x40000000  # CLONE_NEWNET
_CHUNK = 1 << 20


def rate(hosts: Hosts, seconds: float = 1.0) -> float:
    """Bytes per second from the second host to the first, when the connection has got going."""
    with _socket(hosts.pids[0]) as listener, _socket(hosts.pids[1]) as sender:
        listener.bind((ADDRESSES[0], 0))
        listener.listen()
        sender.connect(listener.getsockname())
        receiver, _ = listener.accept()
        with receiver:
            pouring = threading.Thread(target=_pour, args=(sender,))
            pouring.start()
            try:
                _drain(receiver, seconds / 2)
                return _drain(receiver, seconds)
            finally:
                sender.shutdown(socket.SHUT_RDWR)
                pouring.join()


def _pour(sender: socket.socket) -> None:
    chunk = bytes(_CHUNK)
    try:
        while True:
            sender.sendall(chunk)
    except OSError:  # it has been shut down
        return


def _drain(receiver: socket.socket, seconds: float) -> float:
    """Bytes per second that come."""
    into, total, start = bytearray(_CHUNK), 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        total += receiver.recv_into(into)
    return total / passed


def _socket(pid: int) -> socket.socket:
    """A TCP socket on the host of a process. It is made by a thread that has gone there, and belongs there for ever."""
    made: list[socket.socket] = []

    def make() -> None:
        with open(f"/proc/{pid}/ns/net") as place:
            if ctypes.CDLL(None).setns(place.fileno(), _NETWORK) == 0:
                made.append(socket.socket())

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if not made:
        raise CollxError(f"cannot enter the network of process {pid}")
    return made[0]
