"""The hosts of `collx.perf.hosts` for tests: what runs on them, and faults of what joins them. The fixtures `two_hosts`
and `four_hosts` (conftest.py) make them for the tests of a module, or skip those with the reason."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from collx.perf import hosts
from tests import jobs
from tests.launchers import Launcher

ROOT = Path(__file__).parents[1]
NAMES, ADDRESSES, ADDRESSES6 = hosts.NAMES, hosts.ADDRESSES, hosts.ADDRESSES6
PORT = 29400
Done = subprocess.CompletedProcess[str]
Running = subprocess.Popen[str]

# What befalls packets that come to a host; %s is a condition and what to do.
FAULT = f"""table inet fault {{ chain coming {{
    type filter hook input priority 0; iifname "{hosts.CABLE}" %s;
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
class Hosts(hosts.Hosts):
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

    def collx_run(self, n: int, *arguments: object, at: str = f"{NAMES[0]}:{PORT}", **environ: str) -> list[Done]:
        """What `collx run` with `n` ranks on each host does, on each; they meet `at` an address of the first."""
        return finished(self.start_run(n, *arguments, at=at, **environ))

    def start_run(self, n: int, *arguments: object, at: str = f"{NAMES[0]}:{PORT}", **environ: str) -> list[Running]:
        """The same under way."""
        nodes = range(len(self.pids))
        share = ["-n", n, "--nnodes", len(nodes), "--rendezvous", at]
        environ = {"COLLX_SECRET_FILE": str(secret_file(self.agent.parent))} | environ
        return [self.start(node, *jobs.RUN, *share, "--node-rank", node, *arguments, **environ) for node in nodes]

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
        source = f"ip saddr {ADDRESSES[host]} drop; iifname {hosts.CABLE} ip6 saddr {ADDRESSES6[host]} drop"
        with ExitStack() as stack:
            for other in range(len(self.pids)):
                stack.enter_context(self.fault(other, "drop" if other == host else source))
            yield

    def across(self, mpi: Launcher, ranks: Sequence[int]) -> Launcher:
        """The launcher, started on the first host, with room for so many ranks on each."""
        places = ",".join(f"{address}:{count}" for address, count in zip(ADDRESSES, ranks, strict=False))
        options = {  # Open MPI puts all on the first host where it may oversubscribe; between them, its own TCP
            "openmpi": (
                "--allow-run-as-root",
                "--mca",
                "pml",
                "ob1",
                "--mca",
                "btl",
                "^ofi",
                "--prtemca",
                "plm_ssh_agent",
                str(self.agent),
                "--host",
                places,
            ),
            "mpich": ("-launcher", "ssh", "-launcher-exec", str(self.agent), "-hosts", places),
        }
        return dataclasses.replace(mpi, options=options[mpi.name], inside=self.inside(0))


def secret_file(folder: Path) -> Path:
    """A file with a job's secret, the same one in the same folder."""
    path = folder / "secret"
    if not path.exists():
        path.touch(0o600)
        path.write_bytes(os.urandom(32))
    return path


def finished(running: Sequence[Running]) -> list[Done]:
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
    with hosts.joined(count, folder) as found:
        yield Hosts(found.pids, found.agent)
