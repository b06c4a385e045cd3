"""Two hosts on this machine: namespaces with a name and a network of their own, a cable between them, and an agent by
which launchers reach them as they do by ssh. Nothing of it has a name outside, so it ends with its processes."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from collx.lifeline import die_with
from tests import jobs
from tests.launchers import Launcher

NAMES = ("alpha", "beta")
ADDRESSES = ("10.77.0.1", "10.77.0.2")

# Called as ssh is: options, the host, the words of a command for its shell.
AGENT = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
host=$1; shift
case $host in
%s
*) echo "no host $host" >&2; exit 255 ;;
esac
exec nsenter -t $pid -n -u sh -c "$*"
"""


def missing() -> str:
    """Why there can be no such hosts here; "" where there can."""
    if os.geteuid() != 0:
        return "network namespaces are made by root only"
    absent = [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} is not installed"
    tried = subprocess.run(["unshare", "--net", "--uts", "true"], capture_output=True, text=True)
    return tried.stderr.strip()


@dataclasses.dataclass(frozen=True, slots=True)
class Hosts:
    """Both hosts, by a process in each, and the agent."""

    pids: tuple[int, ...]
    agent: Path

    def inside(self, host: int) -> tuple[str, ...]:
        """What to put before a command for it to run on a host."""
        return ("nsenter", "-t", str(self.pids[host]), "-n", "-u")

    def across(self, mpi: Launcher, ranks: Sequence[int]) -> Launcher:
        """The launcher, started on the first host, with room for so many ranks on each."""
        places = ",".join(f"{address}:{count}" for address, count in zip(ADDRESSES, ranks, strict=True))
        options = {  # Open MPI puts all on the first host where it may oversubscribe; between them, its own TCP
            "openmpi": (
                "--allow-run-as-root",
                "--mca",
                "pml",
                "ob1",
                "--prtemca",
                "plm_ssh_agent",
                str(self.agent),
                "--host",
                places,
            ),
            "mpich": ("-launcher", "ssh", "-launcher-exec", str(self.agent), "-hosts", places),
        }
        return dataclasses.replace(mpi, options=options[mpi.name], inside=self.inside(0))


@contextmanager
def two_hosts(folder: Path) -> Iterator[Hosts]:
    """The hosts, until the block ends; `folder` is for the agent."""
    with ExitStack() as stack:
        hosts = Hosts(tuple(stack.enter_context(_host(name)) for name in NAMES), folder / "agent")
        places = zip(ADDRESSES, NAMES, hosts.pids, strict=True)
        hosts.agent.write_text(AGENT % "\n".join(f"{address} | {name}) pid={pid} ;;" for address, name, pid in places))
        hosts.agent.chmod(0o700)
        one, other = hosts.pids
        _ip((), f"link add cable netns {one} type veth peer name cable netns {other}")
        for host, address in enumerate(ADDRESSES):
            for command in ("link set lo up", f"addr add {address}/24 dev cable", "link set cable up"):
                _ip(hosts.inside(host), command)
        yield hosts


@contextmanager
def _host(name: str) -> Iterator[int]:
    """A process in new namespaces, which are there as long as it is."""
    parent = os.getpid()
    process = subprocess.Popen(
        ["unshare", "--net", "--uts", "sh", "-c", f"hostname {name} && echo && exec sleep infinity"],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: die_with(parent),
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline(), f"there is no host {name}"
            yield process.pid
        finally:
            process.kill()


def _ip(inside: Sequence[str], command: str) -> None:
    subprocess.run([*inside, "ip", *command.split()], check=True, timeout=jobs.DEADLINE)
