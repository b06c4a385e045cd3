"""Two hosts on this machine, to measure between: namespaces with a name and a network of their own, and a cable.
Nothing of it has a name outside, so it ends with its processes."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from collx.errors import CollxError
from collx.lifeline import die_with

NAMES = ("alpha", "beta")
ADDRESSES = ("10.77.0.1", "10.77.0.2")
NETWORK = "10.77.0.0/24"
CABLE = "cable"  # the interface, on both hosts
GIGABIT = "1gbit"
_NETWORK = 0x40000000  # CLONE_NEWNET
_CHUNK = 1 << 20

# Called as ssh is: options, the host, the words of a command for its shell.
_AGENT = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
host=$1; shift
case $host in
%s
*) echo "no host $host" >&2; exit 255 ;;
esac
exec nsenter -t $pid -n -u sh -c "$*"
"""


@dataclass(frozen=True, slots=True)
class Hosts:
    """Both hosts, by a process in each, and a program by which launchers reach them as they do by ssh."""

    pids: tuple[int, ...]
    agent: Path

    def inside(self, host: int) -> tuple[str, ...]:
        """What to put before a command for it to run on a host."""
        return ("nsenter", "-t", str(self.pids[host]), "-n", "-u")

    def shape(self, rate: str) -> None:
        """Let the cable carry no more than `rate` (as `tc` writes it) in each direction, from now on."""
        for host in range(len(self.pids)):  # the burst is several of the packets that the kernel has not cut yet
            _do(
                *self.inside(host),
                *f"tc qdisc replace dev {CABLE} root tbf rate {rate} burst 256k latency 50ms".split(),
            )

    def rate(self, seconds: float = 1.0) -> float:
        """Bytes per second that one TCP connection carries over the cable when it has got going."""
        with _socket(self.pids[0]) as listener, _socket(self.pids[1]) as sender:
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
            if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), _NETWORK):
                return
        made.append(socket.socket())

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if not made:
        raise CollxError(f"cannot enter the network of process {pid}")
    return made[0]


@contextmanager
def two_hosts(folder: Path, congestion: str = "") -> Iterator[Hosts]:
    """The hosts, until the block ends; `folder` is for the agent. `congestion` is the congestion control of connections
    that ask for none ("": this machine's). Raises CollxError where they cannot be made."""
    if os.geteuid() != 0:
        raise CollxError("hosts are made of network namespaces, which only root can make")
    with ExitStack() as stack:
        hosts = Hosts(tuple(stack.enter_context(_host(name)) for name in NAMES), folder / "agent")
        places = zip(ADDRESSES, NAMES, hosts.pids, strict=True)
        hosts.agent.write_text(_AGENT % "\n".join(f"{address} | {name}) pid={pid} ;;" for address, name, pid in places))
        hosts.agent.chmod(0o700)
        one, other = (f"netns {pid}" for pid in hosts.pids)
        _do(*f"ip link add {CABLE} {one} type veth peer name {CABLE} {other}".split())
        for host, address in enumerate(ADDRESSES):
            for command in ("link set lo up", f"addr add {address}/24 dev {CABLE}", f"link set {CABLE} up"):
                _do(*hosts.inside(host), "ip", *command.split())
            if congestion:
                _do(*hosts.inside(host), *f"ip route replace {NETWORK} dev {CABLE} congctl {congestion}".split())
        yield hosts


@contextmanager
def _host(name: str) -> Iterator[int]:
    """A process in new namespaces, which are there as long as it is."""
    parent = os.getpid()
    try:
        process = subprocess.Popen(
            ["unshare", "--net", "--uts", "sh", "-c", f"hostname {name} && echo && exec sleep infinity"],
            stdout=subprocess.PIPE,
            preexec_fn=lambda: die_with(parent),
        )
    except FileNotFoundError as error:
        raise CollxError("unshare, nsenter, ip and tc are needed: util-linux and iproute2") from error
    with process:
        try:
            if process.stdout is None or not process.stdout.readline():
                raise CollxError(f"there is no host {name}: unshare failed")
            yield process.pid
        finally:
            process.kill()


def _do(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise CollxError(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        raise CollxError(f"{' '.join(command)}: {done.stderr.strip()}")
