"""Meeting by torchrun's store, of which a stand-in is here: torch itself is too large for tests."""

from __future__ import annotations

import atexit
import datetime
import sys
import threading
import time
import types
from collections.abc import Sequence

import pytest

import collx
from collx import world
from collx.bootstrap import STORE, Place
from collx.transports.conformance import run_threads
from collx.transports.meeting.torch_store import exchange

MEETING = "torch://head:29500/0"


class Kept:
    """What torchrun keeps, for all its workers."""

    def __init__(self) -> None:
        self.values, self.changed = dict[str, bytes](), threading.Condition()
        self.asked: list[tuple[str, int]] = []

    def __call__(
        self, host: str, port: int, *, is_master: bool, timeout: datetime.timedelta, wait_for_workers: bool
    ) -> Kept:
        assert not is_master
        assert not wait_for_workers
        self.asked.append((host, port))
        return self

    def set(self, key: str, value: str) -> None:
        with self.changed:
            self.values[key] = value.encode()
            self.changed.notify_all()

    def get(self, key: str) -> bytes:
        return self.values[key]

    def add(self, key: str, amount: int) -> int:
        with self.changed:
            self.values[key] = b"%d" % (int(self.values.get(key, b"0")) + amount)
            return int(self.values[key])

    def delete_key(self, key: str) -> bool:
        return self.values.pop(key, None) is not None

    def check(self, keys: Sequence[str]) -> bool:
        return set(keys) <= self.values.keys()

    def wait(self, keys: Sequence[str], timeout: datetime.timedelta) -> None:
        with self.changed:
            if not self.changed.wait_for(lambda: self.check(keys), timeout.total_seconds()):
                raise RuntimeError("wait timeout")


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    kept = Kept()
    module = types.ModuleType("torch.distributed")
    module.TCPStore = kept  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    monkeypatch.setitem(sys.modules, "torch.distributed", module)
    return kept


def met(size: int, meeting: str = MEETING, seconds: float = 60.0) -> list[list[str]]:
    deadline = time.monotonic() + seconds
    return run_threads(size, lambda rank: exchange(meeting, rank, size, f"rank {rank}", deadline))


def test_all_hear_all(kept: Kept) -> None:
    """Also in a second program of the same workers."""
    for _ in range(2):
        assert met(3) == [["rank 0", "rank 1", "rank 2"]] * 3
    assert set(kept.asked) == {("head", 29500)}


def test_an_address_of_ipv6(kept: Kept) -> None:
    met(1, "torch://[fd77::1]:29500/2")
    assert kept.asked == [("fd77::1", 29500)]


def test_who_does_not_come_is_named(kept: Kept) -> None:
    with pytest.raises(collx.BootstrapError, match=r"ranks 0, 2 of 3 did not come .*; rank 1 did"):
        exchange(MEETING, 1, 3, "", time.monotonic() + 0.05)


def test_who_missed_the_others_can_meet_them_later(kept: Kept) -> None:
    with pytest.raises(collx.BootstrapError, match="rank 0 of 2 did not come"):
        exchange(MEETING, 1, 2, "early", time.monotonic() + 0.05)
    assert met(2) == [["rank 0", "rank 1"]] * 2


def test_a_store_that_fails_is_not_taken_for_ranks_that_do_not_come(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(keys: Sequence[str], timeout: datetime.timedelta) -> None:
        raise RuntimeError("Connection reset by peer\nwith a long trace")

    monkeypatch.setattr(kept, "wait", fail)
    with pytest.raises(collx.BootstrapError, match="torchrun's store at head, port 29500, failed: Connection reset"):
        met(1)


def test_without_torch_another_port_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torch", "torch.distributed"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(collx.BootstrapError, match=r"cannot be imported .*; set COLLX_RENDEZVOUS=tcp://HOST:PORT"):
        met(1)


def test_a_communicator_of_one_asks_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLLX_TRANSPORT", raising=False)
    with collx.from_store(None, 0, 1) as comm:
        assert (comm.rank, comm.size, comm.transports) == (0, 1, ("memory",))


def test_from_store_says_what_is_wrong_before_it_meets(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="size is 0"):
        collx.from_store(None, 0, 0)
    with pytest.raises(ValueError, match="rank is 2"):
        collx.from_store(None, 2, 2)
    with pytest.raises(ValueError, match="a rank in job_ranks is -1"):
        collx.from_store(None, 0, 2, job_ranks=[0, -1])
    with pytest.raises(ValueError, match="job_ranks has 2 ranks, 1 different ones, but size is 2"):
        collx.from_store(None, 0, 2, job_ranks=[3, 3])
    monkeypatch.setenv("COLLX_TRANSPORT", "mpi")
    with pytest.raises(collx.TransportError, match="store are joined by shm and tcp"):
        collx.from_store(None, 0, 2)


def test_the_job_s_own_world_ends_as_its_launcher_wants_after_a_store_s_too(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[Place] = []
    monkeypatch.setattr(atexit, "register", lambda end, place, ledger, others: ends.append(place))
    monkeypatch.setattr(world, "_awaits", None)
    monkeypatch.setattr(world, "_awaits_job", False)
    stored, job = Place(0, 2, 0, STORE, 2), Place(0, 2, 0, "job:/run/job", 2, pmi=7)
    for place in (stored, stored, job, stored, job):
        world._await(place, {1234})
    assert ends == [stored, job]
