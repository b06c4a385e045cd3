"""Hosts on this machine: namespaces with a name, a network and a file of hosts of their own, and an agent by which
launchers reach them as they do by ssh. Nothing of them has a name outside, so they end with their processes.

Two are joined by a cable, more by a switch; each speaks IPv4 and IPv6, and knows the others by name. The fixtures
`two_hosts` and `four_hosts` (conftest.py) make them for the tests of a module, or skip those with the reason.
"""

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

ROOT = Path(__file__).parents[1]
NAMES = ("alpha", "beta", "gamma", "delta")
ADDRESSES = tuple(f"10.77.0.{number}" for number in range(1, 5))
ADDRESSES6 = tuple(f"fd77::{number}" for number in range(1, 5))
CABLE = "cable"  # every host's interface
PORT = 29400

# Called as ssh is: options, the host, the words of a command for its shell.
AGENT = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
host=$1; shift
case $host in
%s
*) echo "no host $host" >&2; exit 255 ;;
esac
exec nsenter -t $pid -n -u -m --wd="$PWD" sh -c "$*"
"""

# What befalls packets that come to a host; %s is a condition and what to do.
FAULT = f"""table inet fault {{ chain coming {{
    type filter hook input priority 0; iifname "{CABLE}" %s;
}}; }}"""


def missing() -> str:
    """Why there can be no such hosts here; "" where there can."""
    if os.geteuid() != 0:
        return "network namespaces are made by root only"
    absent = [name for name in ("unshare", "nsenter", "ip", "tc") if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} missing; on Debian: apt install util-linux iproute2"
    tried = subprocess.run(["unshare", "--net", "--uts", "--mount", "true"], capture_output=True, text=True)
    return tried.stderr.strip()


def packet_filter() -> str | None:
    """The command nft: the system's, or what `make test` brings where there is none."""
    return shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:{ROOT / 'build' / 'nft'}")


@dataclasses.dataclass(frozen=True, slots=True)
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

    def start(self, host: int, *command: object, **environ: str) -> subprocess.Popen[str]:
        """A command under way on a host, in an environment without COLLX_* but `environ`."""
        return subprocess.Popen(
            [*self.inside(host), *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=jobs.CLEAN | environ,
        )

    def run(self, host: int, *command: object, **environ: str) -> str:
        """What a command prints on a host, where it ends well."""
        (done,) = finished([self.start(host, *command, **environ)])
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def fault(self, host: int, rule: str) -> Iterator[None]:
        """In the block `rule` of nftables ("drop", "numgen random mod 100 < 5 drop", "meta l4proto tcp reject with tcp
        reset") befalls whatever comes to a host."""
        nft = packet_filter()
        assert nft is not None, "nft is missing; `make test` brings it, or on Debian: apt install nftables"
        self.run(host, nft, FAULT % rule)
        try:
            yield
        finally:
            self.run(host, nft, "delete table inet fault")

    @contextmanager
    def cut_off(self, host: int) -> Iterator[None]:
        """In the block nothing comes to a host, and nothing from it to the others."""
        source = f"ip saddr {ADDRESSES[host]} drop; iifname {CABLE} ip6 saddr {ADDRESSES6[host]} drop"
        with ExitStack() as stack:
            for other in range(len(self.pids)):
                stack.enter_context(self.fault(other, "drop" if other == host else source))
            yield

    @contextmanager
    def shaped(self, rate: str) -> Iterator[None]:
        """In the block every host sends at most `rate` ("1gbit")."""
        for host in range(len(self.pids)):
            self.run(host, *f"tc qdisc add dev {CABLE} root tbf rate {rate} burst 128kb latency 20ms".split())
        try:
            yield
        finally:
            for host in range(len(self.pids)):
                self.run(host, *f"tc qdisc del dev {CABLE} root".split())

    def across(self, mpi: Launcher, ranks: Sequence[int]) -> Launcher:
        """The launcher, started on the first host, with room for so many ranks on each."""
        places = ",".join(f"{address}:{count}" for address, count in zip(ADDRESSES, ranks, strict=False))
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


def finished(running: Sequence[subprocess.Popen[str]]) -> list[subprocess.CompletedProcess[str]]:
    """What commands under way do; where one hangs, all are ended."""
    try:
        outputs = [process.communicate(timeout=jobs.DEADLINE) for process in running]
    finally:
        for process in running:
            process.terminate()  # `collx run` ends its ranks then
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *output)
        for process, output in zip(running, outputs, strict=True)
    ]


@contextmanager
def joined(count: int, folder: Path) -> Iterator[Hosts]:
    """So many hosts, until the block ends; `folder` is for the agent."""
    with ExitStack() as stack:
        names = folder / "hosts"
        lines = [f"{a} {n}\n{a6} {n}\n" for a, a6, n in zip(ADDRESSES, ADDRESSES6, NAMES, strict=True)]
        names.write_text("127.0.0.1 localhost\n::1 localhost\n" + "".join(lines[:count]))
        pids = tuple(stack.enter_context(_host(name, names)) for name in NAMES[:count])
        hosts = Hosts(pids, folder / "agent")
        places = zip(ADDRESSES, NAMES, pids, strict=False)
        hosts.agent.write_text(AGENT % "\n".join(f"{address} | {name}) pid={pid} ;;" for address, name, pid in places))
        hosts.agent.chmod(0o700)
        if count == 2:
            one, other = pids
            _ip((), f"link add {CABLE} netns {one} type veth peer name {CABLE} netns {other}")
        else:
            switch = stack.enter_context(_host("switch", names))
            _plug_in(switch, pids)
        for host in range(count):
            for address in (f"{ADDRESSES[host]}/24", f"{ADDRESSES6[host]}/64 nodad"):  # nodad: it can be used at once
                _ip(hosts.inside(host), f"addr add {address} dev {CABLE}")
            for name in ("lo", CABLE):
                _ip(hosts.inside(host), f"link set {name} up")
        yield hosts


def _plug_in(switch: int, pids: Sequence[int]) -> None:
    inside = ("nsenter", "-t", str(switch), "-n")
    _ip(inside, "link add switch type bridge")
    _ip(inside, "link set switch up")
    for host, pid in enumerate(pids):
        _ip((), f"link add {CABLE} netns {pid} type veth peer name port{host} netns {switch}")
        _ip(inside, f"link set port{host} master switch up")


@contextmanager
def _host(name: str, names: Path) -> Iterator[int]:
    """A process in new namespaces, which are there as long as it is."""
    parent = os.getpid()
    setup = f"hostname {name} && mount --bind '{names}' /etc/hosts && echo && exec sleep infinity"
    process = subprocess.Popen(
        ["unshare", "--net", "--uts", "--mount", "sh", "-c", setup],
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
