"""`collx run`: starts the ranks of a program, passes their output on, and ends them all when one fails."""

from __future__ import annotations

import contextlib
import functools
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import IO

from collx.bootstrap import Place
from collx.lifeline import Keeper, die_with, interrupts_held_back

END_GRACE = 0.3  # seconds from SIGTERM to SIGKILL after a failure
INTERRUPT_GRACE = 5.0  # the same after Ctrl-C or SIGTERM, when nothing is wrong and ranks may want to save something
CULPRIT_GRACE = 0.5  # seconds that a failure waits for one that was under way before it
LONGEST_LINE = 1 << 16  # bytes; longer ones are passed on in pieces
COLOURS = (36, 33, 35, 32, 34, 31)  # ECMA-48 foregrounds
PF_EXITING = 0x4  # linux/sched.h


def launch(
    command: Sequence[str],
    n: int,
    *,
    tag: bool = True,
    keep_going: bool = False,
    environ: Mapping[str, str] | None = None,
) -> int:
    """Run `command` as `n` ranks on this host; the job's exit code.

    That is 0, or the code of the rank that failed first (128 + the signal's number where one killed it), or
    128 + the number of the signal that ended the job. A failure ends the other ranks, unless `keep_going`; it is
    named on stderr. `tag`: each line of output starts with "[rank] "; without, ranks write to this process's stdout
    and stderr directly. Rank 0 gets stdin unless that is a terminal. No process of the job is left when this
    returns, nor when this process is killed; what has left its rank's process group is none of the job's. Call it
    in the main thread. Raises OSError where the command cannot be started.
    """
    return _Job(command, n, tag, keep_going, os.environ if environ is None else environ).run()


class _Rank:
    """One process of the job, the leader of its own process group. It is reaped only at the end of the job, so
    that its group's number cannot come to mean somebody else."""

    def __init__(self, place: Place, command: Sequence[str], environ: Mapping[str, str], output: int | None) -> None:
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
            preexec_fn=lambda: die_with(launcher),
        )
        self.pidfd = os.pidfd_open(self.process.pid)
        self.code: int | None = None
        self.killed_by = 0

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
        return f"{who} exited with code {self.code}"

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


class _Stream:
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


class _Job:
    def __init__(self, command: Sequence[str], n: int, tag: bool, keep_going: bool, environ: Mapping[str, str]) -> None:
        self.command, self.size, self.tag, self.keep_going = command, n, tag, keep_going
        self.environ = environ
        self.ranks: list[_Rank] = []
        self.running: set[_Rank] = set()
        self.streams: set[_Stream] = set()
        self.selector = selectors.DefaultSelector()
        self.failed: _Rank | None = None
        self.verdict: float | None = None  # when to take the failure found first for the first
        self.kill: float | None = None  # when to end by SIGKILL what was asked to end
        self.interrupts = 0
        self.interrupted_by = 0

    def run(self) -> int:
        with interrupts_held_back():
            keeper = Keeper()
        try:
            with self._signals():
                for rank in range(self.size):
                    if not self.interrupts:
                        self._start(Place(rank, self.size, rank, f"unix:{keeper.directory}", self.size), keeper)
                while self.running:
                    self._turn()
                for stream in self.streams:
                    while stream.pass_on():
                        pass
                    stream.flush()
        except BrokenPipeError:  # whoever read our output has seen enough
            self.interrupted_by = signal.SIGPIPE
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        finally:
            keeper.close()  # ends what still runs, ranks' children too
            for started in self.ranks:
                started.close()
            for stream in self.streams:
                stream.source.close()
            self.selector.close()
        if self.interrupted_by:
            return 128 + self.interrupted_by
        return self.failed.code or 0 if self.failed else 0

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Signals that end the job are handled here, and wake the selector. Those ignored so far stay ignored."""
        bell, clapper = os.pipe()
        os.set_blocking(clapper, False)
        self.selector.register(bell, selectors.EVENT_READ, lambda: os.read(bell, 512))
        wakeup = signal.set_wakeup_fd(clapper, warn_on_full_buffer=False)
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {n: signal.signal(n, self._interrupt) for n in numbers if signal.getsignal(n) != signal.SIG_IGN}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)
            os.close(bell)
            os.close(clapper)

    def _start(self, place: Place, keeper: Keeper) -> None:
        rank = _Rank(place, self.command, self.environ, subprocess.PIPE if self.tag else None)
        keeper.guard(rank.process.pid)
        self.ranks.append(rank)
        self.running.add(rank)
        if self.interrupts:  # while it was being started
            rank.signal(self.interrupted_by)
        self.selector.register(rank.pidfd, selectors.EVENT_READ, lambda: self._ended(rank))
        for source, target in ((rank.process.stdout, sys.stdout), (rank.process.stderr, sys.stderr)):
            if source is not None:
                stream = _Stream(source, target.buffer, place.rank)
                self.streams.add(stream)
                self.selector.register(source, selectors.EVENT_READ, functools.partial(self._pass_on, stream))

    def _pass_on(self, stream: _Stream) -> None:
        if stream.pass_on() == 0:
            self.selector.unregister(stream.source)
            self.streams.discard(stream)
            stream.source.close()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Pass the signal on; the second time, insist."""
        self.interrupts += 1
        self.interrupted_by = self.interrupted_by or number
        for rank in self.running:
            rank.signal(number if self.interrupts == 1 else signal.SIGKILL)
        self.kill = time.monotonic() + INTERRUPT_GRACE

    def _turn(self) -> None:
        """Wait for the next event, or the next moment to act, and act."""
        moments = [moment for moment in (self.verdict, self.kill) if moment is not None]
        for key, _ in self.selector.select(max(min(moments) - time.monotonic(), 0) if moments else None):
            key.data()
        now = time.monotonic()
        if self.verdict is not None and (now >= self.verdict or not any(rank.exiting for rank in self.running)):
            self._end_all()
        if self.kill is not None and now >= self.kill:
            self.kill = None
            for rank in self.running:
                rank.signal(signal.SIGKILL)

    def _ended(self, rank: _Rank) -> None:
        self.selector.unregister(rank.pidfd)
        self.running.discard(rank)
        code = rank.note_end()
        if code == 0 or self.interrupted_by:
            return
        if self.keep_going:
            self._say(f"{rank.end}; the others go on")
            self.failed = self.failed or rank
        elif self.failed is None:
            self.failed = rank
            self.verdict = time.monotonic() + CULPRIT_GRACE
        elif self.verdict is not None and rank.killed_by and not self.failed.killed_by:
            self.failed = rank  # killed, but slower to end than those who failed of its death

    def _end_all(self) -> None:
        assert self.failed is not None
        self._say(self.failed.end + ("; ending the others" if self.running else ""))
        self.verdict = None
        self.kill = time.monotonic() + END_GRACE
        for rank in self.running:
            rank.signal(signal.SIGTERM)

    def _say(self, line: str) -> None:
        print(f"collx run: {line}", file=sys.stderr, flush=True)
