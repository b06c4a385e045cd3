"""Which of a host's addresses the others can reach it by: the one from which the route to the rendezvous host goes."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from collx.errors import BootstrapError

INTERFACES, EVERYWHERE = "COLLX_SOCKET_IFNAME", "COLLX_BIND_ALL"
_FORM = "the rendezvous is given as tcp://HOST:PORT, or tcp://[ADDRESS]:PORT for IPv6"
# linux/rtnetlink.h, linux/if_addr.h
_HEADER, _IFADDR, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BBBBI"), struct.Struct("=HH")
_DONE, _NEWADDR, _GETADDR, _REQUEST, _DUMP, _ADDRESS, _LOCAL = 3, 20, 22, 0x1, 0x300, 1, 2

Target = tuple[int, Any]  # family and socket address, as socket.getaddrinfo has them
# Nobody's (RFC 5737, RFC 3849): packets to them would go where those to anybody far away go.
_ANYBODY: tuple[Target, ...] = ((socket.AF_INET, ("192.0.2.1", 9)), (socket.AF_INET6, ("2001:db8::1", 9, 0, 0)))


@dataclass(frozen=True, slots=True)
class Route:
    """One of this host's addresses, and the name of the interface that has it."""

    family: int
    address: str
    interface: str

    @property
    def loopback(self) -> bool:
        """Whether only this host can reach it."""
        return ipaddress.ip_address(self.address).is_loopback

    def __str__(self) -> str:
        return f"{self.address} ({self.interface})"


def shown(address: Any) -> str:
    """A socket address as people write it: HOST:PORT, with IPv6 in brackets; or the name of a Unix socket."""
    if not isinstance(address, tuple):
        return str(address) or "a socket without a name"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(text: str) -> tuple[str, int]:
    """Host and port of "HOST:PORT", with or without "tcp://" before it. Raises BootstrapError where it is neither."""
    found = re.fullmatch(r"(?:tcp://)?(?:\[([^\[\]]+)\]|([^\[\]:/]+)):(\d{1,5})/?", text, re.ASCII)
    if found is None or int(found[3]) > 65535:
        raise BootstrapError(f"{text!r} names no host and port; {_FORM}")
    return found[1] or found[2], int(found[3])


def targets(host: str, port: int) -> list[Target]:
    """What `host` may be, in the order of preference of its resolver. Raises OSError where it has no address."""
    return [(family, address) for family, *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def find_route(target: Target, environ: Mapping[str, str]) -> Route:
    """By what this host is reached from where `target` is. COLLX_SOCKET_IFNAME chooses among its interfaces: a list of
    prefixes of names, "=" before it for whole names, "^" for those not to take, as NCCL has it.

    Raises BootstrapError where there is no route, or no interface that is chosen has an address of the target's family.
    """
    family, address = target
    usable = [route for route in own_addresses() if route.family == family]
    chosen = environ.get(INTERFACES, "")
    source = _source(target)
    found = [route for route in usable if route.address == source]
    if chosen:
        allowed = _chosen(chosen, usable)
        found = [route for route in allowed if route in found] or [r for r in allowed if r.loopback == _loops(source)]
        if not found:
            names = ", ".join(dict.fromkeys(route.interface for route in usable)) or "none"
            raise BootstrapError(
                f"{INTERFACES}={chosen}: no such interface leads to {shown(address)}; with an"
                f" {'IPv6' if family == socket.AF_INET6 else 'IPv4'} address there are: {names}"
            )
    if not found:
        raise BootstrapError(f"there is no route from this host to {shown(address)}; is its network up?")
    return found[0]


def usual_route(environ: Mapping[str, str]) -> Route:
    """By what other hosts reach this one, where nothing says who they are: by where it would reach anybody, or else its
    first interface. COLLX_SOCKET_IFNAME chooses. Raises BootstrapError where there is none."""
    for target in _ANYBODY:
        with contextlib.suppress(BootstrapError):
            return find_route(target, environ)
    beyond = [route for route in own_addresses() if not route.loopback]
    chosen = environ.get(INTERFACES, "")
    if found := _chosen(chosen, beyond) if chosen else beyond:
        return found[0]
    why = f", with {INTERFACES}={chosen}" if chosen else "; is its network up?"
    raise BootstrapError(f"this host has no address by which others could reach it{why}")


def bind_address(family: int, address: str, environ: Mapping[str, str]) -> str:
    """Where to listen for who is told `address`: there only, but at all that this host has under COLLX_BIND_ALL=1."""
    asked = environ.get(EVERYWHERE, "0")
    if asked not in ("0", "1", ""):
        raise BootstrapError(f"{EVERYWHERE} is {asked!r}, but must be 0 or 1")
    if asked != "1":
        return address
    return "::" if family == socket.AF_INET6 else "0.0.0.0"


def refuse_loopback(route: Route, rank: int, rendezvous: str) -> None:
    """Raises BootstrapError for a route by which no other host can reach this one; for jobs of several hosts."""
    if route.loopback:
        raise BootstrapError(
            f"rank {rank}: {rendezvous} leads to {route} here, which other hosts cannot reach; give the address or name"
            f" by which they reach rank 0's host (/etc/hosts may map its name to loopback), or set {INTERFACES}"
        )


def own_addresses() -> list[Route]:
    """The addresses of this host's interfaces, in the kernel's order; without link-local ones, which mean something
    else on every other host."""
    names = dict(socket.if_nameindex())
    found = []
    for kind, message in _dump():
        family, _, _, _, index = _IFADDR.unpack_from(message)
        if kind != _NEWADDR or family not in (socket.AF_INET, socket.AF_INET6):
            continue
        attributes = dict(_attributes(message[_IFADDR.size :]))
        packed = attributes.get(_LOCAL, attributes.get(_ADDRESS))  # _ADDRESS is the other end's where there is one
        if packed is not None and index in names and not (address := ipaddress.ip_address(packed)).is_link_local:
            found.append(Route(family, str(address), names[index]))
    return found


def _dump() -> list[tuple[int, bytes]]:
    """All addresses as the kernel lists them: kind and contents of each message."""
    messages: list[tuple[int, bytes]] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as kernel:
        request = _IFADDR.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        kernel.sendto(_HEADER.pack(_HEADER.size + len(request), _GETADDR, _REQUEST | _DUMP, 1, 0) + request, (0, 0))
        while True:
            data = kernel.recv(1 << 16)
            while len(data) >= _HEADER.size:
                length, kind, _, _, _ = _HEADER.unpack_from(data)
                if kind == _DONE or length < _HEADER.size:
                    return messages
                messages.append((kind, data[_HEADER.size : length]))
                data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        found.append((kind, data[_ATTRIBUTE.size : length]))
        data = data[(max(length, _ATTRIBUTE.size) + 3) & ~3 :]
    return found


def _source(target: Target) -> str:
    """The address from which a connection to `target` would go; "" where none would. Nothing is sent for it."""
    family, address = target
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address[0], address[1] or 9, *address[2:]))
        except OSError:
            return ""
        return str(ipaddress.ip_address(probe.getsockname()[0].partition("%")[0]))


def _loops(source: str) -> bool:
    return bool(source) and ipaddress.ip_address(source).is_loopback


def _chosen(asked: str, routes: list[Route]) -> list[Route]:
    """The routes that COLLX_SOCKET_IFNAME allows, in the order in which it names them."""
    mark = asked[0] if asked[0] in "=^" else ""
    names = [name for name in asked[len(mark) :].split(",") if name]
    if mark == "^":
        return [route for route in routes if not route.interface.startswith(tuple(names))]
    if mark == "=":
        return [route for name in names for route in routes if route.interface == name]
    return [route for name in names for route in routes if route.interface.startswith(name)]
