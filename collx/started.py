"""A rank as the launcher that started it sees it: its process, how that ended, and what it writes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO

from collx.bootstrap import NOTES, Place
from collx.lifeline import die_with

LONGEST_LINE = 1 << 16  # bytes; longer ones are passed on in pieces
COLOURS = (36, 33, 35, 32, 34, 31)  # ECMA-48 foregrounds
PF_EXITING = 0x4  # linux/sched.h


class Rank:
    """One process of the job, the leader of its own process group. It is reaped only at the end of the job, so
    that its group's number cannot come to mean somebody else."""

    def __init__(
        self,
        place: Place,
        command: Sequence[str],
        environ: Mapping[str, str],
        inherited: Sequence[int],
        output: int | None,
    ) -> None:
        launcher = os.getpid()
        # Lines are put together again here; ranks that share a terminal or a file had better write whole ones.
        unbuffered = {} if output is None else {"PYTHONUNBUFFERED": "1"}
        stdin = None if place.rank == 0 and not os.isatty(0) else subprocess.DEVNULL
        self.number = place.rank
        self.process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=output,
            stderr=output,
            bufsize=0,
            env={**unbuffered, **environ, **place.environment()},
            process_group=0,
            pass_fds=inherited,
            preexec_fn=lambda: die_with(launcher),
        )
        self.pidfd = os.pidfd_open(self.process.pid)
        self.code: int | None = None
        self.killed_by = 0
        self.notes = environ.get(NOTES)

    def note_end(self) -> int:
        """The exit code, as a shell would give it."""
        status = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOWAIT)
        assert status is not None
        self.killed_by = 0 if status.si_code == os.CLD_EXITED else status.si_status
        self.code = 128 + self.killed_by if self.killed_by else status.si_status
        return self.code

    @property
    def end(self) -> str:
        assert self.code is not None
        who = f"rank {self.number} (pid {self.process.pid})"
        if self.killed_by:
            return f"{who} was killed by {signal.Signals(self.killed_by).name}"
        return f"{who} exited with code {self.code}{self.cause and f', because of another: {self.cause}'}"

    @property
    def cause(self) -> str:
        """What it left to say of another rank's failure, if that ended it."""
        if self.notes:
            with contextlib.suppress(OSError), open(f"{self.notes}/{self.number}", errors="replace") as note:
                return note.read()
        return ""

    def came_before(self, other: Rank) -> bool:
        """Whether this failure, found later, was the cause of the other: it was just slower to end."""
        return not other.killed_by and bool(self.killed_by or (other.cause and not self.cause))

    @property
    def exiting(self) -> bool:
        """Whether it is on its way out. Freeing the memory of a large process takes the kernel a while, in which its
        peers learn of its death and end before it."""
        try:
            with open(f"/proc/{self.process.pid}/stat", "rb") as stat:
                flags = int(stat.read().rpartition(b")")[2].split()[6])
        except OSError:
            return False
        return bool(flags & PF_EXITING)

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def close(self) -> None:
        self.process.wait()
        os.close(self.pidfd)


class Stream:
    """One rank's stdout or stderr on its way to ours, line by line."""

    def __init__(self, source: IO[bytes], target: IO[bytes], rank: int) -> None:
        os.set_blocking(source.fileno(), False)
        self.source, self.target = source, target
        prefix = f"[{rank}]"
        if target.isatty() and "NO_COLOR" not in os.environ:
            prefix = f"\033[{COLOURS[rank % len(COLOURS)]}m{prefix}\033[0m"
        self.prefix = prefix.encode() + b" "
        self.rest = b""

    def pass_on(self) -> int | None:
        """Write the lines that are there. Returns how many bytes came, 0 at the end, None where none are there yet."""
        try:
            data = os.read(self.source.fileno(), LONGEST_LINE)
        except BlockingIOError:
            return None
        *lines, self.rest = (self.rest + data).split(b"\n")
        self._write(lines)
        if not data or len(self.rest) > LONGEST_LINE:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Write what is there of an unfinished line."""
        if self.rest:
            self._write([self.rest])
            self.rest = b""

    def _write(self, lines: list[bytes]) -> None:
        if lines:
            self.target.write(b"".join(self.prefix + line + b"\n" for line in lines))
            self.target.flush()
