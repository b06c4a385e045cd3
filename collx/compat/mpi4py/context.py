"""What all handles of one communicator share."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn, Self
from weakref import WeakSet

from collx.communicator import Communicator
from collx.compat.mpi4py import constants, errors
from collx.compat.mpi4py.errhandler import ordinary
from collx.compat.mpi4py.handle import Handle, Kept, Mixin
from collx.work import Work

living: WeakSet[Context] = WeakSet()


class Context(Kept):
    """A communicator of collx, and what MPI keeps with it.

    `members` are its ranks' numbers in COMM_WORLD. Where it joins two groups, they are those of this rank's group and
    `remote` those of the other; `ranks` then has both, beginning with the group that has the lowest.
    """

    def __init__(
        self,
        ranks: Communicator | None,
        name: str = "",
        members: Iterable[int] = (),
        remote: Iterable[int] | None = None,
        label: str = "",
        topology: Any = None,
    ) -> None:
        self.ranks = ranks  # None until MPI is initialised
        self.name = name
        self.members = tuple(members)
        self.remote = None if remote is None else tuple(remote)
        self.label = label
        self.topology = topology
        self.attributes: dict[int, Any] = {}
        self.errhandler: Any = ordinary()._it
        self.info: dict[str, str] = {}
        self.buffer: Any = None  # which a program attaches for Bsend, which does without
        self.buffered: list[Work] = []  # what Bsend has sent
        self.locks: dict[Hashable, threading.Lock] = {}
        self.taking = threading.RLock()  # held from finding a message until it is received; signal handlers get through
        self._children = 0
        self._labels: Counter[str] = Counter()
        living.add(self)

    @property
    def here(self) -> int:
        """The rank of collx's communicator that rank 0 of this group is."""
        return 0 if self.remote is None or min(self.members) < min(self.remote) else len(self.remote)

    @property
    def away(self) -> int:
        """The one that rank 0 of those that messages go to is."""
        return 0 if self.remote is None or self.here > 0 else len(self.members)

    @property
    def peers(self) -> int:
        """How many ranks messages may go to."""
        return len(self.members) if self.remote is None else len(self.remote)

    def child(self) -> str:
        """A label for the communicator that all its ranks make next."""
        self._children += 1
        return f"{self.label}.{self._children}"

    def child_of(self, who: str) -> str:
        """A label for the one that those of its ranks make next that agree on `who`."""
        self._labels[who] += 1
        return f"{self.label}.{who}.{self._labels[who]}"

    def lock(self, key: Hashable) -> threading.Lock:
        """Threads that use the communicator for the same thing take turns by it."""
        return self.locks.setdefault(key, threading.Lock())

    def recall(self) -> None:
        """Take back the receives that nothing has come for, whose end nobody will wait for."""
        for work in () if self.ranks is None else list(self.ranks._under_way):
            work.cancel()

    def __del__(self) -> None:
        self.recall()  # so that its communicator, which goes with it, does not wait for them

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return self.ranks is not None and not all(work.done() for work in list(self.ranks._under_way))

    def close(self) -> None:
        if self.ranks is not None:
            self.ranks.close()
        self.ranks = None


def number(given: Any) -> int:
    """A rank, tag and so on, as mpi4py takes them: a float loses its fraction. TypeError for what is no number."""
    if isinstance(given, (str, bytes)):
        raise TypeError(f"an integer is required, not {type(given).__name__}")
    return int(given)


class Ranked(Handle):
    """A communicator's handle, without what communicators do."""

    null = "COMM_NULL"
    invalid = constants.ERR_COMM
    _it: Context | None

    @property
    def _context(self) -> Context:
        context: Context = self._kept()
        return context

    @property
    def _ranks(self) -> Communicator:
        """The communicator of collx."""
        ranks = self._context.ranks
        if ranks is None:
            raise errors.Exception(constants.ERR_COMM, "MPI is not initialised: call MPI.Init()")
        return ranks

    def Get_rank(self) -> int:
        """This process's, in its group."""
        return self._ranks.rank - self._context.here

    def Get_size(self) -> int:
        """Of its group."""
        return self._ranks.size if self._context.remote is None else len(self._context.members)

    rank = property(Get_rank)
    size = property(Get_size)


class Part(Mixin, Ranked):
    """Some of what communicators do."""

    def _lasting(self) -> Self:
        """A handle of the same for what is under way when the program frees its own."""
        return self._of(self._context)

    if TYPE_CHECKING:

        def _fail(self, error: errors.Exception, cause: Exception | None = None) -> NoReturn: ...
