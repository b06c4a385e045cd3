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
from dataclasses import dataclass
from types import FrameType

from collx.bootstrap import NOTES, Place
from collx.errors import BootstrapError
from collx.lifeline import Keeper, interrupts_held_back
from collx.started import Rank, Stream
from collx.transports.connections.secret import DESCRIPTOR, find_secret, lend_secret, new_secret
from collx.transports.connections.tls import find_tls

END_GRACE = 0.3  # seconds from SIGTERM to SIGKILL after a failure
INTERRUPT_GRACE = 5.0  # the same after Ctrl-C or SIGTERM, when nothing is wrong and ranks may want to save something
CULPRIT_GRACE = 0.5  # seconds that a failure waits for one that was under way before it
NO_SECRET = (
    "ranks of several hosts talk only with a secret, and there is none; give --secret-file FILE or COLLX_SECRET_FILE"
    " (mode 0600, the same 32 random bytes on every host: `(umask 077; head -c 32 /dev/urandom > FILE)`), or go without"
    " by COLLX_INSECURE=1, where you trust everyone who can reach these hosts"
)


def launch(
    command: Sequence[str],
    n: int,
    *,
    tag: bool = True,
    keep_going: bool = False,
    environ: Mapping[str, str] | None = None,
    share: Share | None = None,
) -> int:
    """Run `command` as `n` ranks on this host, which are all of the job or its `share`; the job's exit code.

    That is 0, or the code of the rank that failed first (128 + the signal's number where one killed it), or
    128 + the number of the signal that ended the job. A failure ends the other ranks, unless `keep_going`; it is
    named on stderr. `tag`: each line of output starts with "[rank] "; without, ranks write to this process's stdout
    and stderr directly. Rank 0 gets stdin unless that is a terminal. No process of the job is left when this
    returns, nor when this process is killed; what has left its rank's process group is none of the job's. Call it
    in the main thread. Ranks get a secret that this makes, unless the environment leads to one, as it must where this
    is a share. Raises OSError where the command cannot be started, BootstrapError for a secret that is none.
    """
    environ = dict(os.environ if environ is None else environ)
    if share is None:
        for name in (DESCRIPTOR, NOTES):  # of the job that this is a process of, if any
            environ.pop(name, None)
    elif find_secret(environ) is None:
        raise BootstrapError(NO_SECRET)
    find_tls(environ, find_secret(environ) or new_secret())  # no need for every rank to say what is wrong with it
    with _secret(environ) as inherited:
        return _Job(command, n, tag, keep_going, environ, inherited, share).run()


@contextlib.contextmanager
def _secret(environ: dict[str, str]) -> Iterator[list[int]]:
    """What ranks inherit: the descriptor of the job's secret, which `environ` tells them, unless it is in a file."""
    made = -1
    if find_secret(environ) is None:
        made = lend_secret(new_secret())
        environ[DESCRIPTOR] = str(made)
    try:
        yield [int(environ[DESCRIPTOR])] if DESCRIPTOR in environ else []
    finally:
        if made >= 0:
            os.close(made)


@dataclass(frozen=True, slots=True)
class Share:
    """What one host starts of a job: its ranks go on from `first`, and meet the others of `size` at `rendezvous`."""

    first: int
    size: int
    rendezvous: str

    def place(self, number: int, n: int) -> Place:
        """That of the `number`-th of this host's `n` ranks."""
        return Place(self.first + number, self.size, number, self.rendezvous, n)


class _Job:
    def __init__(
        self,
        command: Sequence[str],
        n: int,
        tag: bool,
        keep_going: bool,
        environ: Mapping[str, str],
        inherited: Sequence[int],
        share: Share | None,
    ) -> None:
        self.command, self.n, self.tag, self.keep_going = command, n, tag, keep_going
        self.environ, self.inherited, self.share = environ, inherited, share
        self.ranks: list[Rank] = []
        self.running: set[Rank] = set()
        self.streams: set[Stream] = set()
        self.selector = selectors.DefaultSelector()
        self.failed: Rank | None = None
        self.verdict: float | None = None  # when to take the failure found first for the first
        self.kill: float | None = None  # when to end by SIGKILL what was asked to end
        self.interrupts = 0
        self.interrupted_by = 0

    def run(self) -> int:
        with interrupts_held_back():
            keeper = Keeper()
        try:
            with self._signals():
                share = self.share or Share(0, self.n, f"unix:{keeper.directory}")
                for number in range(self.n):
                    if not self.interrupts:
                        self._start(share.place(number, self.n), keeper)
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
        # The directory where ranks of one host meet is theirs, and gone when they have met.
        notes = {NOTES: keeper.directory} if self.share else {}
        output = subprocess.PIPE if self.tag else None
        rank = Rank(place, self.command, {**self.environ, **notes}, self.inherited, output)
        keeper.guard(rank.process.pid)
        self.ranks.append(rank)
        self.running.add(rank)
        if self.interrupts:  # while it was being started
            rank.signal(self.interrupted_by)
        self.selector.register(rank.pidfd, selectors.EVENT_READ, lambda: self._ended(rank))
        for source, target in ((rank.process.stdout, sys.stdout), (rank.process.stderr, sys.stderr)):
            if source is not None:
                stream = Stream(source, target.buffer, place.rank)
                self.streams.add(stream)
                self.selector.register(source, selectors.EVENT_READ, functools.partial(self._pass_on, stream))

    def _pass_on(self, stream: Stream) -> None:
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

    def _ended(self, rank: Rank) -> None:
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
        elif self.verdict is not None and rank.came_before(self.failed):
            self.failed = rank

    def _end_all(self) -> None:
        assert self.failed is not None
        self._say(self.failed.end + ("; ending the others" if self.running else ""))
        self.verdict = None
        self.kill = time.monotonic() + END_GRACE
        for rank in self.running:
            rank.signal(signal.SIGTERM)

    def _say(self, line: str) -> None:
        print(f"collx run: {line}", file=sys.stderr, flush=True)
