"""What strangers can do to a job: nothing, but cost it one line."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from collx.transports.connections import handshake
from collx.transports.connections.secret import new_secret
from collx.transports.meeting import cards, rendezvous
from tests import hosts, jobs
from tests.hosts import Hosts

MIB = 1 << 10  # KiB
STRANGER = 12345  # a user id of nobody here


def test_strangers_at_the_door_of_the_store() -> None:
    """Wrong secrets, replay, reflection, 200 idle sockets, a byte a second, lengths of 2^63, HTTP, TLS, random bytes,
    resets, and a second rank 2, all at once: none joins, nobody else waits for them, one line tells of them."""
    command = [sys.executable, "-m", "tests.security.red_team"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=jobs.DEADLINE)
    assert done.returncode == 0, done.stderr
    came = json.loads(done.stdout)
    assert came["admitted"] == came["duplicates_admitted"] == 0
    assert came["connections"] >= 260
    assert came["turns_counted"]
    assert came["grown_kib"] < 16 * MIB
    (line,) = came["lines"]
    assert f"{came['connections'] + came['duplicates']} visitors of 127.0.0.1:" in line
    for reason in ("gave way to others", "had said too little after 2 s", "did not speak the protocol", "hung up"):
        assert reason in line
    # Nobody had to wait until a stranger's time was up. The figure itself is `python -m tests.security.red_team`'s.
    assert max(came["attacked_ms"], came["call_ms"]) < 1000, came


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_at_the_unix_socket(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not even where a mistake has opened the directory to all, and with a card of the right form."""
    directory = tempfile.mkdtemp(dir=tmp_path)
    found = dict[int, list[cards.Card]]()

    def rank(number: int) -> None:
        fd = os.open(os.devnull, os.O_RDONLY)
        found[number] = rendezvous.meet(directory, number, 2, fd, time.monotonic() + jobs.DEADLINE)

    place = os.open(directory, os.O_DIRECTORY)
    with caplog.at_level(logging.WARNING, "collx"):
        first = threading.Thread(target=rank, args=(0,))
        first.start()
        while not os.path.exists(os.path.join(directory, rendezvous.DOOR)):
            assert first.is_alive()
        os.chmod(directory, 0o711)
        os.chmod(os.path.join(directory, rendezvous.DOOR), 0o777)
        if (stranger := os.fork()) == 0:
            os._exit(knocked(place))
        assert os.waitstatus_to_exitcode(os.waitpid(stranger, 0)[1]) == 0
        os.chmod(directory, 0o700)
        rank(1)
        first.join()
    os.close(place)
    assert [[card.pid for card in of_rank] for of_rank in found.values()] == [[os.getpid()] * 2] * 2
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "collx rank 0: 20 visitors of its Unix socket, of another user, or no ranks of this job, were shown out"
    ]
    for card in [card for of_rank in found.values() for card in of_rank]:
        with contextlib.suppress(OSError):
            os.close(card.fd)


def knocked(place: int) -> int:
    """As another user, claim to be rank 1 again and again; 0 if rank 0 hangs up each time."""
    os.setgid(STRANGER)
    os.setuid(STRANGER)
    card = cards.Card(1, 2, os.getpid(), "here", 0)
    for _ in range(20):
        with contextlib.suppress(ConnectionError), cards.new_socket() as connection:
            connection.connect(f"/proc/self/fd/{place}/{rendezvous.DOOR}")
            connection.settimeout(jobs.DEADLINE)
            cards.send(connection, cards.packed(cards.CARD, card, 9.0, "here"), 0, time.monotonic() + jobs.DEADLINE)
            if connection.recv(1):
                return 1
    return 0


def test_a_job_between_hosts_works_on_under_attack(two_hosts: Hosts, tmp_path: Path) -> None:
    """Strangers on one of the hosts at every door of all ranks: before they have met, and while they work."""
    secret, over = tmp_path / "secret", tmp_path / "over"
    secret.touch(0o600)
    secret.write_bytes(new_secret())
    said = (handshake._Frame(handshake.HELLO, 1, 1, 2).packed() + bytes(handshake.FRAME_BYTES)).hex()

    def rank(number: int) -> subprocess.Popen[str]:
        place = {"COLLX_RANK": str(number), "COLLX_SIZE": "2", "COLLX_LOCAL_RANK": "0", "COLLX_LOCAL_SIZE": "1"}
        command = (sys.executable, "-m", "tests.security.job", over)
        rendezvous = f"tcp://{hosts.ADDRESSES[0]}:{hosts.PORT}"
        return two_hosts.start(number, *command, COLLX_RENDEZVOUS=rendezvous, COLLX_SECRET_FILE=str(secret), **place)

    def attacked(host: int, port: int) -> subprocess.Popen[str]:
        command = (sys.executable, "-m", "tests.security.strangers", hosts.ADDRESSES[host], port, said)
        return two_hosts.start(1, *command)

    ranks = [rank(0)]
    try:
        while hosts.PORT not in listening(two_hosts, 0):
            assert ranks[0].poll() is None, ranks[0].communicate()
        early = attacked(0, hosts.PORT)
        ranks.append(rank(1))
        while not (doors := listening(two_hosts, 1)):
            assert ranks[1].poll() is None, ranks[1].communicate()
        places = [(0, port) for port in listening(two_hosts, 0)] + [(1, port) for port in doors]
        strangers = hosts.finished([early, *(attacked(*place) for place in places)])
    finally:
        over.touch()
        done = hosts.finished(ranks)
    assert [process.returncode for process in (*strangers, *done)] == [0] * (len(strangers) + 2), (strangers, done)
    assert all(json.loads(process.stdout)["admitted"] == 0 for process in strangers)
    for number, process in enumerate(done):
        fared = json.loads(process.stdout)
        assert fared["wrong"] == 0
        assert not fared["secret_seen"]
        assert fared["grown_kib"] < 16 * MIB
        assert max(fared["slowest_ms"], fared["joining_ms"]) < 1000, fared
        told = process.stderr.splitlines()
        assert len(told) <= 1 + (number == 0), told  # one for each door
        assert all(f"collx rank {number}: " in line and "were shown out" in line for line in told)
    assert done[0].stderr


def listening(two_hosts: Hosts, host: int) -> list[int]:
    """The TCP ports of a host at which somebody listens."""
    rows = [line.split() for line in two_hosts.run(host, "cat", "/proc/net/tcp").splitlines()[1:]]
    return [int(row[1].partition(":")[2], 16) for row in rows if row[3] == "0A"]
