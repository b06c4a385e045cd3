"""The shipped suite on the mpi transport, and what that adds, in an environment that has an MPI: run by test_mpi.py.

All ranks live in this process, as threads, and MPI carries their messages from it to itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from mpi4py import MPI

from collx.errors import MismatchError
from collx.transports import mpi
from collx.transports.base import Transport
from collx.transports.conformance import CHECKS, Check
from collx.transports.mpi import MpiTransport


@contextmanager
def ranks(size: int) -> Iterator[list[Transport]]:
    comm = MPI.COMM_SELF.Dup()
    comm.Set_errhandler(MPI.ERRORS_RETURN)
    ends: list[Transport] = [MpiTransport(comm, rank, size) for rank in range(size)]
    try:
        yield ends
    finally:
        for end in ends:
            end.close()


@pytest.fixture(params=[1 << 30, 1000], ids=["whole", "in pieces"])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The pieces that messages go in: those of the suite are whole, or many."""
    monkeypatch.setattr(mpi, "PIECE", request.param)
    return int(request.param)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, piece: int) -> None:
    check(ranks)


@pytest.mark.parametrize("sent", [0, 999, 1000, 1001, 1999, 2000, 2001, 3000, 5000])
@pytest.mark.parametrize("wanted", [999, 1000, 2000, 2500])
def test_lengths_are_told_apart_wherever_pieces_end(sent: int, wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mpi, "PIECE", 1000)
    with ranks(2) as (one, other):
        one.send(1, memoryview(b"x" * sent))
        receive = other.recv(0, memoryview(bytearray(wanted)))
        if sent == wanted:
            receive.wait(30)
        else:
            with pytest.raises(MismatchError):
                receive.wait(30)


def test_nothing_is_kept_once_all_have_left() -> None:
    with ranks(3) as ends:
        sent = ends[0].send(1, memoryview(b"x"))
        ends[1].recv(0, memoryview(bytearray(1))).wait(30)
        sent.wait(30)
        ends[0].close()
        ends[1].close()
        mpi.sweep()
        assert len(mpi._closed) >= 2
    mpi.sweep()
    assert not [end for end in mpi._closed if end in ends]
