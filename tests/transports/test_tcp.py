"""How the ranks of a job find each other by TCP: those that come, and those that do not."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collx.errors import BootstrapError
from collx.transports import tcp
from collx.transports.conformance import run_threads
from collx.transports.connections.secret import new_secret
from collx.transports.groups.tcp import TcpGroup
from collx.transports.tcp import Joining

Join = Callable[[Joining], TcpGroup]
SECRET = new_secret()
LATE = 1.0  # seconds, for what is to come too late
WAYS = ("at", "file", "exchange")


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, free_port: int, tmp_path: Path) -> Join:
    """One of the ways to meet."""
    texts = dict[int, str]()
    ready = threading.Condition()

    def exchange(joining: Joining, text: str, deadline: float) -> list[str]:
        with ready:
            texts[joining.rank] = text
            ready.notify_all()
            if not ready.wait_for(lambda: len(texts) == joining.size, deadline - time.monotonic()):
                raise BootstrapError("not all came")
            return [texts[rank] for rank in range(joining.size)]

    ways: dict[str, Join] = {
        "at": lambda joining: joining.at(f"127.0.0.1:{free_port}", SECRET),
        "file": lambda joining: joining.by_file(str(tmp_path / "file"), None),
        "exchange": lambda joining: joining.by(lambda *given: exchange(joining, *given)),
    }
    return ways[request.param]


def joining(rank: int, size: int, timeout: float = 30.0) -> Joining:
    return Joining(rank, size, {}, time.monotonic() + timeout, word=f"of {rank}", apart=True, alone=True)


def raised(join: Join, *ranks: Joining) -> list[str]:
    """What it raises on each of these, all at once."""

    def run(number: int) -> str:
        with pytest.raises(BootstrapError) as error:
            join(ranks[number])
        return str(error.value)

    return run_threads(len(ranks), run)


@pytest.mark.parametrize("size", [2, 5])
def test_all_are_connected(size: int, way: Join) -> None:
    def body(rank: int) -> tuple[object, ...]:
        group = way(joining(rank, size))
        lost = [group.control.lost(peer) for peer in group.far]
        everybody.wait()
        group.close()
        return (group.far, lost, group.epoch, [card.word for card in group.cards], group.connect([0, 1], "a")[1:3])

    everybody = threading.Barrier(size)
    found = run_threads(size, body)
    for rank, (far, lost, *same) in enumerate(found):
        assert far == [peer for peer in range(size) if peer != rank]
        assert lost == [""] * (size - 1)
        assert same == list(found[0][2:])
    assert found[0][3] == [f"of {rank}" for rank in range(size)]


def test_who_did_not_come_is_listed_on_all(free_port: int) -> None:
    here = [joining(0, 5), joining(1, 5, LATE), joining(3, 5)]
    for text in raised(lambda rank: rank.at(f"127.0.0.1:{free_port}", SECRET), *here):
        assert text.startswith("ranks 2, 4 of 5 did not come within the timeout of init; these did: rank 0 at ")
        assert all(f"rank {rank} at 127.0.0.1 (lo) on" in text for rank in (0, 1, 3))


def test_rank_0_is_not_there(free_port: int, tmp_path: Path) -> None:
    [text] = raised(lambda rank: rank.at(f"127.0.0.1:{free_port}", SECRET), joining(1, 2, LATE))
    assert f"rank 1 of 2 did not reach rank 0 at 127.0.0.1:{free_port} from 127.0.0.1 (lo) within the timeout" in text
    [text] = raised(lambda rank: rank.by_file(str(tmp_path / "file"), None), joining(1, 2, LATE))
    assert "rank 0 of 2 left no address at" in text


def test_a_second_process_of_a_rank_is_turned_away(free_port: int) -> None:
    address = f"127.0.0.1:{free_port}"
    come, told = threading.Barrier(3), threading.Barrier(3)

    def body(number: int) -> list[str]:
        if number < 2:
            group = joining(number, 2).at(address, SECRET)
            come.wait()
            told.wait()
            group.close()
            return []
        come.wait()
        try:
            return raised(lambda rank: rank.at(address, SECRET), joining(1, 2, LATE))
        finally:
            told.wait()

    [text] = run_threads(3, body)[2]
    assert text.startswith("rank 1 of 2 came twice, at 127.0.0.1 (lo) on")


def test_a_file_of_a_job_that_was_killed(free_port: int, tmp_path: Path) -> None:
    """Whoever comes before rank 0 finds it, and waits on."""
    path = str(tmp_path / "file")
    looked = threading.Event()

    class Looking(Joining):
        def _reach(self, *given: Any) -> socket.socket:
            try:
                return super()._reach(*given)
            finally:
                looked.set()

    def body(rank: int) -> None:
        if rank == 0:
            looked.wait(30.0)
            groups[0] = joining(0, 2).by_file(path, SECRET)
        else:
            groups[1] = Looking(1, 2, {}, time.monotonic() + 30.0, apart=True, alone=True).by_file(path, SECRET)

    groups = dict[int, TcpGroup]()
    Path(path).touch(0o600)
    Path(path).write_text(f"127.0.0.1:{free_port} {'0' * 16} ")
    Path(path).chmod(0o600)
    run_threads(2, body)
    run_threads(2, lambda rank: groups[rank].close())
    assert not Path(path).exists()


def test_loopback_between_hosts_is_refused(way: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count()
    monkeypatch.setattr(tcp, "machine", lambda: f"machine {next(numbers)}")
    for text in raised(way, joining(0, 2), joining(1, 2)):
        assert "leads to 127.0.0.1 (lo) here, which other hosts cannot reach" in text


def test_another_secret_is_told(free_port: int) -> None:
    secrets = [SECRET, new_secret()]
    join: Join = lambda own: own.at(f"127.0.0.1:{free_port}", secrets[own.rank])  # noqa: E731
    here, there = raised(join, joining(0, 2, LATE), joining(1, 2, LATE))
    assert here.startswith("rank 1 of 2 did not come")
    assert "another secret" in there
