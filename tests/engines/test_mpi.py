"""MPI's own collectives as one more way of the selector: which calls they make, and what is told where ranks differ.

That their results are right `tests/mpirun` shows, as COLLX_TRANSPORT=mpi chooses them.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests import jobs
from tests.launchers import MPIS, Launcher

each_mpi = pytest.mark.parametrize("mpi", MPIS, ids=str)


def made(mpi: Launcher, ranks: int, folder: Path, text: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return mpi.run(ranks, jobs.program(folder, text), COLLX_TRANSPORT="mpi", **environ)


CHOSEN = """
import io

def last(comm):
    table = io.StringIO()
    comm.dump(table)
    return table.getvalue().splitlines()[-1].split()[3]

with collx.init(timeout=30) as comm:
    def chosen(collective, x, *args, **keywords):
        getattr(comm, collective)(x, *args, **keywords)
        return last(comm)

    one, two = np.ones(1, np.float32), np.ones(comm.size, np.float32)
    for collective in ("all_reduce", "all_gather", "broadcast", "reduce", "gather", "scan", "exscan"):
        assert chosen(collective, one) == "mpi", collective
    for collective in ("reduce_scatter", "all_to_all", "scatter"):
        assert chosen(collective, two) == "mpi", collective
    assert chosen("all_reduce", one, "avg") == "mpi"
    assert chosen("all_reduce", np.ones(1, bool), "max") == "mpi"
    assert chosen("all_gather", np.ones(1, np.float16)) == "mpi"
    for x, op in (
        (one, "max"), (np.ones(1, np.float16), "sum"), (np.ones(1, np.int16), "sum"), (np.ones(1, complex), "prod"),
        (one, "land"), (one, collx.ReduceOp.custom(np.add)),
    ):
        assert chosen("all_reduce", x, op) != "mpi", (x.dtype, op)
    counts = [1] * comm.size
    assert chosen("all_to_all", two, send_counts=counts, recv_counts=counts) != "mpi"
    assert chosen("all_reduce", one, algorithm="ring") == "ring"
    assert chosen("all_reduce", one, algorithm="mpi") == "mpi"
    try:
        comm.all_reduce(one, "max", algorithm="mpi")
        raise SystemExit("it was let through")
    except ValueError as error:
        assert "all_reduce cannot use 'mpi' here: MPI's max of float32 is not the same" in str(error), error
"""


@each_mpi
def test_they_are_chosen_where_they_mean_the_same(mpi: Launcher, tmp_path: Path) -> None:
    done = made(mpi, 2, tmp_path, CHOSEN)
    assert done.returncode == 0, done.stderr


def test_without_mpi_there_are_none(tmp_path: Path) -> None:
    text = 'collx.init().all_reduce(np.ones(1), algorithm="mpi")'
    done = jobs.collx_run("-n", 2, jobs.program(tmp_path, text))
    assert "ValueError: all_reduce cannot use 'mpi' here: no MPI joins the ranks" in done.stderr


WAYS = """
elements = int(os.environ["ELEMENTS"])

with collx.init(timeout=60) as comm:
    size, rank = comm.size, comm.rank
    x = np.arange(elements, dtype=np.float64) % 1000 + rank
    total = np.arange(elements, dtype=np.float64) % 1000 * size + size * (size - 1) / 2
    out = np.empty_like(x)
    part = elements // size
    for turn in range(8):  # one rank's array is new where the others' are not, or it starts what they wait for
        odd = turn % size == rank
        taken = np.empty_like(x) if odd else out
        taken[:] = 0
        done = comm.all_reduce(x, out=taken, async_op=odd and turn % 3 == 0)
        assert ((done if isinstance(done, np.ndarray) else done.wait()) == total).all(), turn
        mine = comm.reduce_scatter(x[: part * size], out=taken[:part] if odd else None)
        assert (mine == total[rank * part : (rank + 1) * part]).all(), turn
        work = comm.all_gather(x[:part], async_op=True)
        behind = comm.broadcast(x if rank == turn % size else np.empty_like(x), root=turn % size)
        assert (behind == np.arange(elements) % 1000 + turn % size).all(), turn
        assert (work.wait()[rank * part : (rank + 1) * part] == x[:part]).all(), turn
    whole = x.copy()
    comm.reduce_scatter(whole[: part * size], out=whole[rank * part : (rank + 1) * part])
    assert (whole[rank * part : (rank + 1) * part] == total[rank * part : (rank + 1) * part]).all()
    again = comm.plan("all_reduce", x, "avg", out=out)
    for _ in range(3):
        assert np.allclose(again(), total / size)
"""
SMALL, LARGE = 1000, (16 << 20) // 8 + 3


@each_mpi
@pytest.mark.parametrize("elements", [SMALL, LARGE])
@pytest.mark.parametrize("level", ["multiple", "serialized", "funneled"])
def test_ranks_make_a_call_the_same_way_though_each_calls_differently(
    mpi: Launcher, elements: int, level: str, tmp_path: Path
) -> None:
    done = made(mpi, 3, tmp_path, WAYS, ELEMENTS=str(elements), MPI4PY_RC_THREAD_LEVEL=level)
    assert done.returncode == 0, done.stderr


@each_mpi
@pytest.mark.parametrize("level", ["multiple", "serialized"])
def test_without_comparing(mpi: Launcher, level: str, tmp_path: Path) -> None:
    alike = WAYS.replace("async_op=odd and turn % 3 == 0", "async_op=turn % 3 == 0")
    done = made(mpi, 3, tmp_path, alike, ELEMENTS=str(SMALL), MPI4PY_RC_THREAD_LEVEL=level, COLLX_CHECK="0")
    assert done.returncode == 0, done.stderr


@each_mpi
def test_all_ranks_must_mean_to_compare(mpi: Launcher, tmp_path: Path) -> None:
    text = """
    from mpi4py import MPI
    os.environ["COLLX_CHECK"] = "0" if MPI.COMM_WORLD.rank == 1 else "1"
    collx.init(timeout=30)
    """
    done = made(mpi, 2, tmp_path, text)
    assert done.returncode != 0
    assert "TransportError: COLLX_CHECK is 0 on rank 1 and not on rank 0" in done.stderr


DIFFERENT = """
comm = collx.init(timeout=30)
x = np.ones(6, np.float32)
comm.all_reduce(x)
try:
    ({calls})[min(comm.rank, 1)]()
    print(f"rank {{comm.rank}} got through\\n", end="", flush=True)
except collx.CollxError as error:
    print(f"rank {{comm.rank}}: {{type(error).__name__}}: {{error}}\\n", end="", flush=True)
"""


@each_mpi
@pytest.mark.parametrize(
    ("calls", "what", "values"),
    [
        ("lambda: comm.all_reduce(x), lambda: comm.all_reduce(x[:5])", "count", "65"),
        ("lambda: comm.all_reduce(x), lambda: comm.all_reduce(x, 'prod')", "op", ("sum", "prod")),
        ("lambda: comm.broadcast(x, 0), lambda: comm.broadcast(x, 1)", "root", "01"),
        ("lambda: comm.barrier(), lambda: comm.all_gather(x)", "collective", ("barrier", "all_gather")),
        ("lambda: comm.all_reduce(x), lambda: comm.all_reduce(x, 'max')", "op", ("sum", "max")),  # by a schedule
    ],
)
def test_what_ranks_call_differently_is_told_before_mpi_sees_it(
    mpi: Launcher, calls: str, what: str, values: tuple[str, str], tmp_path: Path
) -> None:
    done = made(mpi, 3, tmp_path, DIFFERENT.format(calls=calls))
    one, other = values
    told = f"{what} differs: ({one} here, {other}|{other} here, {one}) on rank"
    for rank in range(3):  # in its own words, or in those of the first to tell
        assert re.search(f"^rank {rank}: MismatchError: .*{told}", done.stdout, re.MULTILINE), done.stdout + done.stderr


@each_mpi
@pytest.mark.parametrize("leaves", ["lambda: comm.close()", "lambda: sys.exit()"])
def test_who_leaves_before_a_call_is_told(mpi: Launcher, leaves: str, tmp_path: Path) -> None:
    done = made(mpi, 3, tmp_path, DIFFERENT.format(calls=f"lambda: comm.barrier(), {leaves}"))
    told = r"^rank 0: RankFailedError: rank 0 in barrier #2: ranks? (1|2|1, 2) left before this call$"
    assert re.search(told, done.stdout, re.MULTILINE), done.stdout + done.stderr


@each_mpi
def test_a_call_that_nothing_can_end_ends_the_job_at_its_deadline(mpi: Launcher, tmp_path: Path) -> None:
    text = """
    comm = collx.init(timeout=30)
    comm.barrier()
    if comm.rank == 0:
        comm.all_reduce(np.ones(3), timeout=1)
    signal.pause()  # the others never come
    """
    done = made(mpi, 2, tmp_path, text, COLLX_CHECK="0")
    assert done.returncode != 0
    assert "rank 0 in all_reduce #2 has been in MPI's own collective for 1 s" in done.stderr
    assert re.search(r"^ +0  2  all_reduce  mpi .* under way", done.stderr, re.MULTILINE)


@each_mpi
def test_who_does_not_come_in_time_is_told(mpi: Launcher, tmp_path: Path) -> None:
    text = """
    comm = collx.init(timeout=30)
    comm.barrier()
    if comm.rank == 0:
        comm.all_reduce(np.ones(3), timeout=1)
    signal.pause()
    """
    done = made(mpi, 2, tmp_path, text)
    assert done.returncode != 0
    assert "TimeoutError: rank 0 in all_reduce #2 waited 1 s for the other ranks to make this call" in done.stderr


FAILED = """
import gc, traceback
from mpi4py import MPI
from collx.mpi.steps import Request

comm = collx.init(timeout=60)
engine, elements, how = comm._engine, 1 << 22, os.environ["HOW"]
stalled, failed = (os.path.join(os.environ["FOLDER"], name) for name in ("stalled", "failed"))

def call(x, out, again, timeout):
    if how == "handle":
        again(timeout=timeout)
    elif how == "asynchronous":
        comm.all_reduce(x, out=out, async_op=True, timeout=timeout).wait()
    else:
        comm.all_reduce(x, out=out, timeout=timeout)

x, out = np.ones(elements), np.ones(elements)
again = comm.plan("all_reduce", x, out=out)
call(x, out, again, None)  # so that the next one goes the short way
if comm.rank == 1:
    settled, Request.settled = Request.settled, lambda request: False
    with engine._progress.lock:  # it begins, and does not move on
        work = comm.all_reduce(x, out=out, async_op=True)
        while not engine._mpi.under_way:
            engine._progress.turn()
        open(stalled, "x").close()
        while not os.path.exists(failed):
            pass
    Request.settled = settled
else:
    try:
        call(x, out, again, 2)
        raise AssertionError("without rank 1?")
    except collx.TimeoutError as error:
        assert os.path.exists(stalled)
        traceback.clear_frames(error.__traceback__)  # they would keep the memory, too
    under_way = engine._mpi.under_way
    comm.close()
    x = out = again = engine = comm = None
    gc.collect()
    fresh = [np.zeros(elements) for _ in range(4)]  # where the others were, if these are no more
    open(failed, "x").close()
if os.environ["GOES_ON"]:  # as MPI does with what collx has given up
    while comm is None and not all(one.settled() for one in under_way):
        pass
    MPI.COMM_WORLD.Barrier()
    assert comm is not None or not any(array.any() for array in fresh)
"""


@each_mpi
@pytest.mark.parametrize(
    ("how", "goes_on"), [("again", "till MPI has done it"), ("asynchronous", "till MPI has done it"), ("handle", "")]
)
def test_what_mpi_goes_on_with_after_an_error_is_kept(mpi: Launcher, how: str, goes_on: str, tmp_path: Path) -> None:
    done = made(mpi, 2, tmp_path, FAILED, HOW=how, GOES_ON=goes_on, FOLDER=str(tmp_path))
    assert done.returncode == 0, done.stderr
