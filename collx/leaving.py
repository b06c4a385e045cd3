"""What becomes of a process's communicators when it ends, or forks."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import weakref
from typing import Protocol

from collx.errors import CollxError


class Membership(Protocol):
    """A rank's membership in a communicator (`collx.member.Member`)."""

    size: int

    def close(self) -> None:
        """Idempotent."""
        ...

    def _break(self, what: str, error: BaseException) -> None: ...
    def _flown(self) -> str: ...
    def _inherited(self) -> None: ...


_members: weakref.WeakKeyDictionary[Membership, None] = (
    weakref.WeakKeyDictionary()
)  # in the order that they were made in
_shared: weakref.WeakSet[Shared] = weakref.WeakSet()
_parents: list[object] = []  # engines of the parent process, which the child must not close by dropping them


def enter(member: Membership) -> None:
    """Have it end with the process, and be told of a fork."""
    _members[member] = None


def dump_all() -> None:
    """Print what `dump` prints of every communicator of this process to standard error; for signal handlers, which may
    come in the middle of another print."""
    for member in sorted(_members, key=lambda member: member.size, reverse=True):
        text = member._flown().encode()
        with contextlib.suppress(OSError):
            while text:
                text = text[os.write(2, text) :]


def keep_in_child(engine: object) -> None:
    """Never drop what is the parent's."""
    _parents.append(engine)


class Shared(Protocol):
    """What communicators share, as connections to other hosts."""

    def close(self) -> None:
        """Idempotent."""
        ...


def close_last(shared: Shared) -> None:
    """As the process ends, close this as well, after its communicators."""
    _shared.add(shared)


def leave_all(fatal: BaseException | None = None) -> None:
    """Close every communicator as the process ends, in the same order on all ranks, which may wait for each other;
    if by an exception, the other ranks are told of it."""
    fatal = fatal or getattr(sys, "last_value", None)  # what ended the program, if an exception did
    for member in list(_members):
        if fatal is not None:
            member._break("the program", fatal)
        with contextlib.suppress(CollxError):  # as of a GPU that has failed: the others are to be left too
            member.close()
    for shared in list(_shared):
        shared.close()


def _after_fork() -> None:
    for member in list(_members):
        member._inherited()
        _members.pop(member, None)


atexit.register(leave_all)
os.register_at_fork(after_in_child=_after_fork)
