"""Names the rank that was killed, under launchers that do not.

Hydra ends a job as soon as one of its processes dies, and tells which process that was, not which rank; nobody in the
job has the time to say so. So one process on each host, which is none of the launcher's, watches its ranks. They keep a
*ledger*: a file in the directory where they meet, with a page for each, that soon has no name any more.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import sys
from typing import NamedTuple

PAGE = struct.Struct("=4I")  # the rank, its process, a pipe that only that one has, and what became of it
THERE, LEFT, FAILED = range(1, 4)  # it has come; it ended by itself; it ended and says so, and has the job ended
LEDGER = "ledger"
TURN = 0.02  # seconds between looks at who has come


class Ledger:
    """One rank's page, for it to write; `local_rank` is the page's number."""

    def __init__(self, directory: str, rank: int, local_rank: int) -> None:
        self._rank, self._at, self._pid = rank, local_rank * PAGE.size, os.getpid()
        self._fd = os.open(f"{directory}/{LEDGER}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._pipe = os.pipe()
        self.write(THERE)

    def write(self, state: int) -> None:
        if os.getpid() == self._pid:  # what it forked is no rank
            os.pwrite(self._fd, PAGE.pack(self._rank, self._pid, self._pipe[0], state), self._at)

    def become_witness(self, size: int, pages: int) -> None:
        """Make this process, forked for it, the witness of the host's `pages` ranks of `size`."""
        os.dup2(self._fd, 3)
        os.closerange(4, 1 << 16)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        # Another program: as a fork it would keep a copy of all memory that this rank changes.
        os.execv(sys.executable, [sys.executable, "-IS", __file__, str(size), str(pages)])


class Page(NamedTuple):
    """What a ledger says of one rank."""

    number: int
    rank: int
    pid: int
    pipe: int
    state: int


def read(ledger: int, number: int) -> Page:
    page = os.pread(ledger, PAGE.size, number * PAGE.size)
    return Page(number, *PAGE.unpack(page.ljust(PAGE.size, b"\0")))


def signs_of_end(page: Page) -> list[int]:
    """Descriptors that become readable when the rank's process ends; none where it has. Its pipe does as early as its
    launcher may learn of it; its pidfd later, when those whom the launcher killed for it may have ended as well."""
    try:
        signs = [os.pidfd_open(page.pid)]
    except ProcessLookupError:
        return []
    with contextlib.suppress(OSError):
        signs.append(os.open(f"/proc/{page.pid}/fd/{page.pipe}", os.O_RDONLY | os.O_NONBLOCK))
    return signs


def watch(ledger: int, size: int, pages: int) -> None:
    """Return when all ranks of the ledger have ended; when some are killed, say which were the first."""
    poll = select.epoll()
    watched, missing = dict[int, Page](), set(range(pages))
    while True:
        ended = []
        for page in [read(ledger, number) for number in sorted(missing)]:
            if page.state == THERE:
                missing.discard(page.number)
                signs = signs_of_end(page)
                for fd in signs:
                    poll.register(fd, select.EPOLLIN)
                    watched[fd] = page
                if not signs:
                    ended.append(page)
        if not ended:
            for sign, _ in poll.poll(TURN if missing else None, 1):  # the first that ended
                ended.append(watched[sign])
                for fd in [fd for fd, page in watched.items() if page == ended[0]]:
                    poll.unregister(fd)
                    del watched[fd]
        if any(read(ledger, number).state == FAILED for number in range(pages)):
            return
        # Who has left may have gone on to another program of the job, whose page it is then.
        killed = [page for page in ended if read(ledger, page.number) == page]
        if killed:
            names = ", ".join(f"rank {page.rank} of {size} (pid {page.pid})" for page in killed)
            was = "was" if len(killed) == 1 else "were"
            told = f"collx: {names} on {os.uname().nodename} {was} killed, or exited without closing"
            if missing:  # their launcher may have killed those who came for one of these
                told += (
                    f"; if not for another: number {', '.join(map(str, sorted(missing)))} there had not come to init"
                )
            os.write(2, f"{told}\n".encode())
        if killed or not watched:
            return


if __name__ == "__main__":
    watch(3, int(sys.argv[1]), int(sys.argv[2]))
