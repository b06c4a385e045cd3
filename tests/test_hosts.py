"""The hosts that tests run on are what they claim to be."""

from __future__ import annotations

import sys

import pytest

from tests.hosts import ADDRESSES, ADDRESSES6, PORT, Hosts, finished

LISTEN = f"""
import socket, sys
with socket.create_server((sys.argv[1], {PORT}), family=int(sys.argv[2])) as door:
    print("ready", flush=True)
    door.accept()[0].sendall(socket.gethostname().encode())
"""
ASK = f"""
import socket, sys
with socket.create_connection((sys.argv[1], {PORT}), timeout=float(sys.argv[2])) as there:
    print(there.recv(100).decode())
"""


def asked(hosts: Hosts, who: int, whom: int, address: str, family: int, timeout: float = 60.0) -> str:
    """Who answers at an address of `whom`, asked by `who`; the error where nobody does."""
    server = hosts.start(whom, sys.executable, "-c", LISTEN, address, family)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        (client,) = finished([hosts.start(who, sys.executable, "-c", ASK, address, timeout)])
        return client.stdout.strip() or client.stderr.splitlines()[-1]
    finally:
        server.kill()
        server.communicate()


def test_two_hosts_reach_each_other(two_hosts: Hosts) -> None:
    assert asked(two_hosts, 0, 1, ADDRESSES[1], 2) == "beta"
    assert asked(two_hosts, 1, 0, ADDRESSES6[0], 10) == "alpha"
    assert asked(two_hosts, 0, 1, "beta", 2) == "beta"


def test_four_hosts_reach_each_other(four_hosts: Hosts) -> None:
    assert asked(four_hosts, 3, 2, ADDRESSES[2], 2) == "gamma"
    assert asked(four_hosts, 0, 3, ADDRESSES6[3], 10) == "delta"


def test_a_host_has_ports_of_its_own(two_hosts: Hosts) -> None:
    assert "refused" in asked(two_hosts, 0, 1, "127.0.0.1", 2)


@pytest.mark.parametrize("family", [2, 10])
def test_a_host_is_cut_off_and_comes_back(faulty_hosts: Hosts, family: int) -> None:
    address = {2: ADDRESSES, 10: ADDRESSES6}[family][1]
    with faulty_hosts.cut_off(1):
        assert "timed out" in asked(faulty_hosts, 0, 1, address, family, 0.2)
    assert asked(faulty_hosts, 0, 1, address, family) == "beta"


def test_connections_are_reset_and_packets_lost(faulty_hosts: Hosts) -> None:
    with faulty_hosts.fault(1, "meta l4proto tcp reject with tcp reset"):
        assert "refused" in asked(faulty_hosts, 0, 1, ADDRESSES[1], 2)
    with faulty_hosts.fault(1, "numgen random mod 100 < 5 drop"):
        assert asked(faulty_hosts, 0, 1, ADDRESSES[1], 2) == "beta"


def test_a_shaped_cable_says_so(two_hosts: Hosts) -> None:
    with two_hosts.shaped("1gbit"):
        assert "tbf" in two_hosts.run(1, "tc", "qdisc", "show", "dev", "cable")
    assert "tbf" not in two_hosts.run(1, "tc", "qdisc", "show", "dev", "cable")
