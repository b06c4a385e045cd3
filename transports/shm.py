"""Sets up shared memory between processes of one host. Nothing of it has a name, so nothing is left behind.

Each rank has one mailbox, a datagram socket whose sending end every other rank holds; `rendezvous.meet` hands
those out. Memory is passed later as sealed memfds from mailbox to mailbox, in the same way for the world as
for every communicator that is split from it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import mmap
import os
import resource
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from collx.errors import CollxError, RankFailedError, TimeoutError, TransportError
from collx.transports.meeting import cards, rendezvous

PARCEL = struct.Struct("=8s16sI")  # kind, digest of the communicator's label, sender's world rank
KIND = b"collx1:m"
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
TURN = 0.02  # seconds between looks at the peers' life, and at parcels that another thread took in


HEAP_SHARE = 8  # a communicator's heaps take at most this part of the address space that is left
SMALLEST_HEAP = 1 << 16


def memory_file(nbytes: int, heap: int = 0) -> int:
    """A new memfd of `nbytes` bytes that are there already, so that using them can never end in SIGBUS, and behind
    them `heap` bytes that nobody has allocated; its size nobody can change. Raises TransportError where the memory
    is not to be had."""
    try:
        check_available(nbytes)
    except MemoryError as error:
        raise TransportError(str(error)) from None
    fd = -1
    try:
        fd = os.memfd_create("collx", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.posix_fallocate(fd, 0, nbytes)
        os.ftruncate(fd, nbytes + heap)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        raise TransportError(f"no {nbytes} bytes of shared memory to be had: {_explained(error)}") from error
    return fd


def heap_bytes(ranks: int) -> int:
    """How large to make the heap of each of a communicator's `ranks` ranks: as large as the machine's memory, which
    any one of them may want, or smaller where address space or the size of files is limited (`ulimit -v`, `-f`).

    Address space is all it takes until arrays are allocated in it, of every rank as much as all heaps together.
    """
    heap = 1 << (os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") - 1).bit_length()
    largest, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    while largest != resource.RLIM_INFINITY and heap > largest // 2:
        heap //= 2
    while heap >= SMALLEST_HEAP and not _mappable(HEAP_SHARE * ranks * heap):
        heap //= 2
    return heap if heap >= SMALLEST_HEAP else 0


def _mappable(nbytes: int) -> bool:
    try:
        mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0).close()  # PROT_NONE
    except (OSError, OverflowError):
        return False
    return True


def check_available(nbytes: int) -> None:
    """Raise MemoryError where so much is not there: asked for too much, the kernel would rather kill a process than
    refuse."""
    if nbytes > available():
        raise MemoryError(f"no {nbytes} bytes of shared memory to be had: {available()} are available")


def available() -> int:
    """Bytes of memory that the machine, and the control group of this process, still have."""
    with open("/proc/meminfo") as lines:
        found = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    with contextlib.suppress(OSError, ValueError, StopIteration):
        with open("/proc/self/cgroup") as lines:
            group = next(line.strip().split("::")[1] for line in lines if line.startswith("0::"))
        limit, used = (int(Path(f"/sys/fs/cgroup{group}/memory.{name}").read_text()) for name in ("max", "current"))
        found = min(found, limit - used)
    return found


class Pidfds:
    """Tell of the end of processes: `fds` has one for each, or -1 where descriptors are short, as half of all that a
    process may have are left to others. They are closed with the last that uses them."""

    def __init__(self, pids: Iterable[int]) -> None:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        self.fds: list[int] = []
        for pid in pids:
            fd = -1
            with contextlib.suppress(OSError):
                fd = os.pidfd_open(pid) if pid != os.getpid() else -1
            if fd >= most > 0:
                os.close(fd)
                fd = -1
            self.fds.append(fd)

    def __del__(self) -> None:
        if (close := getattr(cards, "close_all", None)) is not None:  # modules may be gone, and the process with them
            close(fd for fd in self.fds if fd >= 0)


class ShmGroup:
    """The processes of one job on one host, and how they pass memory to each other."""

    def __init__(self, rank: int, inbox: socket.socket, known: Sequence[cards.Card]) -> None:
        self.rank = rank
        self.size = len(known)
        self.pids = tuple(card.pid for card in known)
        self.hosts = tuple(card.host for card in known)
        self._inbox = inbox
        self._outboxes = [socket.socket(fileno=card.fd) for card in known]
        self.pidfds = Pidfds(self.pids)
        self._forgotten = set[bytes]()  # digests of labels that came to nothing
        self._stash = dict[tuple[bytes, int], int]()  # (digest, sender) -> fd that nobody asked for yet
        self._lock = threading.Lock()

    @classmethod
    def join(cls, directory: str, rank: int, size: int, deadline: float) -> ShmGroup:
        """Meet all `size` ranks in `directory` (mode 0700, this user's). Collective. Raises BootstrapError."""
        try:
            inbox, outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        except OSError as error:
            raise TransportError(f"rank {rank} of {size} could not make its mailbox: {_explained(error)}") from error
        inbox.setblocking(False)
        outbox.setblocking(False)
        try:
            return cls(rank, inbox, rendezvous.meet(directory, rank, size, outbox.detach(), deadline))
        except BaseException:
            inbox.close()
            raise

    def connect(
        self, members: Sequence[int], label: str, fd: int, deadline: float, look: Callable[[], None] | None = None
    ) -> list[int]:
        """The members' memfds in the order of `members` (world ranks), with `fd`, one's own, at its place.

        Collective among the members, who give the same members and a label that they use only once. The
        caller owns the descriptors. Raises TimeoutError at `deadline` (of `time.monotonic`) with the members
        that did not come, RankFailedError for one that died. `look` is called every now and then instead of looking
        who has died: what it raises ends the attempt.
        """
        digest = hashlib.blake2b(label.encode(), digest_size=16).digest()
        unsent = [member for member in members if member != self.rank]
        found = {self.rank: fd}
        try:
            with contextlib.ExitStack() as stack:
                pidfds = {} if look else {self._watched(member, label, stack): member for member in unsent}
                while True:
                    if look is not None:
                        look()
                    with self._lock:
                        unsent = [member for member in unsent if not self._sent(member, digest, fd)]
                        self._take_in()
                        for member in set(members) - found.keys():
                            if (digest, member) in self._stash:
                                found[member] = self._stash.pop((digest, member))
                    missing = [member for member in members if member not in found]
                    if not missing and not unsent:
                        return [found[member] for member in members]
                    if time.monotonic() >= deadline:
                        raise TimeoutError(
                            f"rank {self.rank}: {_listed(missing or unsent)} did not come to {label} in time"
                        )
                    self._wait({pidfd: member for pidfd, member in pidfds.items() if member in missing}, label)
        except BaseException as error:
            cards.close_all(found[member] for member in found if member != self.rank)
            self._forget(digest)
            if isinstance(error, OSError) and not isinstance(error, CollxError):
                raise TransportError(f"rank {self.rank} could not connect {label}: {_explained(error)}") from error
            raise

    def close(self) -> None:
        """Give up the mailbox; communicators that are connected already live on. Idempotent."""
        for end in (self._inbox, *self._outboxes):
            end.close()
        while self._stash:
            os.close(self._stash.popitem()[1])

    def __del__(self) -> None:
        self.close()

    def _forget(self, digest: bytes) -> None:
        """Let go of what has come, or comes later, under a label that came to nothing."""
        with self._lock:
            self._forgotten.add(digest)
            for parcel in [parcel for parcel in self._stash if parcel[0] == digest]:
                os.close(self._stash.pop(parcel))

    def _watched(self, member: int, label: str, stack: contextlib.ExitStack) -> int:
        if self.pidfds.fds[member] >= 0:
            return self.pidfds.fds[member]
        try:
            pidfd = os.pidfd_open(self.pids[member])
        except ProcessLookupError:
            raise self._died(member, label) from None
        stack.callback(os.close, pidfd)
        return pidfd

    def _died(self, member: int, label: str) -> RankFailedError:
        return RankFailedError(f"rank {member} (pid {self.pids[member]}) died before it had come to {label}", (member,))

    def _wait(self, pidfds: dict[int, int], label: str) -> None:
        """Sleep until something came in, one of the awaited members died, or a turn is over."""
        poll = select.poll()
        for fd in (self._inbox.fileno(), *pidfds):
            poll.register(fd, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(TURN * 1000)}
        if ready and self._inbox.fileno() not in ready:  # what the dead sent before is taken in first
            raise self._died(pidfds[min(ready)], label)

    def _sent(self, member: int, digest: bytes, fd: int) -> bool:
        try:
            socket.send_fds(self._outboxes[member], [PARCEL.pack(KIND, digest, self.rank)], [fd])
        except OSError as error:
            if error.errno in cards.BUSY:
                return False
            if error.errno not in (errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE):
                raise  # those: it closed its mailbox or died, which waiting for its own parcel will tell
        return True

    def _take_in(self) -> None:
        while True:
            try:
                parcel, fds = cards.receive(self._inbox, PARCEL.size)
            except BlockingIOError:
                return
            if len(parcel) != PARCEL.size or len(fds) != 1 or not _sealed(fds[0]):
                cards.close_all(fds)
                continue
            _, digest, sender = PARCEL.unpack(parcel)
            if digest in self._forgotten:
                cards.close_all(fds)
                continue
            self._stash[digest, sender] = fds[0]


def _explained(error: OSError) -> str:
    return f"{error.strerror}{'; raise `ulimit -n`' if error.errno == errno.EMFILE else ''}"


def _sealed(fd: int) -> bool:
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS
    except OSError:
        return False


def _listed(ranks: Sequence[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
