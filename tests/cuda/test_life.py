"""A communicator with calls on GPUs, from the first of them to its end: its ranks are threads of this process."""

from __future__ import annotations

import gc
import io
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import collx
from collx import Communicator
from collx.cuda import engine, joining, nccl
from collx.cuda.control import Deadline
from collx.cuda.mapped import Mapped
from collx.cuda.watch import Queued
from collx.decisions import Decisions
from collx.request import Request
from collx.transports.cuda import driver as interface
from collx.transports.cuda.driver import THREAD_STREAM
from tests.collectives.numbers import matrix_product
from tests.cuda import arrays
from tests.cuda import library as library
from tests.cuda.arrays import FakeArray
from tests.cuda.standin import StandIn
from tests.ranks import on_hosts, on_threads


@pytest.fixture(autouse=True)
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setattr(joining, "LEAVE", 0.05)
    standin = StandIn().install()
    yield standin
    standin.end()
    interface.use(None)


def ones() -> FakeArray:
    cuda: Any = interface.driver()
    return arrays.array(cuda, np.ones(3))


def test_who_leaves_is_not_waited_for() -> None:
    """Ranks that have nothing to do with each other's end do not hear of a mismatch."""

    def body(comm: Communicator) -> None:
        x = ones()
        comm.all_reduce(x)
        if comm.rank == 1:
            comm.close()
            return
        with pytest.raises(collx.RankFailedError, match="rank 1 has closed this communicator"):
            comm.all_reduce(x)

    on_threads(body, 2)


@pytest.mark.parametrize("mode", ["event", "memop"])
def test_who_leaves_waits_for_what_it_has_queued(cuda: StandIn, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it returned at once, the others may come to it much later."""
    monkeypatch.setenv("COLLX_CUDA_SYNC", mode)
    left, late = threading.Event(), threading.Event()

    def come_late() -> None:
        if not left.wait(0.5):
            late.set()

    def body(comm: Communicator) -> None:
        x, out = ones(), ones()
        comm.all_reduce(x)
        if comm.rank == 1:
            cuda._on(x.stream).queue(come_late)
        comm.all_reduce(x, out=out)
        if comm.rank == 0:
            comm.close()
            left.set()
        assert late.is_set() or comm.rank == 1
        assert out.numpy().tolist() == [2, 2, 2]

    on_threads(body, 2)


@pytest.mark.parametrize("shareable", [True, False])
def test_nothing_is_freed_under_a_call_that_failed_halfway(
    cuda: StandIn, shareable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLLX_CUDA_SYNC", "event")
    monkeypatch.setattr(engine, "LEAVE", 0.05)
    ended, both = threading.Event(), threading.Barrier(2)

    def body(comm: Communicator) -> bool:
        x, out = (arrays.array(cuda, np.ones(3), shareable=shareable) for _ in range(2))
        comm.all_reduce(x, out=out)
        both.wait()
        monkeypatch.setattr(Mapped, "_cross", fails)
        cuda._on(x.stream).queue(late)
        with pytest.raises(collx.CollxError):
            comm.all_reduce(x, out=out)
        comm.close()
        both.wait()
        ended.set()
        return "free" not in cuda.calls

    def late() -> None:
        ended.wait(5.0)

    def fails(*_: object, **__: object) -> None:
        both.wait()  # or else who fails first keeps the other one from getting here
        raise collx.TransportError("they meet no more")

    assert all(on_threads(body, 2))


def test_nccl_takes_memory_that_cannot_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is asked for, no call goes by the slabs."""
    made: list[str] = []

    class Fake:
        def run(self, request: Request, *_: object) -> None:
            made.append(request.collective)

        def close(self) -> None: ...

    def body(comm: Communicator) -> None:
        cuda: Any = interface.driver()
        with cuda.on(comm.rank):
            x = arrays.array(cuda, np.ones(3), ordinal=comm.rank, shareable=False)
        comm.all_reduce(x, out=x, algorithm="nccl")

    monkeypatch.setattr(nccl, "join", lambda *_: Fake())
    standin = StandIn(("GPU-0", "GPU-1")).install()
    on_threads(body, 2)
    standin.end()
    assert made == ["all_reduce"] * 2


def test_calls_of_two_threads_on_their_own_streams_come_in_order(cuda: StandIn) -> None:
    """Each thread's stream of its own has the same name."""
    gate = threading.Event()

    def late() -> None:
        gate.wait(10.0)

    def first() -> Queued:
        cuda._on(THREAD_STREAM).queue(late)
        return Queued(cuda, 0, THREAD_STREAM, "a call", Deadline(10.0), None)

    with ThreadPoolExecutor(1) as another:
        queued = another.submit(first).result()
    behind = cuda.event()
    queued.precede(THREAD_STREAM)
    cuda.record(behind, THREAD_STREAM)
    cuda.synchronize(cuda.stream())
    early = cuda.done(behind)
    gate.set()
    cuda.synchronize(THREAD_STREAM)
    assert (early, queued.done()) == (False, True)


def test_all_memory_is_given_back(cuda: StandIn) -> None:
    def body(comm: Communicator) -> int:
        x, out, part = ones(), ones(), comm.split(0)
        assert part is not None
        before = cuda.allocated
        comm.barrier()
        part.all_reduce(x, out=out)
        comm.all_reduce(x, out=out)
        part.close()
        return before

    before = on_threads(body, 2)
    assert (cuda.mapped, [cuda.allocated] * 2) == (0, before)


def test_an_unknown_algorithm_harms_nothing() -> None:
    def body(comm: Communicator) -> None:
        for _ in range(2):
            with pytest.raises(ValueError, match="has no algorithm 'rign': did you mean ring"):
                comm.all_reduce(ones(), algorithm="rign")
            assert comm.all_reduce(ones(), algorithm="ring").numpy().tolist() == [2, 2, 2]

    on_threads(body, 2)


def test_what_the_first_call_found_out() -> None:
    def body(comm: Communicator) -> None:
        comm.all_reduce(ones())
        told = str(comm.explain("all_reduce", 1 << 20, device="cuda"))
        assert "by CUDA IPC (stand-in: ranks 0, 1); rank 0 works for all; ranks wait for each other by host" in told

    on_threads(body, 2)


def test_the_first_call_is_not_captured(cuda: StandIn) -> None:
    def body(comm: Communicator) -> None:
        x = ones()
        stream = arrays.current(cuda)
        cuda.begin_capture(stream)
        with pytest.raises(collx.TransportError, match="the first call on GPUs cannot be captured in a CUDA graph"):
            comm.all_reduce(x)
        cuda.end_capture(stream)
        assert comm.all_reduce(x).numpy().tolist() == [2, 2, 2]

    on_threads(body, 2)


def test_why_memory_is_staged() -> None:
    def body(comm: Communicator) -> None:
        cuda: Any = interface.driver()
        x = arrays.array(cuda, np.ones(3), shareable=comm.rank == 0)
        assert comm.all_reduce(x).numpy().tolist() == [2, 2, 2]
        assert "staged where it must be, last because of rank 1: " in str(comm.explain("scan", 64, device="cuda"))

    on_threads(body, 2)


def test_rank_0_tells_what_was_chosen(cuda: StandIn, capfd: pytest.CaptureFixture[str]) -> None:
    def body(comm: Communicator) -> None:
        for op in ("sum", "max", matrix_product()):
            comm.all_reduce(arrays.array(cuda, np.ones((2, 2))), op)

    on_hosts(body, ["here"] * 2, decisions=Decisions(tells=True))
    first, way, choice = (line.partition(">: ")[2] for line in capfd.readouterr().err.splitlines() if "GPUs" in line)
    assert first.startswith("the first call on GPUs: ")
    assert way.startswith("calls on GPUs go by CUDA IPC (stand-in: ranks 0, 1)")
    assert choice == "all_reduce of 32 B to 64 B on GPUs: direct, by the rules that collx comes with"


def test_the_flight_recorder_knows_of_them() -> None:
    def body(comm: Communicator) -> None:
        comm.all_reduce(ones())
        told = io.StringIO()
        comm.dump(told)
        assert "what they told each other of calls on GPUs" in told.getvalue()

    on_threads(body, 2)


def test_mistakes_leave_the_communicator_as_it_was() -> None:
    """The first call, when nothing is known of GPUs yet, and one on another GPU later."""

    def body(comm: Communicator) -> None:
        x = ones()
        with pytest.raises(ValueError, match="cannot use 'nccl' on GPUs here: ranks share a GPU"):
            comm.all_reduce(x, algorithm="nccl")
        assert comm.all_reduce(x).numpy()[0] == 2
        if comm.rank == 0:
            with pytest.raises(ValueError, match="calls are on GPU 0, and this array is on GPU 1; give each GPU"):
                comm.all_reduce(elsewhere())
        assert comm.all_reduce(x).numpy()[0] == 2

    def elsewhere() -> FakeArray:
        return arrays.empty(driver, 3, ordinal=1)

    driver = StandIn(("GPU-0", "GPU-1")).install()
    on_threads(body, 2)
    driver.end()


def test_a_copy_is_kept_as_long_as_its_call_is_under_way(cuda: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not contiguous is copied, and in mode event a call returns long before its GPU has read that."""
    monkeypatch.setenv("COLLX_CUDA_SYNC", "event")
    copies: dict[int, weakref.ref[FakeArray]] = {}
    empty = library.Fake.empty

    def noted(*given: Any) -> Any:
        made = empty(*given)
        copies[threading.get_ident()] = weakref.ref(made)
        return made

    monkeypatch.setattr(library.Fake, "empty", noted)
    with cuda.on(0):
        word = cuda.allocate(8)

    def body(comm: Communicator) -> None:
        x, out = arrays.array(cuda, np.arange(8.0)), arrays.empty(cuda, 4, np.float64)
        comm.all_reduce(x[:4], out=out)
        cuda.wait_value(arrays.current(cuda), word, 1)
        comm.all_reduce(x[::2], out=out)
        copy = copies[threading.get_ident()]
        gc.collect()
        assert copy() is not None
        comm.barrier()
        cuda.write_value(cuda.stream(), word, 1)
        assert out.numpy().tolist() == [0, 4, 8, 12]
        comm.all_reduce(x[:4], out=out)
        out.numpy()
        comm.all_reduce(x[:4], out=out)  # by when it has seen that the others have ended
        gc.collect()
        assert copy() is None

    on_threads(body, 2)


def test_what_all_ranks_cannot_do_leaves_them_as_they_were(cuda: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also memory and streams: no slab of theirs is left over."""
    cuda.memops = False
    before = cuda.allocated

    def body(comm: Communicator) -> None:
        for mode, why in (("memo", "COLLX_CUDA_SYNC=memo of rank 0"), ("memop", "CUDA_ERROR_NOT_SUPPORTED")):
            comm.barrier()
            monkeypatch.setenv("COLLX_CUDA_SYNC", mode)
            with pytest.raises(collx.TransportError, match=why):
                comm.all_reduce(ones())
            assert comm.all_reduce(np.ones(3)).tolist() == [2] * 3
        comm.barrier()
        monkeypatch.setenv("COLLX_CUDA_SYNC", "event")
        assert comm.all_reduce(ones()).numpy().tolist() == [2] * ones().size

    on_threads(body, 2)
    gc.collect()
    assert cuda.allocated - before <= 2  # of the pools, one for each rank's stream
