"""TLS between hosts: what goes over the network, who is trusted, and what those are told who are not."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

import pytest

from collx.errors import BootstrapError
from collx.transports.connections import tls
from collx.transports.connections.door import Door
from collx.transports.connections.handshake import CONTROL, Admitted, Identity
from collx.transports.connections.secret import new_secret
from collx.transports.connections.tls import CA, CERT, KEY, TLS, find_tls
from collx.transports.connections.visit import visit
from tests import jobs
from tests.programs import FEWER, FOLDER, NAMES, passed
from tests.ranks import by_tcp

SECRET = new_secret()
LONG = 60.0  # seconds
BIG = os.urandom(3_000_001)
Guests = SimpleQueue[tuple[socket.socket, Admitted]]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (TLS, CERT, KEY, CA):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def files(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Variables that lead to a certificate of its own, which trusts itself alone, for each name."""

    def make(name: str) -> dict[str, str]:
        cert, key = tls._made(name.encode().ljust(32))
        for kind, content in (("cert", cert), ("key", key)):
            with open(os.open(tmp_path / f"{name}.{kind}", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(content)
        path = str(tmp_path / name)
        return {TLS: "1", CERT: f"{path}.cert", KEY: f"{path}.key", CA: f"{path}.cert"}

    return make


def connected() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other = listener.accept()[0]
    for end in (one, other):
        end.setblocking(False)
    return one, other


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection with TLS, as its users have them."""
    found = find_tls({TLS: "1"}, SECRET)
    assert found is not None
    one, other = connected()
    near, far = found.connected(one), found.accepted(other)
    for end in (near, far):
        end.setblocking(True)
        end.settimeout(LONG)
    with near, far:
        yield near, far


def all_of(end: socket.socket) -> bytes:
    came = bytearray()
    while piece := end.recv(1 << 16):
        came += piece
    return bytes(came)


def test_both_directions_at_once_each_closed_by_itself(ends: tuple[socket.socket, socket.socket]) -> None:
    came = dict[int, bytes]()

    def speak(end: socket.socket) -> None:
        end.sendall(BIG)
        end.shutdown(socket.SHUT_WR)

    def listen(number: int) -> None:
        came[number] = all_of(ends[number])

    threads = [threading.Thread(target=speak, args=(end,)) for end in ends]
    threads += [threading.Thread(target=listen, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert all((came[number] == BIG) is True for number in range(2))


def test_one_direction_goes_on_when_the_other_is_closed(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    near.shutdown(socket.SHUT_WR)
    assert all_of(far) == b""
    far.sendall(BIG[:1000])
    far.close()
    assert all_of(near) == BIG[:1000]


def test_what_was_written_before_the_end_arrives(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    far.send(b"that nobody reads")
    closing = threading.Thread(target=lambda: (near.sendall(BIG), near.close()))  # type: ignore[func-returns-value]
    closing.start()
    assert (all_of(far) == BIG) is True
    closing.join()


def test_what_was_written_before_a_process_ends_arrives() -> None:
    text = """
    import os, socket, sys
    from collx.transports.connections.tls import find_tls, finish
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
        connection.setblocking(False)
        near = find_tls(os.environ, bytes(32)).connected(connection)
    near.setblocking(True)
    near.sendall(bytes(200_000))
    near.close()
    finish()
    os._exit(0)
    """
    found = find_tls({TLS: "1"}, bytes(32))
    assert found is not None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-c", "\n".join(line[4:] for line in text.splitlines())]
        with subprocess.Popen([*command, str(listener.getsockname()[1])], env=jobs.CLEAN | {TLS: "1"}) as process:
            accepted = listener.accept()[0]
            accepted.setblocking(False)
            with found.accepted(accepted) as end:
                end.setblocking(True)
                assert (all_of(end) == bytes(200_000)) is True
    assert process.returncode == 0


def test_nobody_on_the_way_reads_anything() -> None:
    found = find_tls({TLS: "1"}, SECRET)
    assert found is not None
    one, other = connected()
    last, first = connected()
    seen = list[bytes]()

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        for end in (source, target):
            end.setblocking(True)
        while piece := source.recv(1 << 16):
            seen.append(piece)
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)

    between = [threading.Thread(target=pass_on, args=pair) for pair in ((other, last), (last, other))]
    with found.connected(one) as near, found.accepted(first) as far, other, last:
        for thread in between:
            thread.start()
        for end in (near, far):
            end.setblocking(True)
        near.sendall(b"hear this" * 1000)
        near.shutdown(socket.SHUT_WR)
        assert all_of(far) == b"hear this" * 1000
        far.shutdown(socket.SHUT_WR)
        assert all_of(near) == b""
        for thread in between:
            thread.join(LONG)
    assert seen[0][:1] == b"\x16"
    assert b"hear" not in b"".join(seen)


def turned_away(monkeypatch: pytest.MonkeyPatch, answers: dict[str, str], connects: dict[str, str]) -> tuple[str, str]:
    """What a visitor is told at a door, and what the door says of it, where they have these variables."""
    guests: Guests = SimpleQueue()
    with ExitStack() as stack:
        with monkeypatch.context() as environ:
            for name, value in answers.items():
                environ.setenv(name, value)
            door = Door(("127.0.0.1", 0), SECRET, Identity(b"job", 0, 2), lambda *guest: guests.put(guest))
            door.open()
            stack.callback(door.close)
        with monkeypatch.context() as environ:
            for name, value in connects.items():
                environ.setenv(name, value)
            with pytest.raises(BootstrapError) as error:
                visit(door.address, SECRET, Identity(b"job", 1, 2), 0, CONTROL, 0, time.monotonic() + LONG)
        while not door.reasons():
            time.sleep(0.001)
        assert guests.empty()
        assert "\n" not in str(error.value)
        return str(error.value), door.reasons()


def test_a_certificate_of_somebody_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, files: Callable[[str], dict[str, str]]
) -> None:
    told, counted = turned_away(monkeypatch, files("ours"), files("theirs"))
    assert re.fullmatch(
        r"rank 1 of 2: whoever listens at 127.0.0.1:\d+ showed a certificate that is none of this job's"
        r" \(self-signed certificate\); do all ranks have COLLX_TLS=1, with certificates that all trust\?",
        told,
    )
    assert counted == "1 did not trust the certificate of this rank"


def test_who_trusts_us_must_be_trusted_too(
    monkeypatch: pytest.MonkeyPatch, files: Callable[[str], dict[str, str]]
) -> None:
    ours = files("ours")
    told, counted = turned_away(monkeypatch, ours, files("theirs") | {CA: ours[CA]})
    assert "did not trust the certificate of this rank" in told
    assert counted == "1 showed a certificate that is none of this job's (self-signed certificate)"


def test_another_secret_makes_another_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tls._of_secret
    monkeypatch.setattr(tls, "_of_secret", lambda secret: made(new_secret()))
    told, counted = turned_away(monkeypatch, {TLS: "1"}, {TLS: "1"})
    assert "showed a certificate that is none of this job's" in told
    assert counted == "1 did not trust the certificate of this rank"


def test_a_rank_without_tls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    told, counted = turned_away(monkeypatch, {TLS: "1"}, {})
    assert "is no rank of a collx job; does another program use this port, or COLLX_TLS=1?" in told
    assert counted == "1 spoke no TLS"


def test_a_rank_with_tls_is_refused_by_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    told, counted = turned_away(monkeypatch, {}, {TLS: "1"})
    assert "spoke no TLS; do all ranks have COLLX_TLS=1" in told
    assert counted == "1 spoke TLS, which COLLX_TLS=1 asks for"


def run_programs(*names: str, **environ: str) -> set[str]:
    """Which of the programs of tests/mpirun pass, of these or of all."""
    ranks = ("-n", 3, "--tls", "--tag", "off")
    done = jobs.collx_run(*ranks, "python", FOLDER, *names, *FEWER, COLLX_TRANSPORT="tcp", **environ)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return set(passed(done.stdout))


def test_all_collectives_pass() -> None:
    assert run_programs() == NAMES


def test_they_pass_with_certificates_from_files(files: Callable[[str], dict[str, str]]) -> None:
    assert run_programs("all_reduce", "groups", **files("ours")) == {"all_reduce", "groups"}


def test_a_communicator_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TLS, "1")
    assert all(told.endswith(f"on {os.uname().nodename}, by TLS>") for told in by_tcp(repr, 2))
    monkeypatch.delenv(TLS)
    assert not any("TLS" in told for told in by_tcp(repr, 2))


KILLED = """
comm = collx.init(timeout=30)
try:
    comm.all_reduce(np.ones(100_000))  # its last bytes may die with rank 1
    if comm.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        comm.all_reduce(np.ones(100_000))
except collx.RankFailedError as error:
    assert error.ranks == (1,), error
    comm = comm.shrink()
    assert comm.all_reduce(np.ones(1)) == 2
    print("went on\\n", end="", flush=True)
"""


def test_the_end_of_a_rank_is_told(tmp_path: Path) -> None:
    path = jobs.program(tmp_path, KILLED)
    with jobs.nothing_left_behind(str(path)):
        done = jobs.collx_run("-n", 3, "--tls", "--tag", "off", "--keep-going", path, COLLX_TRANSPORT="tcp")
    assert done.stdout == "went on\n" * 2, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({TLS: "yes"}, "COLLX_TLS is 'yes', but must be 1"),
        ({CERT: "/c"}, "COLLX_TLS_CERT is set, but COLLX_TLS is not 1"),
        ({TLS: "1", CERT: "/c", CA: "/a"}, "COLLX_TLS_CERT is set, but COLLX_TLS_KEY is not"),
        (
            {TLS: "1", CERT: "/nowhere", KEY: "/k", CA: "/a"},
            "COLLX_TLS_CERT is '/nowhere', which cannot be read: No such",
        ),
        ({TLS: "1", "COLLX_INSECURE": "1"}, "keys made of no secret protect nothing"),
    ],
)
def test_what_is_half_set_is_refused(environ: dict[str, str], said: str) -> None:
    with pytest.raises(BootstrapError, match=re.escape(said)):
        find_tls(environ, SECRET)


def test_a_key_that_others_can_read_is_refused(files: Callable[[str], dict[str, str]]) -> None:
    environ = files("ours")
    os.chmod(environ[KEY], 0o640)
    with pytest.raises(BootstrapError, match="others than this user can read"):
        find_tls(environ, SECRET)


def test_what_is_no_certificate_is_refused(files: Callable[[str], dict[str, str]], tmp_path: Path) -> None:
    environ = files("ours")
    with pytest.raises(BootstrapError, match="are no certificate, its key and an authority"):
        find_tls(environ | {KEY: files("theirs")[KEY]}, SECRET)


def test_the_command_says_what_is_wrong() -> None:
    done = jobs.collx_run("-n", 2, "--tls", "python", "-c", "", COLLX_TLS_CERT="/c")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("collx run: COLLX_TLS_CERT is set, but COLLX_TLS_KEY is not")
