"""Hosts on this machine: namespaces with a name, a network and a file of hosts of their own, and an agent by which
launchers reach them as they do by ssh. Nothing of them has a name outside, so they end with their processes.

Two are joined by a cable, more by a switch; each speaks IPv4 and IPv6, and knows the others by name.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from collx.errors import CollxError
from collx.lifeline import die_with

NAMES = ("alpha", "beta", "gamma", "delta")
ADDRESSES = tuple(f"10.77.0.{number}" for number in range(1, 5))
ADDRESSES6 = tuple(f"fd77::{number}" for number in range(1, 5))
CABLE = "cable"  # every host's interface
_NETWORK = "10.77.0.0/24"

# Called as ssh is: options, the host, the words of a command for its shell.
_AGENT = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
host=$1; shift
case $host in
%s
*) echo "no host $host" >&2; exit 255 ;;
esac
exec nsenter -t $pid -n -u -m --wd="$PWD" sh -c "$*"
"""


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts, by a process in each, and the agent."""

    pids: tuple[int, ...]
    agent: Path

    @property
    def names(self) -> tuple[str, ...]:
        return NAMES[: len(self.pids)]

    def inside(self, host: int) -> tuple[str, ...]:
        """What to put before a command for it to run on a host."""
        return ("nsenter", "-t", str(self.pids[host]), "-n", "-u", "-m", f"--wd={Path.cwd()}")

    @contextmanager
    def shaped(self, rate: str) -> Iterator[None]:
        """In the block every host sends at most `rate` ("1gbit")."""
        for host in range(len(self.pids)):  # the burst is some of the packets that the kernel has not cut yet
            _do(self.inside(host), f"tc qdisc add dev {CABLE} root tbf rate {rate} burst 128kb latency 20ms")
        try:
            yield
        finally:
            for host in range(len(self.pids)):
                _do(self.inside(host), f"tc qdisc del dev {CABLE} root")

    def control_congestion(self, name: str) -> None:
        """Make this the congestion control of all connections over IPv4 that ask for none."""
        for host in range(len(self.pids)):
            _do(self.inside(host), f"ip route replace {_NETWORK} dev {CABLE} congctl {name}")


@contextmanager
def joined(count: int, folder: Path) -> Iterator[Hosts]:
    """So many hosts, until the block ends; `folder` is for the agent. Raises CollxError where they cannot be made."""
    if os.geteuid() != 0:
        raise CollxError("hosts are made of network namespaces, which only root can make")
    with ExitStack() as stack:
        names = folder / "hosts"
        lines = [f"{a} {n}\n{a6} {n}\n" for a, a6, n in zip(ADDRESSES, ADDRESSES6, NAMES, strict=True)]
        names.write_text("127.0.0.1 localhost\n::1 localhost\n" + "".join(lines[:count]))
        pids = tuple(stack.enter_context(_host(name, names)) for name in NAMES[:count])
        hosts = Hosts(pids, folder / "agent")
        places = zip(ADDRESSES, NAMES, pids, strict=False)
        hosts.agent.write_text(_AGENT % "\n".join(f"{address} | {name}) pid={pid} ;;" for address, name, pid in places))
        hosts.agent.chmod(0o700)
        if count == 2:
            one, other = pids
            _do((), f"ip link add {CABLE} netns {one} type veth peer name {CABLE} netns {other}")
        else:
            _plug_in(stack.enter_context(_host("switch", names)), pids)
        for host in range(count):
            for address in (f"{ADDRESSES[host]}/24", f"{ADDRESSES6[host]}/64 nodad"):  # nodad: it can be used at once
                _do(hosts.inside(host), f"ip addr add {address} dev {CABLE}")
            for name in ("lo", CABLE):
                _do(hosts.inside(host), f"ip link set {name} up")
        yield hosts


def _plug_in(switch: int, pids: Sequence[int]) -> None:
    inside = ("nsenter", "-t", str(switch), "-n")
    _do(inside, "ip link add switch type bridge")
    _do(inside, "ip link set switch up")
    for host, pid in enumerate(pids):
        _do((), f"ip link add {CABLE} netns {pid} type veth peer name port{host} netns {switch}")
        _do(inside, f"ip link set port{host} master switch up")


@contextmanager
def _host(name: str, names: Path) -> Iterator[int]:
    """A process in new namespaces, which are there as long as it is."""
    parent = os.getpid()
    setup = f"hostname {name} && mount --bind '{names}' /etc/hosts && echo && exec sleep infinity"
    try:
        process = subprocess.Popen(
            ["unshare", "--net", "--uts", "--mount", "sh", "-c", setup],
            stdout=subprocess.PIPE,
            preexec_fn=lambda: die_with(parent),
        )
    except FileNotFoundError as error:
        raise CollxError("unshare is missing; on Debian: apt install util-linux iproute2") from error
    with process:
        try:
            if process.stdout is None or not process.stdout.readline():
                raise CollxError(f"there is no host {name}: this process may not make namespaces")
            yield process.pid
        finally:
            process.kill()


def _do(inside: Sequence[str], command: str) -> None:
    try:
        done = subprocess.run([*inside, *command.split()], capture_output=True, text=True, timeout=60)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise CollxError(f"{command}: {error}") from error
    if done.returncode:
        raise CollxError(f"{command}: {done.stderr.strip()}")
