"""Messages: around the ring, between all pairs at once, out of order by tag, to oneself, from anybody, probed,
synchronous and cancelled.

mpirun -n 4 python tests/mpirun/point_to_point.py --max-bytes 64M
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from collx import Work
from harness import Case, Run, main


def wait(sends: Iterable[Work | None]) -> None:
    for work in sends:
        assert work is not None
        work.wait()


def ring(run: Run, case: Case) -> None:
    right, left = (case.rank + 1) % case.size, (case.rank - 1) % case.size
    out = np.empty(case.count, case.dtype)
    case.equal(run.comm.sendrecv(case.mine(), right, out, left), case.of(left), "from the left")
    case.equal(run.comm.sendrecv(out, left, out, right), case.mine(), "back again")


def pairs(run: Run, case: Case) -> None:
    """Everybody to everybody, oneself included: asynchronous, receives posted first."""
    outs = [np.empty(case.count, case.dtype) for _ in case.ranks]
    receives = [run.comm.recv(out, source, tag=source, async_op=True) for source, out in enumerate(outs)]
    mine = case.mine()
    sends = [run.comm.send(mine, to, tag=case.rank, async_op=True) for to in case.ranks]
    for source, work in enumerate(receives):
        case.equal(work.wait(), case.of(source), f"from rank {source}")
    wait(sends)


def tags(run: Run, case: Case) -> None:
    """Messages of each tag arrive in order, whichever tag is asked for first."""
    right, left = (case.rank + 1) % case.size, (case.rank - 1) % case.size
    sent = [(tag, number) for number in range(3) for tag in (0, 7, 2**31 - 1)]
    sends = [run.comm.send(np.array([*given, case.rank]), right, tag=given[0], async_op=True) for given in sent]
    for tag, number in sorted(sent, reverse=True):
        number = 2 - number  # the sort has them backwards within a tag too
        got = run.comm.recv(np.empty(3, np.int64), left, tag=tag)
        case.equal(got, np.array([tag, number, left]), f"tag {tag}")
    wait(sends)


def anybody(run: Run, case: Case) -> None:
    """One message from everybody, oneself included, in the order in which they come."""
    comm, mine = run.comm, case.mine()
    sends = [comm.send(mine, to, tag=case.rank, synchronous=to % 2 == 0, async_op=True) for to in case.ranks]
    sources = []
    for number in case.ranks:
        out = np.zeros(case.count + 1, case.dtype)
        found = comm.probe() if number % 2 else None
        envelope = comm.recv_any(out, *(found or (None, None))[:2])
        assert found in (None, envelope), (found, envelope)
        assert envelope == (envelope.source, envelope.source, mine.nbytes), envelope
        case.equal(out[:-1], case.of(envelope.source), f"from rank {envelope.source}")
        sources.append(envelope.source)
    assert sorted(sources) == list(case.ranks), sources
    wait(sends)
    comm.barrier()


def cancelled(run: Run, case: Case) -> None:
    """A receive that nothing comes for can be taken back, one that something came for cannot."""
    comm, out = run.comm, np.zeros(1, np.int64)
    assert comm.recv_any(out, async_op=True).cancel()
    comm.barrier()
    right, left = (case.rank + 1) % case.size, (case.rank - 1) % case.size
    sending = comm.send(np.array([case.rank]), right, async_op=True)
    receiving = comm.recv(out, left, async_op=True)
    wait([sending])
    receiving.wait()
    assert not receiving.cancel()
    case.equal(out, np.array([left]), "after it")


def check(run: Run) -> None:
    for exchange in (ring, pairs, anybody):
        for case in run.cases(exchange.__name__):
            exchange(run, case)
    with run.case("tags") as case:
        tags(run, case)
    with run.case("cancelled") as case:
        cancelled(run, case)


if __name__ == "__main__":
    main(check)
