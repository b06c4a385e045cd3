"""What stands between the connections of a job and TLS: whoever uses one, in Python or C++, has one end of a pair of
Unix sockets, and need not know. One thread per process carries what is written there to the other host, and back."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
import time
import weakref

CHUNK = 1 << 18  # bytes that are taken in before they are passed on, in each direction
TURNS = 8  # chunks of one connection before the others have their turn
RECORD = 1 << 14  # bytes, of TLS
LINGER = 2.0  # seconds for what is left to go out
UNREACHABLE = 3500  # ms that the kernel tries to reach a peer's host, as in csrc/control.cpp
NO_TLS = "spoke no TLS"
ALERT = b"\x15\x03\x03\x00\x02\x02\x46"  # a fatal one: protocol_version (RFC 8446)
_NEVER = float("inf")
_WANTS = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)
IN, OUT, HUP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP


class Fate:
    """What is known of a connection's other end. `why` says why TLS has ended it, if that was the reason."""

    def __init__(self, far: ssl.SSLSocket) -> None:
        self.why = ""
        self.peer = far.getpeername()
        self._far = weakref.ref(far)

    def keep_alive(self) -> None:
        far = self._far()
        options = ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_USER_TIMEOUT, UNREACHABLE))
        with contextlib.suppress(OSError):  # it is closed
            if far is not None:
                far.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in options:
                    far.setsockopt(socket.IPPROTO_TCP, option, value)


class Near(socket.socket):
    """The user's end of a pair."""

    fate: Fate

    def getpeername(self) -> object:
        """The address on the other host."""
        return self.fate.peer


def relayed(connection: socket.socket, context: ssl.SSLContext, *, answers: bool) -> Near:
    """What to use in place of `connection`, a nonblocking TCP socket."""
    far = context.wrap_socket(connection, server_side=answers, do_handshake_on_connect=False)
    try:
        one, other = socket.socketpair()
    except OSError:
        far.close()
        raise
    near = Near(one.family, one.type, one.proto, fileno=one.detach())
    near.fate = Fate(far)
    near.setblocking(False)
    other.setblocking(False)
    _the_relay().add(_Pair(near.fate, other, far, answers))
    return near


class _Pair:
    """One connection. All but the making is for the relay's thread."""

    def __init__(self, fate: Fate, near: socket.socket, far: ssl.SSLSocket, answers: bool) -> None:
        self.fate, self.near, self.far = fate, near, far
        self._answers = answers
        self.shaken = self.closed = False
        self.out = self.into = memoryview(b"")  # what is to go on, to the other host and to the user
        self.near_over = self.far_over = False  # nothing more comes from there
        self.until = _NEVER  # once the user has closed its end: for how long the other may still take in the rest
        self._masks = {near.fileno(): -1, far.fileno(): -1}  # events that are waited for
        self._writes = False  # TLS waits for the other host to read

    @property
    def unsent(self) -> bool:
        """Whether the user has closed it, and what it wrote has not gone out."""
        return not self.closed and self.until != _NEVER and not (self.near_over and not self.out)

    def turn(self) -> bool:
        """Go on as far as possible without waiting, or for long enough; whether there may be more to do at once."""
        self._writes, more = False, False
        try:
            if not self.shaken:
                self.far.do_handshake()
                self.shaken = True
            sent = self._send()
            more = self._receive() or sent
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLWantWriteError:
            self._writes = True
        except OSError as error:
            self._end(_reason(error))
        over = self.near_over and self.far_over and not self.into
        if not self.closed and (over or (self.until != _NEVER and not self._lingers())):
            self._end("")
        return more and not self.closed

    def _lingers(self) -> bool:
        """Whether the other side may still want what the user wrote before it closed its end."""
        return (self.shaken or not self._answers) and time.monotonic() < self.until

    def _send(self) -> bool:
        for _ in range(TURNS):
            if not self.out and not self.near_over and not self._taken():
                return False
            try:
                if not self.out:
                    return False
                self.out = self.out[self.far.send(self.out) :]
            except ssl.SSLWantWriteError:
                self._writes = True
                return False
            except ssl.SSLWantReadError:
                return False
            except OSError:  # the other side may have said why
                self._decrypted()
                raise
        return True

    def _taken(self) -> bool:
        """Whether there is more to send, or nothing more will come."""
        try:
            self.out = memoryview(self.near.recv(CHUNK))
        except BlockingIOError:
            return False
        except ConnectionError:  # the user has not read all
            self.out = memoryview(b"")
        if not self.out:
            self.near_over = True
            socket.socket.shutdown(self.far, socket.SHUT_WR)  # SSLSocket's own would forget about TLS
        return True

    def _receive(self) -> bool:
        for _ in range(TURNS):
            if not self.into and not self.far_over:
                self.into = memoryview(self._decrypted())
            if not self.into:
                break
            try:
                self.into = self.into[self.near.send(self.into) :]
            except BlockingIOError:
                return False
            except ConnectionError:  # nobody reads it: it is taken in, as the other side may want to hear the rest
                self.into = memoryview(b"")
        else:
            return True
        if self.far_over:
            with contextlib.suppress(OSError):
                self.near.shutdown(socket.SHUT_WR)
        return False

    def _decrypted(self) -> bytes:
        """What has come, at most a chunk or a little more."""
        came, nbytes = [], 0
        while nbytes < CHUNK:
            try:
                piece = self.far.recv(RECORD)
            except _WANTS:
                break
            if not piece:
                self.far_over = True
                break
            came.append(piece)
            nbytes += len(piece)
        return b"".join(came)

    def look(self) -> None:
        """See whether the user has closed its end, before the kernel tells."""
        poll = select.poll()
        poll.register(self.near, 0)
        for fd, events in poll.poll(0):
            self.heard(events, fd)

    def heard(self, events: int, fd: int) -> None:
        """What the kernel tells of one of the two sockets."""
        if events & HUP and fd == self.near.fileno() and self.until == _NEVER:
            self.until = time.monotonic() + LINGER

    def wait(self, epoll: select.epoll) -> None:
        """Have `epoll` wake the relay when this can go on."""
        if not self.shaken:
            near, far = 0, OUT if self._writes else IN
        else:
            near = (IN if not self.out and not self.near_over else 0) | (OUT if self.into else 0)
            far = (IN if not self.into and not self.far_over else 0) | (OUT if self._writes else 0)
        self._mask(epoll, self.near.fileno(), near, self.until != _NEVER)
        self._mask(epoll, self.far.fileno(), far, True)

    def _mask(self, epoll: select.epoll, fd: int, mask: int, deaf: bool) -> None:
        """Wait for these events; where there are none, for the end alone, or not even for that if `deaf`."""
        mask, before = (-1 if deaf and not mask else mask), self._masks[fd]
        if mask == before:
            return
        if mask < 0:
            epoll.unregister(fd)
        elif before < 0:
            epoll.register(fd, mask)
        else:
            epoll.modify(fd, mask)
        self._masks[fd] = mask

    def _end(self, why: str) -> None:
        self.closed, self.fate.why = True, why
        if why == NO_TLS and self._answers:
            with contextlib.suppress(OSError):
                socket.socket.send(self.far, ALERT)  # OpenSSL says nothing
        self.close()

    def close(self) -> None:
        self.far.close()
        self.near.close()  # last: who notices may ask why


def _reason(error: OSError) -> str:
    """What was wrong with the other side, or with this one in its eyes; "" where it merely hung up."""
    if not isinstance(error, ssl.SSLError):
        return ""
    reason = (error.reason or "").lower().replace("_", " ")
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"showed a certificate that is none of this job's ({error.verify_message})"
    if "peer did not return a certificate" in reason:
        return "showed no certificate"
    if "alert" in reason:
        return (
            "did not trust the certificate of this rank" if "ca" in reason or "cert" in reason else f"gave up: {reason}"
        )
    if isinstance(error, ssl.SSLEOFError) or not reason:
        return ""
    return NO_TLS if "version" in reason or "http" in reason or "record" in reason else f"broke TLS: {reason}"


class _Relay:
    def __init__(self) -> None:
        self._pairs = dict[int, _Pair]()  # by both descriptors
        self._new: list[_Pair] = []
        self._changed = threading.Condition()
        self._asked = self._answered = 0  # of those who wait for what is left to go out
        self._epoll, self._bell = select.epoll(), os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._bell, IN)
        threading.Thread(target=self._run, name="collx-tls", daemon=True).start()

    def add(self, pair: _Pair) -> None:
        with self._changed:
            self._new.append(pair)
        os.eventfd_write(self._bell, 1)

    def finish(self) -> None:
        with self._changed:
            self._asked += 1
            asked = self._asked
            os.eventfd_write(self._bell, 1)
            self._changed.wait_for(lambda: self._answered >= asked, LINGER)

    def drop(self) -> None:
        """Close everything, in a process that was forked."""
        for pair in {*self._pairs.values(), *self._new}:
            pair.close()
        self._epoll.close()
        os.close(self._bell)

    def _run(self) -> None:
        again, ending = set[_Pair](), set[_Pair]()
        while True:
            events = self._epoll.poll(0 if again else LINGER / 4 if ending else None)
            turning, again = again | ending, set()
            asked = self._taken_in(turning)
            for fd, event in events:
                if (pair := self._pairs.get(fd)) is not None:
                    pair.heard(event, fd)
                    turning.add(pair)
            if asked > self._answered:
                for pair in self._pairs.values():
                    pair.look()
                turning.update(self._pairs.values())
            for pair in turning:
                fds = pair.near.fileno(), pair.far.fileno()
                if pair.turn():
                    again.add(pair)
                if pair.closed:
                    for fd in fds:
                        del self._pairs[fd]
                    ending.discard(pair)
                    continue
                pair.wait(self._epoll)
                if pair.until != _NEVER:
                    ending.add(pair)
            if asked > self._answered and not again and not any(pair.unsent for pair in self._pairs.values()):
                with self._changed:
                    self._answered = asked
                    self._changed.notify_all()

    def _taken_in(self, turning: set[_Pair]) -> int:
        """Take in the new pairs, whose turn it is; who waits for the end."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        with self._changed:
            new, self._new = self._new, []
            asked = self._asked
        for pair in new:
            self._pairs[pair.near.fileno()] = self._pairs[pair.far.fileno()] = pair
            turning.add(pair)
        return asked


_relay: _Relay | None = None
_making = threading.Lock()


def _the_relay() -> _Relay:
    global _relay
    with _making:
        if _relay is None:
            _relay = _Relay()
        return _relay


def finish() -> None:
    """Return when what was written to connections that are closed by now has gone out, or cannot, within seconds."""
    if _relay is not None:
        _relay.finish()


def _drop_inherited() -> None:
    """A process that was forked from a rank is none."""
    global _relay, _making
    _making = threading.Lock()
    if _relay is not None:
        _relay.drop()
    _relay = None


os.register_at_fork(after_in_child=_drop_inherited)
