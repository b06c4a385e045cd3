"""How ranks of one host meet and pass memory: forked processes, no native code."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import pickle
import resource
import select
import socket
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import collx
from collx import lifeline
from collx.transports.meeting import cards, rendezvous
from collx.transports.shm import ShmGroup, memory_file

Body = Callable[[int, float], Any]
LONG = 60.0


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return tempfile.mkdtemp(dir=tmp_path)


def on_processes(ranks: list[int], body: Body, timeout: float = LONG) -> list[Any]:
    """`body(rank, deadline)` in a forked process per rank; what each returned, or the CollxError it raised."""
    deadline = time.monotonic() + timeout
    pipes = []
    for rank in ranks:
        read, write = os.pipe()
        if lifeline.fork() == 0:
            outcome: Any = None
            try:
                try:
                    outcome = body(rank, deadline)
                except collx.CollxError as error:
                    outcome = error
                os.write(write, pickle.dumps(outcome))
            finally:
                os._exit(0)
        os.close(write)
        pipes.append(read)
    outcomes = []
    for read in pipes:
        with open(read, "rb") as pipe:
            outcomes.append(pickle.loads(pipe.read()))
        os.wait()
    return outcomes


def exchanged(group: ShmGroup, members: list[int], label: str, deadline: float) -> list[bytes]:
    """What the members wrote into the memory that they passed."""
    own = memory_file(4096)
    os.pwrite(own, f"{label}:{group.rank}".encode(), 0)
    fds = group.connect(members, label, own, deadline)
    contents = [os.pread(fd, 64, 0).rstrip(b"\0") for fd in fds]
    for fd in fds:
        os.close(fd)
    return contents


@pytest.mark.parametrize("size", [1, 2, 3, 8, 33])
def test_everybody_gets_everybodys_memory(directory: str, size: int) -> None:
    def body(rank: int, deadline: float) -> tuple[list[bytes], list[bytes], tuple[int, ...], int]:
        group = ShmGroup.join(directory, rank, size, deadline)
        world = exchanged(group, list(range(size)), "world", deadline)
        part = [member for member in reversed(range(size)) if member % 3 == rank % 3]
        return world, exchanged(group, part, "part", deadline), group.pids, os.getpid()

    outcomes = on_processes(list(range(size)), body)
    for rank, (world, part, pids, pid) in enumerate(outcomes):
        assert world == [b"world:%d" % member for member in range(size)]
        assert part == [b"part:%d" % member for member in reversed(range(size)) if member % 3 == rank % 3]
        assert pids[rank] == pid
        assert pids == outcomes[0][2]
    assert not os.path.exists(directory)


def test_overlapping_groups_in_any_order(directory: str) -> None:
    """Ranks come to their groups at different times and rank 1 is in two: what came early is kept for later."""

    def body(rank: int, deadline: float) -> list[list[bytes]]:
        group = ShmGroup.join(directory, rank, 3, deadline)
        groups = {0: [[0, 1]], 1: [[1, 2], [0, 1]], 2: [[1, 2]]}[rank]
        return [exchanged(group, members, f"g{members}", deadline) for members in groups]

    outcomes = on_processes([0, 1, 2], body)
    assert outcomes[1] == [[b"g[1, 2]:1", b"g[1, 2]:2"], [b"g[0, 1]:0", b"g[0, 1]:1"]]
    assert outcomes[0] == [outcomes[1][1]]


def test_passed_memory_can_neither_shrink_nor_grow() -> None:
    fd = memory_file(8192)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 4096)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 1 << 20)
    assert os.fstat(fd).st_blocks * 512 >= 8192
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(fd)


def test_memory_that_is_not_to_be_had_is_one_error() -> None:
    def body(rank: int, deadline: float) -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        return memory_file(8192)

    assert "no 8192 bytes of shared memory to be had" in str(on_processes([0], body)[0])


@pytest.mark.parametrize(("came", "missing"), [([0, 1, 3], "rank 2 of 4"), ([0, 3], "ranks 1, 2 of 4")])
def test_missing_ranks_are_listed_to_all(directory: str, came: list[int], missing: str) -> None:
    outcomes = on_processes(came, lambda rank, deadline: ShmGroup.join(directory, rank, 4, deadline), 0.5)
    assert all(isinstance(outcome, collx.BootstrapError) for outcome in outcomes)
    assert {str(outcome) for outcome in outcomes} == {f"{missing} did not come within the timeout of init"}


def test_a_missing_rank_0_is_named(directory: str) -> None:
    (outcome,) = on_processes([1], lambda rank, deadline: ShmGroup.join(directory, rank, 2, deadline), 0.3)
    assert "rank 0 of 2, whom all others meet, did not come" in str(outcome)


def test_the_most_impatient_rank_decides(directory: str) -> None:
    def body(rank: int, deadline: float) -> Any:
        return ShmGroup.join(directory, rank, 3, deadline if rank == 0 else time.monotonic() + 0.3)

    outcomes = on_processes([0, 1], body)
    assert {str(outcome) for outcome in outcomes} == {"rank 2 of 3 did not come within the timeout of init"}


def test_a_rank_that_comes_twice_is_named_to_all(directory: str) -> None:
    outcomes = on_processes([0, 1, 1], lambda rank, deadline: ShmGroup.join(directory, rank, 3, deadline))
    assert all("rank 1 came twice" in str(outcome) for outcome in outcomes)


def test_ranks_of_different_jobs_are_named_to_all(directory: str) -> None:
    outcomes = on_processes([0, 1], lambda rank, deadline: ShmGroup.join(directory, rank, 2 + rank, deadline))
    assert all("rank 1 says that the job has 3 ranks, rank 0 says 2" in str(outcome) for outcome in outcomes)


def test_a_rank_that_dies_while_others_come_is_named(directory: str) -> None:
    def body(rank: int, deadline: float) -> Any:
        if rank == 1:
            place = os.open(directory, os.O_DIRECTORY)
            card = cards.Card(1, 3, os.getpid(), "here", 0)
            connection = rendezvous._connected(place, card, deadline)
            cards.send(connection, cards.packed(cards.CARD, card, LONG, "here"), 0, deadline)
            return None
        return ShmGroup.join(directory, rank, 3, deadline)

    outcomes = on_processes([0, 1], body)
    assert "rank 1 of 3 ended before all ranks had come" in str(outcomes[0])


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o777])
def test_a_directory_that_others_can_enter_is_refused(directory: str, mode: int) -> None:
    os.chmod(directory, mode)
    with pytest.raises(collx.BootstrapError, match="must belong to this user and have mode 0700"):
        ShmGroup.join(directory, 0, 2, time.monotonic() + LONG)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory of another user")
def test_a_directory_of_another_user_is_refused(directory: str) -> None:
    os.chown(directory, 12345, 12345)
    with pytest.raises(collx.BootstrapError, match="must belong to this user"):
        ShmGroup.join(directory, 0, 2, time.monotonic() + LONG)


def test_a_directory_that_is_a_link_is_refused(directory: str, tmp_path: Path) -> None:
    os.symlink(directory, tmp_path / "link")
    with pytest.raises(collx.BootstrapError, match="could not meet"):
        ShmGroup.join(str(tmp_path / "link"), 0, 2, time.monotonic() + LONG)


def test_strangers_at_the_door_change_nothing(directory: str) -> None:
    """Silence, garbage, frames without descriptor, impossible ranks: all shown out while the ranks meet."""
    nonsense = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        os.urandom(256),
        b"x" * 5000,
        cards.FRAME.pack(cards.CARD, 1, 2, 1, 9.0, b"no descriptor"),
        cards.FRAME.pack(cards.CARD, 2**32 - 1, 2, 1, 9.0, b"no such rank"),
    ]

    def body(rank: int, deadline: float) -> Any:
        if rank == 0:
            return exchanged(ShmGroup.join(directory, 0, 2, deadline), [0, 1], "world", deadline)
        strangers = []
        place = os.open(directory, os.O_DIRECTORY)
        for text in nonsense:
            stranger = rendezvous._connected(place, cards.Card(1, 2, 0, "", 0), deadline)
            strangers.append(stranger)
            if text:
                with contextlib.suppress(ConnectionError):
                    stranger.send(text)
        for stranger in strangers[3:]:
            stranger.close()
        return exchanged(ShmGroup.join(directory, 1, 2, deadline), [0, 1], "world", deadline)

    assert on_processes([0, 1], body) == [[b"world:0", b"world:1"]] * 2


def test_unsealed_memory_and_garbage_in_the_mailbox_are_ignored(directory: str) -> None:
    def body(rank: int, deadline: float) -> Any:
        group = ShmGroup.join(directory, rank, 2, deadline)
        if rank == 0:
            group._outboxes[1].send(b"garbage")
            unsealed = os.memfd_create("unsealed")
            socket.send_fds(group._outboxes[1], [struct.pack("=8s16sI", b"collx1:m", b"", 0)], [unsealed])
        return exchanged(group, [0, 1], "world", deadline)

    assert on_processes([0, 1], body) == [[b"world:0", b"world:1"]] * 2


def test_a_member_that_does_not_come_is_named(directory: str) -> None:
    def body(rank: int, deadline: float) -> Any:
        group = ShmGroup.join(directory, rank, 3, deadline)
        if rank == 2:
            for other in [os.pidfd_open(pid) for pid in group.pids[:2]]:
                select.select([other], [], [])  # alive until both gave up
            return None
        return exchanged(group, [0, 1, 2], "part", time.monotonic() + 0.3)

    outcomes = on_processes([0, 1, 2], body)
    assert all(isinstance(outcome, collx.TimeoutError) for outcome in outcomes[:2])
    assert "rank 2 did not come to part in time" in str(outcomes[0])


def test_a_member_that_died_is_named(directory: str) -> None:
    def body(rank: int, deadline: float) -> Any:
        group = ShmGroup.join(directory, rank, 2, deadline)
        return None if rank == 1 else exchanged(group, [0, 1], "part", deadline)

    outcome = on_processes([0, 1], body)[0]
    assert isinstance(outcome, collx.RankFailedError)
    assert "rank 1" in str(outcome)
    assert "died before it had come to part" in str(outcome)


def leave_descriptors(free: int) -> None:
    """Let this process open so many more: below the limit lie its own, which may be of the tests before, as well."""
    taken = {int(number) for number in os.listdir("/proc/self/fd")}
    limit = next(itertools.islice((number for number in itertools.count() if number not in taken), free, None))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def test_few_descriptors_are_enough(directory: str) -> None:
    def body(rank: int, deadline: float) -> Any:
        leave_descriptors(48)
        group = ShmGroup.join(directory, rank, 8, deadline)
        for turn in range(20):
            exchanged(group, list(range(8)), f"turn {turn}", deadline)
        group.close()
        return "well"

    assert on_processes(list(range(8)), body) == ["well"] * 8


def test_too_few_descriptors_are_one_error(directory: str) -> None:
    def body(rank: int, deadline: float) -> Any:
        if rank == 0:
            leave_descriptors(3)
        return exchanged(ShmGroup.join(directory, rank, 16, deadline), list(range(16)), "world", deadline)

    outcomes = on_processes(list(range(16)), body, 2.0)
    assert all(isinstance(outcome, collx.CollxError) for outcome in outcomes)
    assert "raise `ulimit -n`" in str(outcomes[0])
