"""Makes the world communicator: `init` for the job this process was started in, `join` for a place one knows,
`from_mpi` for the ranks of an MPI communicator."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import importlib.util
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from collx import bootstrap, checks, ending, jobs, lifeline
from collx import decisions as decide
from collx.bootstrap import Place
from collx.communicator import Communicator
from collx.errors import BootstrapError, ClosedError, CollxError, TransportError
from collx.groups import Lone, Mpi, Shm, Tcp, over_mpi, over_tcp
from collx.leaving import close_last, dump_all
from collx.transports.meeting import pmi, torch_store
from collx.transports.shm import ShmGroup
from collx.witness import Ledger

if TYPE_CHECKING:
    from mpi4py import MPI

    from collx.transports.tcp import Exchange

TIMEOUT = 300.0  # seconds

_ledger: Ledger | None = None  # of this job, where it has one
_joined: tuple[Communicator, Place, int] | None = None  # the world, this process's place in it, this process
_awaits: set[int] | None = None  # processes of ranks whose end this one awaits, for they may have failed first
_awaits_job = False  # whether it ends as its launcher wants it
_unnumbered = itertools.cycle(range(1, 1 << 15))  # communicators made by stores of which nobody knows the ranks


def init(
    timeout: float = TIMEOUT, *, init_method: str | None = None, rank: int | None = None, size: int | None = None
) -> Communicator:
    """Join the job that this process was started in; a process that no launcher started is a world of its own.

    Collective among the job's ranks. `timeout`, in seconds, holds for this call and, as the default, for every
    later call on the communicator. Called again, returns the same communicator while it is open.

    `init_method` says where the ranks meet, as torch.distributed has it: "tcp://HOST:PORT", an address of rank 0, which
    listens there; "file:///PATH", on a disk of them all; "env://", as the environment says. `rank` and `size` go with
    it, both or neither: without them the environment says them. A world of one needs neither meeting nor launcher.

    Environment: what `collx run` (COLLX_RANK, COLLX_SIZE, COLLX_RENDEZVOUS, COLLX_LOCAL_RANK, COLLX_LOCAL_SIZE), Open
    MPI's mpirun, Hydra's mpiexec (MPICH, Intel MPI), torchrun, Slurm's srun or an indexed job of Kubernetes tells a
    process of its place, in the order of docs/launch.md; COLLX_TRANSPORT (shm, tcp, mpi, memory) forces a transport; by
    default it is shm, with tcp where ranks are on several hosts, or mpi if it was MPI's launcher that started them, or
    memory for a world of one. Ranks of several hosts need a secret (COLLX_SECRET_FILE, docs/security.md). On one host
    neither MPI nor TCP is touched unless forced. COLLX_CHECK=0, alike on all ranks, keeps them from comparing their
    calls before MPI's own collectives. COLLX_ALGO, COLLX_DEBUG, COLLX_TUNE and the tuning tables hold as rank 0 has
    them, for all ranks (docs/choosing.md).

    Where SIGUSR1 has its default disposition, it prints from then on what `Communicator.dump` prints, of all
    communicators, instead of ending the process; not where this is called outside the main thread.

    Raises BootstrapError where the environment is half-set or says what cannot be, or ranks are missing at the deadline
    (it lists them), TransportError where the transport cannot serve, ClosedError where this process has closed its
    job's world or was forked from a rank, TypeError or ValueError for arguments that are none.
    """
    timeout = checks.seconds(timeout)
    find = _finder(init_method, rank, size)
    if _joined is not None:
        world, place, pid = _joined
        if pid == os.getpid() and not world.closed:
            return world
        if place.size > 1:
            who = f"rank {place.rank} of {place.size}"
            if pid != os.getpid():
                raise ClosedError(f"{who}: this process was forked from it and is no rank; collx.spawn makes ranks")
            raise ClosedError(f"{who}: the world was closed, or broken by an error; a process joins its job once")
    return join(find(os.environ), timeout)


def _finder(method: str | None, rank: int | None, size: int | None) -> Callable[[Mapping[str, str]], Place]:
    """How init's arguments have this process find its place."""
    if not isinstance(method, str | None):
        raise TypeError(f"init_method must be a text, not {type(method).__name__}")
    if (rank is None) != (size is None):
        raise ValueError(f"{'size' if rank is None else 'rank'}= is given alone, but rank= and size= go together")
    if rank is not None and size is not None:
        size = checks.whole(size, "size")
        if size < 1:
            raise ValueError(f"size is {size}, but a job has at least one rank")
        rank = checks.rank_of(rank, size, "rank")
        if method is None and size > 1:
            raise ValueError('rank= and size= want init_method=, as "tcp://HOST:PORT", which says where the ranks meet')
    if method is None:
        return bootstrap.find_place if rank is None else lambda environ: bootstrap.LONE
    if method != "env://" and not jobs.full_name(method):
        raise ValueError(f"init_method is {method!r}, but must be env://, {jobs.FORMS}")
    return lambda environ: bootstrap.choose_place(method, rank, size, environ)


def join(place: Place, timeout: float) -> Communicator:
    """As init, for a given place; the world so made is what init returns from then on."""
    global _joined
    transports = bootstrap.find_transport(place, os.environ)
    with _witnessed(place):
        if "mpi" in transports:
            world = _joined_by_mpi(_world_of_mpi(place), timeout, "world")
        elif "tcp" in transports:
            world = _joined_by_tcp(place, transports == "tcp", timeout)
        elif transports == "memory":
            world = _made(Lone(), place, (os.uname().nodename,), timeout, "world")
        else:
            with lifeline.meeting_place(place.rendezvous) as directory:
                group = ShmGroup.join(directory, place.rank, place.size, time.monotonic() + timeout)
            world = _made(Shm(group, range(place.size)), place, group.hosts, timeout, "world")
    _joined = (world, place, os.getpid())
    return world


def from_mpi(comm: MPI.Intracomm, timeout: float = TIMEOUT) -> Communicator:
    """A communicator of the ranks of `comm`, an mpi4py intracommunicator, in their order.

    Collective among them. `comm` is duplicated, and stays the caller's, to be used meanwhile and freed whenever.
    `timeout` is as `init` has it. Ranks of one host are joined by shared memory, others by MPI; COLLX_TRANSPORT=mpi
    forces MPI everywhere, COLLX_TRANSPORT=tcp TCP. MPI must be initialised, at best with MPI_THREAD_MULTIPLE, as mpi4py
    does by default: where MPI carries messages, below that asynchronous calls move only while this communicator is
    called or its Works are asked or waited for, and below MPI_THREAD_SERIALIZED only the main thread may do so.

    Raises TypeError or ValueError for what is no intracommunicator, BootstrapError where ranks are missing at the
    deadline, TransportError where the transport cannot serve.
    """
    mpi = _mpi("collx.from_mpi")
    if not isinstance(comm, mpi.Comm):
        raise TypeError(f"from_mpi takes a communicator of mpi4py, not {type(comm).__name__}")
    if comm == mpi.COMM_NULL or comm.Is_inter():
        raise ValueError(f"from_mpi takes an intracommunicator, not {'an inter' if comm else 'the null '}communicator")
    return _joined_by_mpi(comm, checks.seconds(timeout), "mpi")


def from_store(
    store: Any,
    rank: int,
    size: int,
    timeout: float = TIMEOUT,
    *,
    label: str = "store",
    job_ranks: Sequence[int] | None = None,
) -> Communicator:
    """A communicator of `size` ranks that meet in `store`, a store of torch.distributed's, this one as `rank`.

    Collective among them. Any number of communicators are made so, one after another by one store or by several, and
    beside the world that `init` joins. `timeout` is as `init` has it; `label` is what errors call the communicator.
    `job_ranks` says which ranks of the caller's job these are: ranks that wait for each other in two communicators of
    which both are told are found at once, others at the deadline.

    Ranks of one host are joined by shared memory, others by TCP, with the secret that the environment leads to, or else
    one that rank 0 leaves in the store (docs/security.md). COLLX_TRANSPORT=tcp forces TCP everywhere, and
    COLLX_TRANSPORT=shm refuses several hosts.

    Raises TypeError or ValueError for arguments that are none, BootstrapError where the store fails or ranks are
    missing at the deadline, TransportError where the transport cannot serve.
    """
    timeout, size = checks.seconds(timeout), checks.whole(size, "size")
    if size < 1:
        raise ValueError(f"size is {size}, but a communicator has at least one rank")
    numbers = _numbers(size, job_ranks)
    place = Place(checks.rank_of(rank, size, "rank"), size, bootstrap.UNKNOWN, bootstrap.STORE, bootstrap.UNKNOWN)
    if size == 1:
        place = dataclasses.replace(place, local_rank=0, local_size=1)
    asked = os.environ.get("COLLX_TRANSPORT", "")
    if asked == "mpi":
        raise TransportError("COLLX_TRANSPORT is mpi, but ranks that meet in a store are joined by shm and tcp")
    transports = "shm+tcp" if asked == "shm" and size > 1 else bootstrap.find_transport(place, os.environ)
    if transports == "memory":
        return _made(Lone(), place, (os.uname().nodename,), timeout, label)
    exchange = partial(torch_store.by_store, store, torch_store.PREFIX, "the store", place.rank, size)
    comm = _joined_by_tcp(place, transports == "tcp", timeout, label, exchange, numbers)
    if asked == "shm" and comm.transports != ("shm",):
        comm.close()
        raise TransportError("COLLX_TRANSPORT=shm: ranks are on several hosts; unset it, and TCP joins the others")
    return comm


def _numbers(size: int, job_ranks: Sequence[int] | None) -> Sequence[int]:
    """Of the ranks of a communicator made by a store. Where nobody knows which ranks of the job they are, no other
    communicator here has the same; and what the caller calls its job may not be what `init` joined."""
    if job_ranks is None:
        first = next(_unnumbered) << 16
        return range(first, first + size)
    ranks = [checks.rank_of(rank, 1 << 31, "a rank in job_ranks") for rank in job_ranks]
    if len(set(ranks)) != size or len(ranks) != size:
        raise ValueError(f"job_ranks has {len(ranks)} ranks, {len(set(ranks))} different ones, but size is {size}")
    return [rank | 1 << 31 for rank in ranks]


def _joined_by_mpi(comm: MPI.Intracomm, timeout: float, label: str) -> Communicator:
    from collx.transports.groups.mpi import MpiGroup, exchange

    deadline = time.monotonic() + timeout
    group = MpiGroup.join(comm, deadline)
    near = group.near(range(group.size))
    place = Place(group.rank, group.size, near.index(group.rank), "", len(near))
    match bootstrap.find_transport(place, os.environ):
        case "memory":
            return _made(Lone(), place, group.hosts, timeout, label)
        case "tcp":
            ranks: Tcp | Shm | Mpi = over_tcp(place, True, deadline, group.numbers(), partial(exchange, group.comm))
        case transports:
            ranks = over_mpi(group, transports == "mpi", lambda told: ending.end_job(told, _ledger), deadline)
    return _made(ranks, place, group.hosts, timeout, label)


def _joined_by_tcp(
    place: Place,
    forced: bool,
    timeout: float,
    label: str = "world",
    exchange: Exchange | None = None,
    numbers: Sequence[int] | None = None,
) -> Communicator:
    deadline = time.monotonic() + timeout
    if place.rendezvous.startswith("torch:"):
        exchange = partial(torch_store.exchange, place.rendezvous, place.rank, place.size)
    elif place.local_size != place.size and jobs.is_directory(place.rendezvous):  # there ranks of one host meet
        exchange = _exchange_of_launcher(place, deadline)
    ranks = over_tcp(place, forced, deadline, range(place.size) if numbers is None else numbers, exchange)
    if place.local_size == bootstrap.UNKNOWN:
        near = ranks.group.near(range(place.size)) if isinstance(ranks, Tcp) else range(place.size)
        number = near.index(place.rank) if place.local_rank == bootstrap.UNKNOWN else place.local_rank
        place = dataclasses.replace(place, local_rank=number, local_size=len(near))
    return _made(ranks, place, ranks.group.hosts, timeout, label)


def _exchange_of_launcher(place: Place, deadline: float) -> Exchange:
    """How ranks on several hosts tell each other where they are: by their MPI, or by what MPI itself would use."""
    if place.pmi >= 0 and not _has_mpi():
        return lambda text, deadline: pmi.exchange(text, os.environ, deadline)
    from collx.transports.groups.mpi import MpiGroup, exchange

    return partial(exchange, MpiGroup.join(_world_of_mpi(place), deadline).comm)


def _has_mpi() -> bool:
    """Whether there is an mpi4py, other than collx's own."""
    found, own = importlib.util.find_spec("mpi4py"), os.path.join(os.path.dirname(__file__), "compat", "")
    return found is not None and not os.path.realpath(found.origin or "").startswith(os.path.realpath(own))


def _made(
    ranks: Lone | Shm | Tcp | Mpi, place: Place, hosts: Sequence[str], timeout: float, label: str
) -> Communicator:
    deadline = time.monotonic() + timeout
    engine = ranks.engine(range(place.size), label, timeout)
    try:
        left = max(deadline - time.monotonic(), 1e-3)
        decisions = decide.agreed(
            engine, place.rank, place.size, left, partial(decide.read, os.environ, engine.transports)
        )
    except BaseException as error:
        if not isinstance(error, BootstrapError):  # which all ranks raise
            engine.fail(f"rank {place.rank} of {place.size} cannot join {label}: {error}")
        engine.close()
        raise
    if isinstance(ranks, Tcp):
        close_last(ranks.group)
    if place.size > 1:
        processes = ranks.group if isinstance(ranks, Shm) else ranks.shm if isinstance(ranks, Tcp) else None
        _await(place, {*(processes.pids if processes else ())} - {os.getpid()})
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
        signal.signal(signal.SIGUSR1, lambda *_: dump_all())
    make_group = ranks.engine
    return Communicator(
        engine, place.rank, place.local_rank, hosts, timeout, make_group, label=label, decisions=decisions
    )


def _await(place: Place, others: set[int]) -> None:
    """Have this rank end as `ending` has it: once for communicators of the same processes, and once more where `place`
    is the job's own, which alone tells of the launcher."""
    global _awaits, _awaits_job
    own = place.rendezvous not in ("", bootstrap.STORE)
    if _awaits is None or not others <= _awaits or (own and not _awaits_job):
        _awaits, _awaits_job = others | (_awaits or set()), _awaits_job or own
        atexit.register(ending.end, place, _ledger, sorted(others))


def end_unjoined() -> None:
    """What `ending.end` does for a rank that has not joined its job."""
    if _joined is None:
        with contextlib.suppress(CollxError):  # what is wrong with the environment does not matter any more
            ending.end(bootstrap.find_place(os.environ), _ledger, [])


def _world_of_mpi(place: Place) -> MPI.Intracomm:
    """MPI's world, where its ranks are those of `place`."""
    several = f"only {place.local_size} of {place.size} ranks are on this host, and what joins hosts"
    instead = ", or set COLLX_TRANSPORT=tcp" if place.pmi >= 0 else ""
    what = "COLLX_TRANSPORT=mpi" if place.local_size == place.size else several
    world: MPI.Intracomm = _mpi(what, instead).COMM_WORLD
    if place != bootstrap.LONE and (world.rank, world.size) != (place.rank, place.size):
        raise TransportError(
            f"rank {place.rank} of {place.size} is rank {world.rank} of {world.size} to its MPI, which another launcher"
            " belongs to: start the program by the mpirun or mpiexec of the MPI that mpi4py uses"
        )
    return world


def _mpi(what: str, instead: str = "") -> Any:
    try:
        mpi = importlib.import_module("mpi4py.MPI")
        if mpi.get_vendor()[0] == "collx":
            raise RuntimeError("here mpi4py is collx's own, which --mpi4py gives: there is no MPI behind it")
        return mpi
    except (ImportError, RuntimeError) as error:  # RuntimeError: there is no MPI
        reason = " ".join(str(error).split())
        raise TransportError(f"{what} needs mpi4py and an MPI: pip install 'collx[mpi]'{instead} ({reason})") from error


@contextlib.contextmanager
def _witnessed(place: Place) -> Iterator[None]:
    """In the block the ranks come together. From its beginning somebody is there who says which rank was killed, where
    the launcher does not."""
    global _ledger
    if place.pmi < 0 or not jobs.is_directory(place.rendezvous):
        yield
        return
    with lifeline.meeting_place(place.rendezvous) as directory:
        _ledger = Ledger(directory, place.rank, place.local_rank)
        if place.local_rank == 0:
            lifeline.fork_apart(lambda: _ledger.become_witness(place.size, place.local_size))
        yield
