"""Who a door lets in, when, and how it stays open."""

from __future__ import annotations

import errno
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import pytest

import collx
from collx.transports.connections import door as doors
from collx.transports.connections.door import Door
from collx.transports.connections.handshake import CONTROL, DATA, HELLO, STORE, Admitted, Identity
from collx.transports.connections.secret import new_secret
from collx.transports.connections.stream import new_stream
from collx.transports.connections.visit import visit
from tests import hosts

SECRET = new_secret()
SIZE = 200
LONG = 60.0
Guests = SimpleQueue[tuple[socket.socket, Admitted]]


@pytest.fixture
def guests() -> Guests:
    return SimpleQueue()


@pytest.fixture
def door(guests: Guests) -> Iterator[Door]:
    """Rank 0's, open."""
    found = Door(("127.0.0.1", 0), SECRET, Identity(b"job", 0, SIZE), lambda *guest: guests.put(guest))
    found.open()
    yield found
    found.close()
    while not guests.empty():
        guests.get()[0].close()


def come(door: Door, rank: int = 1, purpose: int = CONTROL, communicator: int = 0, size: int = SIZE) -> socket.socket:
    own = Identity(b"job", rank, size)
    return visit(door.address, SECRET, own, 0, purpose, communicator, time.monotonic() + LONG)


def congestion(end: socket.socket) -> bytes:
    return end.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")


def test_both_get_a_socket_on_which_nothing_was_said(door: Door, guests: Guests) -> None:
    with come(door, 5, DATA, 9) as near, new_stream(socket.AF_INET) as unconnected:
        far, who = guests.get(timeout=LONG)
        assert who == Admitted(5, DATA, 9)
        for end in (near, far):
            assert not end.getblocking()
            assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert congestion(end) == congestion(unconnected)
            with pytest.raises(BlockingIOError):
                end.recv(1)
        near.send(b"first")
        far.setblocking(True)
        assert far.recv(100) == b"first"
        far.close()


def test_once_for_each_purpose_but_data(door: Door, guests: Guests) -> None:
    ends = [come(door, 1, CONTROL), come(door, 1, DATA, 1), come(door, 1, DATA, 1), come(door, 2, CONTROL)]
    with pytest.raises(collx.BootstrapError, match="refused: rank 1 is here already"):
        come(door, 1, CONTROL)
    door.forget(Admitted(1, CONTROL, 0))
    ends.append(come(door, 1, CONTROL))
    for end in ends:
        end.close()


def test_all_ranks_at_once(door: Door, guests: Guests) -> None:
    """More than may be pending: those who had to give way come again."""
    with ThreadPoolExecutor(SIZE - 1) as pool:
        ends = list(pool.map(lambda rank: come(door, rank), range(1, SIZE)))
    assert sorted(guests.get(timeout=LONG)[1].rank for _ in ends) == list(range(1, SIZE))
    for end in ends:
        end.close()


def test_a_rank_may_come_before_the_door_is_there(guests: Guests) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    with ThreadPoolExecutor(1) as pool:
        own = Identity(b"job", 1, SIZE)
        early = pool.submit(visit, address, SECRET, own, 0, CONTROL, 0, time.monotonic() + LONG)
        door = Door(address, SECRET, Identity(b"job", 0, SIZE), lambda *guest: guests.put(guest))
        door.open()
        early.result(LONG).close()
        door.close()


def test_strangers_take_no_place_for_long(door: Door, guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "PATIENCE", LONG)  # nobody's time is up while this runs: they give way
    strangers = [socket.create_connection(door.address) for _ in range(3 * doors.PENDING)]
    come(door).close()
    for stranger in strangers[: 2 * doors.PENDING]:
        stranger.settimeout(LONG)
        assert stranger.recv(1) == b""
    for stranger in strangers:
        stranger.close()


def test_a_door_that_was_held_up_hears_those_who_came_first(guests: Guests) -> None:
    """What was said in time counts, however late it is read."""
    door = Door(("127.0.0.1", 0), SECRET, Identity(b"job", 0, SIZE), lambda *guest: guests.put(guest))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(come, door)
        while not waiting.running():
            pass
        door.open()
        waiting.result(LONG).close()
    door.close()


def test_what_the_callee_raises_leaves_the_door_open(caplog: pytest.LogCaptureFixture) -> None:
    def admitted(connection: socket.socket, who: Admitted) -> None:
        if who.rank == 1:
            raise ValueError("not this one")
        connection.close()

    door = Door(("127.0.0.1", 0), SECRET, Identity(b"job", 0, SIZE), admitted)
    door.open()
    with come(door, 1) as end:
        end.setblocking(True)
        assert end.recv(1) == b""
    come(door, 2).close()
    door.close()
    assert "collx rank 0: ValueError at its door: not this one" in caplog.messages


def test_its_own_thread_may_close_it() -> None:
    def admitted(connection: socket.socket, who: Admitted) -> None:
        own.close()
        connection.close()

    own = Door(("127.0.0.1", 0), SECRET, Identity(b"job", 0, SIZE), admitted)
    own.open()
    come(own).close()
    own.close()
    assert not own._thread.is_alive()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(own.address)


def test_one_line_counts_all(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "collx"):
        for said in (b"GET / HTTP/1.1\r\n\r\n", b"\x17\x03\x01", HELLO + b"\xff" * 248):
            with socket.create_connection(door.address, timeout=LONG) as stranger:
                stranger.sendall(said)
                assert stranger.recv(1) == b""
        assert door.reasons() == "3 did not speak the protocol"
        door.close()
    (line,) = caplog.messages
    assert f"collx rank 0: 3 visitors of 127.0.0.1:{door.address[1]} were shown out, the last of them from 127" in line


def test_a_line_is_told_while_the_door_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Event()
    monkeypatch.setattr(doors, "REPORT", 0.01)
    monkeypatch.setattr(doors._log, "warning", lambda *_: told.set())
    door = Door(("127.0.0.1", 0), SECRET, Identity(b"job", 0, SIZE), lambda *_: None)
    door.open()
    for _ in range(2):
        socket.create_connection(door.address).close()
        assert told.wait(LONG)
        told.clear()
    door.close()


def test_few_descriptors_are_waited_for(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a rank has opened all it may, others wait until it closes some."""
    door = Door(("127.0.0.1", 0), SECRET, Identity(b"job", 0, SIZE), lambda *guest: guests.put(guest))
    tried = threading.Event()
    accept = door._listener.accept
    scarce = True

    class Listener:
        def __getattr__(self, name: str) -> object:
            return getattr(listener, name)

        def fileno(self) -> int:
            return listener.fileno()

        def accept(self) -> object:
            if scarce:
                tried.set()
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return accept()

    listener, door._listener = door._listener, Listener()  # type: ignore[assignment]
    door.open()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(come, door)
        assert tried.wait(LONG)
        scarce = False
        waiting.result(LONG).close()
    door.close()


@pytest.mark.parametrize(
    ("address", "told"),
    [
        (("192.0.2.7", 0), "cannot listen at 192.0.2.7:0: .*it is no address of this host"),
        (("no-such-host.invalid", 80), "cannot listen at no-such-host.invalid:80"),
    ],
)
def test_where_nobody_can_listen(address: tuple[str, int], told: str) -> None:
    with pytest.raises(collx.BootstrapError, match=told):
        Door(address, SECRET, Identity(b"job", 0, SIZE), lambda *_: None)


def test_a_taken_port_is_named(door: Door) -> None:
    with pytest.raises(collx.BootstrapError, match="another program or job listens there, or two processes"):
        Door(door.address, SECRET, Identity(b"job", 0, SIZE), lambda *_: None)


def served(answer: Callable[[socket.socket], None]) -> socket.socket:
    """A listener that is no rank, and treats whoever comes like this."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                answer(connection)

    threading.Thread(target=serve, daemon=True).start()
    return listener


def read_to_its_end(end: socket.socket) -> None:
    while end.recv(1 << 16):
        pass


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            lambda end: end.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            "is no rank of a collx job; does another program",
        ),
        (
            lambda end: None,
            r"did not reach rank 0 at 127\.0\.0\.1:\d+ within the timeout|did not answer in time",
        ),
        (read_to_its_end, "did not answer in time as rank 0"),
    ],
)
def test_what_is_no_rank_is_told(answer: Callable[[socket.socket], None], told: str) -> None:
    listener = served(answer)
    own = Identity(b"job", 1, SIZE)
    with listener, pytest.raises(collx.BootstrapError, match=f"rank 1 of {SIZE}.*{told}"):
        visit(listener.getsockname(), SECRET, own, 0, STORE, 0, time.monotonic() + 0.2)


def test_nobody_connects_to_itself() -> None:
    """To a port that nobody listens at and that connections are made from, TCP may do that."""
    if why := hosts.missing():
        pytest.skip(why)
    program = (
        "import time; from collx.transports.connections.handshake import Identity\n"
        "from collx.transports.connections.visit import visit\n"
        "try: visit(('127.0.0.1', 40000), bytes(32), Identity(b'job', 1, 2), 0, 1, 0, time.monotonic() + 0.2)\n"
        "except Exception as error: print(error)"
    )
    only = "ip link set lo up && echo 40000 40000 > /proc/sys/net/ipv4/ip_local_port_range"
    command = ["unshare", "--net", "sh", "-c", f'{only} && exec "$@"', "sh", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG)
    assert "rank 1 of 2 did not reach rank 0 at 127.0.0.1:40000 within the timeout" in done.stdout


def test_a_door_gives_all_descriptors_back() -> None:
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(20):
        door = Door(("::1", 0), SECRET, Identity(b"job", 0, SIZE), lambda *_: None)
        door.open()
        stranger = socket.create_connection(door.address)
        door.close()
        door.close()
        stranger.close()
    assert set(os.listdir("/proc/self/fd")) == before
