"""Which address and interface a rank is reached by."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import collx
from collx.transports.connections import route
from collx.transports.connections.route import Route, find_route, split_address, targets
from tests import hosts

LOOPBACK = {"127.0.0.1": "lo", "::1": "lo"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp://alpha:29500", ("alpha", 29500)),
        ("10.0.0.1:0", ("10.0.0.1", 0)),
        ("tcp://[fd00::1]:80/", ("fd00::1", 80)),
        ("[::]:65535", ("::", 65535)),
        ("tcp://alpha.example.org:1", ("alpha.example.org", 1)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert split_address(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alpha",
        "tcp://alpha",
        "alpha:",
        ":80",
        "fd00::1:80",
        "alpha:65536",
        "alpha:-1",
        "udp://alpha:1",
        "[::1]",
        "a:٣",
    ],
)
def test_what_is_no_address_is_quoted(text: str) -> None:
    with pytest.raises(
        collx.BootstrapError, match="names no host and port; the rendezvous is given as tcp://HOST:PORT"
    ):
        split_address(text)


@given(st.text())
def test_any_text_is_an_address_or_one_error(text: str) -> None:
    try:
        host, port = split_address(text)
    except collx.BootstrapError:
        return
    assert host
    assert 0 <= port < 1 << 16
    assert split_address(route.shown((host, port))) == (host, port)


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_is_by_lo(host: str) -> None:
    found = find_route(targets(host, 80)[0], {})
    assert (found.address, found.interface, found.loopback) == (host, "lo", True)
    assert str(found) == f"{host} (lo)"
    with pytest.raises(collx.BootstrapError, match=r"rank 2: tcp://alpha:1 leads to .* \(lo\) here, which other hosts"):
        route.refuse_loopback(found, 2, "tcp://alpha:1")


def test_where_to_listen() -> None:
    assert route.bind_address(socket.AF_INET, "10.0.0.1", {}) == "10.0.0.1"
    assert route.bind_address(socket.AF_INET, "10.0.0.1", {"COLLX_BIND_ALL": "1"}) == "0.0.0.0"
    assert route.bind_address(socket.AF_INET6, "fd00::1", {"COLLX_BIND_ALL": "1"}) == "::"
    with pytest.raises(collx.BootstrapError, match="COLLX_BIND_ALL is 'yes'"):
        route.bind_address(socket.AF_INET, "10.0.0.1", {"COLLX_BIND_ALL": "yes"})


ROUTES = [
    Route(socket.AF_INET, f"10.0.0.{n}", name) for n, name in enumerate(("lo", "eth0", "eth01", "ib0", "docker0"))
]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("eth", ["eth0", "eth01"]),
        ("=eth0", ["eth0"]),
        ("ib,eth", ["ib0", "eth0", "eth01"]),
        ("=ib0,lo", ["ib0", "lo"]),
        ("^docker,lo", ["eth0", "eth01", "ib0"]),
        ("wlan", []),
    ],
)
def test_interfaces_are_chosen_as_nccl_has_it(asked: str, expected: list[str]) -> None:
    assert [found.interface for found in route._chosen(asked, ROUTES)] == expected


@contextlib.contextmanager
def in_a_host() -> Iterator[list[str]]:
    """Before a command that is to run on a host with a cable, IPv6, an alias, and a bridge like docker's."""
    if why := hosts.missing():
        pytest.skip(why)
    setup = " && ".join(
        [
            "ip link set lo up",
            "ip link add eth0 type veth peer name far",
            "ip addr add 10.77.0.1/24 dev eth0",
            "ip addr add 10.77.9.1/24 dev eth0",
            "ip addr add fd77::1/64 dev eth0 nodad",
            "ip link add docker0 type bridge",
            "ip addr add 172.17.0.1/16 dev docker0",
            "ip link set eth0 up && ip link set far up && ip link set docker0 up",
        ]
    )
    yield ["unshare", "--net", "sh", "-c", f'{setup} && exec "$@"', "sh"]


@pytest.mark.parametrize(
    ("host", "interfaces", "expected"),
    [
        ("10.77.0.2", "", "10.77.0.1 (eth0)"),
        ("10.77.9.2", "", "10.77.9.1 (eth0)"),
        ("10.77.0.1", "", "10.77.0.1 (eth0)"),  # this host's own
        ("172.17.0.5", "", "172.17.0.1 (docker0)"),
        ("fd77::2", "", "fd77::1 (eth0)"),
        ("10.77.9.2", "eth", "10.77.9.1 (eth0)"),
        ("10.77.0.2", "=docker0", "172.17.0.1 (docker0)"),
        ("172.17.0.5", "^docker", "10.77.0.1 (eth0)"),
        (
            "10.77.0.2",
            "ib",
            "COLLX_SOCKET_IFNAME=ib: no such interface leads to 10.77.0.2:80; with an IPv4 address there",
        ),
        ("fd77::2", "docker", "no such interface leads to [fd77::2]:80; with an IPv6 address there are: lo, eth0"),
        ("192.0.2.7", "", "there is no route from this host to 192.0.2.7:80"),
        ("anybody", "", "10.77.0.1 (eth0)"),  # though there is no way to anybody who is far away
        ("anybody", "docker", "172.17.0.1 (docker0)"),
        ("anybody", "ib", "no address by which others could reach it, with COLLX_SOCKET_IFNAME=ib"),
    ],
)
def test_routes(host: str, interfaces: str, expected: str) -> None:
    program = (
        "import sys; from collx.transports.connections.route import *\n"
        "_, host, name = sys.argv; environ = {'COLLX_SOCKET_IFNAME': name}\n"
        "try: print(usual_route(environ) if host == 'anybody' else find_route(targets(host, 80)[0], environ))\n"
        "except Exception as error: print(error)"
    )
    with in_a_host() as inside:
        command = [*inside, sys.executable, "-c", program, host, interfaces]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert expected in done.stdout, done.stderr
